"""The layout: imports run one way, migrations are numbered."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import callme

ROOT = Path(callme.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
PURE = {"attrs", "callme"}
MAY_IMPORT = {
    "callme.core": {"callme.core"},
    "callme.store": {"callme.core", "callme.store"},
    "callme.problem": {"callme.core"},
    "callme.access": {"callme.core", "callme.problem", "callme.secret_file"},
    "callme.crowd": set(),
    "callme.held": set(),
    "callme.descriptors": set(),
    "callme.channel": {
        "callme.access",
        "callme.core",
        "callme.crowd",
        "callme.held",
        "callme.problem",
    },
    "callme.site": {
        "callme.access",
        "callme.channel",
        "callme.crowd",
        "callme.held",
        "callme.problem",
    },
    "callme.caller": {"callme", "callme.caller", "callme.core"},
    "callme.retention": {"callme.core", "callme.store"},
    "callme.clock": set(),
    "callme.probe": {"callme.core"},
    "callme.attempt_log": {"callme.core"},
    "callme.outlook": {"callme.core", "callme.store"},
    "callme.pace": {"callme.core"},
    "callme.dispatcher": {
        "callme.attempt_log",
        "callme.caller",
        "callme.core",
        "callme.observer",
        "callme.pace",
        "callme.store",
    },
    "callme.observer": {"callme.core"},
    "callme.metrics": {
        "callme",
        "callme.core",
        "callme.metrics",
        "callme.observer",
        "callme.scheduler",
        "callme.store",
    },
    "callme.others": {"callme.core", "callme.dispatcher", "callme.store"},
    "callme.scheduler": {
        "callme.caller",
        "callme.core",
        "callme.dispatcher",
        "callme.observer",
        "callme.others",
        "callme.retention",
        "callme.store",
    },
    "callme.api": {
        "callme",
        "callme.access",
        "callme.core",
        "callme.metrics",
        "callme.outlook",
        "callme.problem",
        "callme.scheduler",
        "callme.site",
        "callme.store",
        "callme.waits",
        "callme.api",
    },
    "callme.waits": {"callme.core", "callme.store"},
    "callme.hindsight": {"callme.core", "callme.store"},
    "callme.pages": {
        "callme",
        "callme.access",
        "callme.api",
        "callme.core",
        "callme.hindsight",
        "callme.outlook",
        "callme.pages",
        "callme.problem",
        "callme.scheduler",
        "callme.store",
    },
    "callme.secret_file": {"callme.core"},
    "callme.given": {"callme.core", "callme.store"},
    "callme.options": {"callme", "callme.core", "callme.given"},
    "callme.move": {"callme.store"},
    "callme.databases": {"callme.store"},
    "callme.listening": {"callme.crowd", "callme.descriptors"},
    "callme.tap": {
        "callme.access",
        "callme.core",
        "callme.daemon",
        "callme.databases",
        "callme.options",
        "callme.probe",
        "callme.secret_file",
        "callme.store",
    },
}


def imports(path: Path) -> set[str]:
    """Return the full name of every module that a module imports."""
    package = list(path.with_suffix("").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names} if not node.module else {name}
    return found


def area(module: str) -> str:
    """Return the part of the layout that a module of ours belongs to."""
    return ".".join(module.split(".")[:2]).replace("callme.__version__", "callme")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    own = area(".".join(path.with_suffix("").parts).replace(".__init__", ""))
    ours = {area(name) for name in imports(path) if name.split(".")[0] == "callme"}
    if own in MAY_IMPORT:
        assert set() == ours - MAY_IMPORT[own]
    else:
        assert own in {"callme", "callme.daemon"}, f"say in MAY_IMPORT what {own} may import"
    assert "callme.daemon" not in ours or own == "callme.tap"
    assert "callme.tap" not in ours


@pytest.mark.parametrize("path", [p for p in MODULES if "core" in p.parts], ids=str)
def test_the_core_is_pure(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - PURE
    assert set() == outside - set(sys.stdlib_module_names)
    assert outside.isdisjoint({"sqlite3", "socket", "time", "threading", "asyncio", "os"})


def test_only_what_counts_knows_prometheus() -> None:
    knowing = {
        area(".".join(path.with_suffix("").parts))
        for path in MODULES
        if "prometheus_client" in {name.split(".")[0] for name in imports(path)}
    }
    assert knowing == {"callme.metrics", "callme.daemon"}


def test_only_what_twistd_starts_names_the_reactor() -> None:
    naming = [path for path in MODULES if "import reactor" in (ROOT.parent / path).read_text()]
    assert [Path("callme/tap.py")] == naming


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_migrations_are_numbered_one_after_the_other(database: str) -> None:
    """A schema's version is how many of them it has seen."""
    files = sorted((ROOT / "store" / database / "migrations").glob("*.sql"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
