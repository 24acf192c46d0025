"""Packages of PyPI, npm and Debian, pinned by the lists beside this file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).parent
INSTALL_SECONDS = 300
SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")
"""The script that keeps Debian's packages from starting services; container images have it."""


@frozen
class Packages:
    """The packages that servers and clients come from.

    :ivar folder: the folder that npm's packages are in, and that is kept between two runs.
    :ivar python: the interpreter of the virtual environment that PyPI's packages are in.
    """

    folder: Path
    python: str

    @classmethod
    def cached_in(cls, folder: Path) -> Packages:
        """Return packages that all lie in one folder."""
        return cls(folder, str(folder / "python" / "bin" / "python"))

    def install(self) -> None:
        """Install missing packages; report those that cannot be installed, and continue."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not Path(self.python).exists():
            _run(sys.executable, "-m", "venv", str(self.folder / "python"))
        _run(self.python, "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt"))
        if shutil.which("npm"):
            shutil.copy(HERE / "package.json", self.folder)
            npm = ("npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund")
            _run(*npm, "--prefix", str(self.folder))
        self._install_debian()

    def _install_debian(self) -> None:
        pins = (HERE / "debian.txt").read_text().split()
        missing = [pin for pin in pins if _debian_version(pin.partition("=")[0]) is None]
        if not missing:
            return
        if os.geteuid() != 0 or not SERVICE_POLICY.exists():
            print(f"not installed (this needs root in a container): {' '.join(missing)}")
            return
        _run("apt-get", "update", "-qq")
        for pin in missing:
            _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", pin)

    def version(self, package: str) -> str | None:
        """Return the installed version of ``source:name``; ``None`` where it is not installed.

        The sources are ``pypi``, ``npm``, ``debian`` and ``command`` (a program that prints it).
        """
        source, _, name = package.partition(":")
        if source == "pypi":
            code = f"from importlib.metadata import version; print(version({name!r}))"
            return _output(self.python, "-c", code)
        if source == "npm":
            manifest = self.folder / "node_modules" / name / "package.json"
            return json.loads(manifest.read_text())["version"] if manifest.exists() else None
        if source == "debian":
            return _debian_version(name)
        found = re.search(r"\d+(\.\d+)+", _output(name, "--version") or "")
        return found and found[0]


def _debian_version(name: str) -> str | None:
    status = _output("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", name)
    state, _, version = (status or "").partition(" ")
    # The epoch and Debian's revision say nothing about the software.
    return re.sub(r"^\d+:|-[^-]*$", "", version) if state == "installed" else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _run(*command: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{_shown(command)}: {error}")
        return
    if done.returncode:
        print(f"{_shown(command)}: {(done.stderr or done.stdout).strip()[-500:]}")


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)
