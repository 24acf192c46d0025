"""Generate clients from the OpenAPI document of a daemon, and use them against that daemon.

``python -m tests.generators --cache FOLDER``. The folder keeps npm's packages. Before that, the
linters of Redocly and Spectral must find nothing in the document. The exit status is 1 where
anything fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from ..helpers.processes import Daemon

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
SECONDS = 300
"""Time limit of a program."""


class Workshop:
    """The folder in which clients are generated, and the programs that generate and use them.

    :param cache: where npm's packages are installed.
    :param folder: for the document and the clients.
    :param daemon: the daemon that has the document.
    """

    def __init__(self, cache: Path, folder: Path, daemon: Daemon) -> None:
        self._npm = cache / "node_modules" / ".bin"
        self._folder = folder
        self._url = f"http://127.0.0.1:{daemon.port}"
        self._document = folder / "openapi.json"
        with urllib.request.urlopen(f"{self._url}/openapi.json") as response:
            self._document.write_bytes(response.read())

    def redocly(self) -> None:
        """Lint with the recommended rules of Redocly; a warning is a failure too."""
        config = f"--config={HERE / 'redocly.yaml'}"
        found = json.loads(
            self._run(self._npm / "redocly", "lint", config, "--format=json", self._document)
        )
        assert not found["totals"]["errors"] + found["totals"]["warnings"], found["problems"]

    def spectral(self) -> None:
        """Lint with all rules of Spectral for OpenAPI, hints included."""
        options = (f"--ruleset={HERE / 'spectral.yaml'}", "--fail-severity=hint")
        self._run(self._npm / "spectral", "lint", *options, self._document)

    def openapi_python_client(self) -> None:
        """Generate and use a Python client of openapi-python-client."""
        into = f"--output-path={self._folder / 'python_client'}"
        path = f"--path={self._document}"
        self._run(script("openapi-python-client"), "generate", path, into, "--meta=none")
        self._python("openapi_python_client.py")

    def openapi_generator_python(self) -> None:
        """Generate and use a Python client of openapi-generator."""
        self._generate("python", self._folder, "--package-name=python_generated")
        self._python("openapi_generator.py")

    def openapi_generator_typescript(self) -> None:
        """Generate, check the types of, and use a TypeScript client of openapi-generator."""
        self._generate("typescript-fetch", self._folder / "client")
        shutil.copy(SCENARIOS / "typescript_fetch.ts", self._folder)
        self._run(
            *(self._npm / "tsc", "--strict", "--target", "es2022", "--lib", "es2022,dom"),
            *("--module", "nodenext", "--outDir", self._folder / "built"),
            self._folder / "typescript_fetch.ts",
        )
        self._run("node", self._folder / "built" / "typescript_fetch.js", self._url)

    def _generate(self, language: str, into: Path, *options: str) -> None:
        command = (script("openapi-generator-cli"), "generate", "-g", language)
        self._run(*command, "-i", self._document, "-o", into, *options)

    def _python(self, scenario: str) -> None:
        path = {"PYTHONPATH": str(self._folder)}
        self._run(sys.executable, SCENARIOS / scenario, self._url, environment=path)

    def _run(self, *command: str | Path, environment: Mapping[str, str] = {}) -> str:
        return run(*command, folder=self._folder, environment=environment)


def run(*command: str | Path, folder: Path, environment: Mapping[str, str] = {}) -> str:
    """Run a program to its end, and return its output.

    :raises AssertionError: when it fails.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **QUIET, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def script(name: str) -> Path:
    """Return a program of the packages that are installed for this interpreter."""
    return Path(sys.executable).with_name(name)


def install(cache: Path) -> None:
    """Install npm's packages into a folder."""
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", cache)
    run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", folder=cache)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.generators")
    parser.add_argument("--cache", type=Path, required=True, help="where packages are installed")
    cache = parser.parse_args().cache.resolve()
    install(cache)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="callme-generators-") as top:
        home, folder = Path(top, "home"), Path(top, "clients")
        home.mkdir()
        folder.mkdir()
        daemon = Daemon(home)
        try:
            workshop = Workshop(cache, folder, daemon.start())
            steps: list[Callable[[], None]] = [
                workshop.redocly,
                workshop.spectral,
                workshop.openapi_python_client,
                workshop.openapi_generator_python,
                workshop.openapi_generator_typescript,
            ]
            for step in steps:
                try:
                    step()
                except AssertionError as error:
                    failed += 1
                    print(f"{step.__name__}: {error}", flush=True)
                else:
                    print(f"{step.__name__}: right", flush=True)
        finally:
            daemon.kill()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
