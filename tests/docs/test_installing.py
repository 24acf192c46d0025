"""The commands that install callme, none of which fetches the code of another project."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import callme
from tests.helpers.documentation import ROOT

LOCK = ROOT / "deploy/requirements.txt"
TOOLS = {"axe-playwright-python", "build", "pip-tools", "pre-commit", "ruff", "tox", "uv"}
"""Projects of others that a line may name."""
OWN = re.compile(
    r"""callme-daemon(\[\w+\])?          # the name of the distribution
      | \.(\[[\w,]+\])?                  # a checkout
      | (\$\(echo\ )?[./\w*-]*\.whl.*     # a wheel that was built here
      | ["']?\$.*                        # a variable of a script
    """,
    re.VERBOSE,
)
COMMAND = re.compile(
    r"\bpip3?[\"']? install (?P<arguments>(?:'[^']*'|\"[^\"]*\"|[^\s`'\"#;&|(),]+|[ ])+)"
)
VALUES = {"-r", "-c", "--requirement", "--constraint", "--wheel-dir"}
"""Options of pip that take a value."""


def requirements(line: str) -> list[str]:
    """Return the requirement in a ``pip install`` line of a text."""
    found = []
    for command in COMMAND.finditer(line.replace("\\", "")):
        words = iter(re.findall(r"""'[^']*'|"[^"]*"|\S+""", command["arguments"]))
        for word in words:
            if word in VALUES:
                next(words, None)
            elif not word.startswith("-"):
                found.append(re.split(r"[<>=]", word.strip("'\""))[0])
                if word.endswith(":"):
                    # The line is a message, which continues with prose.
                    break
    return found


def sources() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        name
        for name in listed.stdout.splitlines()
        if not name.startswith(
            ("tests/interop/", "benchmarks/", "findings/", "tests/docs/test_installing.py")
        )
        and (ROOT / name).is_file()
        and re.search(r"(\.(md|py|sh|ini|service|socket|yaml|toml)|Dockerfile|/run|/readme)$", name)
    ]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_line_installs_another_project() -> None:
    lines = [
        (name, number, text)
        for name in sources()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        for text in requirements(line)
    ]
    assert len({name for name, _, _ in lines}) > 5, "the lines are not found"
    wrong = [line for line in lines if not OWN.fullmatch(line[2]) and line[2] not in TOOLS]
    assert not wrong


def test_another_project_would_be_found() -> None:
    assert requirements("say `pip install 'callme[postgresql]'`): see") == ["callme[postgresql]"]
    assert requirements("pip install -q -r a.txt callme tox") == ["callme", "tox"]
    assert not OWN.fullmatch("callme[postgresql]")
    assert not OWN.fullmatch("callme")


def test_image_has_a_permitted_version_of_each_dependency() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))
    needed = [Requirement(text) for text in requires("callme-daemon") or ()]
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": "postgresql"}):
            name = canonicalize_name(requirement.name)
            assert name in locked, f"{name}: run tox run -e lock"
            assert requirement.specifier.contains(locked[name]), f"{name}: run tox run -e lock"


def test_version_is_described_in_the_changelog() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == callme.__version__
