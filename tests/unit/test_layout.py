"""The layout: packages import one way, migrations are numbered, tests share through helpers."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import callme

ROOT = Path(callme.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
TEST_MODULES = sorted(
    path.relative_to(ROOT.parent) for path in (ROOT.parent / "tests").rglob("test_*.py")
)
ORDER = (
    "callme",
    "callme.errors",
    "callme.monotonic_clock",
    "callme.security",
    "callme.core",
    "callme.store",
    "callme.caller",
    "callme.server",
    "callme.worker",
    "callme.reports",
    "callme.metrics",
    "callme.api",
    "callme.webui",
    "callme.config",
    "callme.service",
    "callme.move",
    "callme.tap",
)
"""Each may import itself and those before it, but for the walls below."""
WALLS = {
    "callme.store": {"callme.security"},
    "callme.server": {"callme.store", "callme.caller"},
    "callme.caller": {"callme.store"},
    "callme.config": {"callme.worker", "callme.api", "callme.webui"},
}
"""What a package must not import although it comes before."""
IO = {"sqlite3", "socket", "time", "threading", "asyncio", "os", "pathlib"}


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


def package_of(module: str) -> str:
    """Return the package, or the module at the root, that a module belongs to."""
    parts = module.removesuffix(".__init__").split(".")[:2]
    return "callme" if parts[-1] == "__version__" else ".".join(parts)


def own_package(path: Path) -> str:
    return package_of(".".join(path.with_suffix("").parts))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_of_a_module_run_one_way(path: Path) -> None:
    own = own_package(path)
    ours = {package_of(name) for name in imports(path) if name.split(".")[0] == "callme"}
    assert own in ORDER
    assert ours <= set(ORDER[: ORDER.index(own) + 1])
    assert ours.isdisjoint(WALLS.get(own, set()))


def test_every_package_of_the_order_exists() -> None:
    assert {own_package(path) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", [p for p in MODULES if "core" in p.parts], ids=str)
def test_core_modules_do_no_io(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - {"attrs", "callme"}
    assert set() == outside - set(sys.stdlib_module_names)
    assert outside.isdisjoint(IO)


def test_only_metrics_and_the_service_import_prometheus() -> None:
    importing = {
        own_package(path)
        for path in MODULES
        if "prometheus_client" in {name.split(".")[0] for name in imports(path)}
    }
    assert importing == {"callme.metrics", "callme.service"}


def test_only_the_postgresql_package_imports_psycopg() -> None:
    """SQLite alone needs no PostgreSQL client."""
    importing = {
        path.parent.name
        for path in MODULES
        if "psycopg" in {name.split(".")[0] for name in imports(path)}
    }
    assert importing == {"postgresql"}
    assert not any("psycopg" in name for name in imports(Path("callme/store/postgresql/server.py")))


def test_only_the_plugin_module_imports_the_reactor() -> None:
    naming = [path for path in MODULES if "import reactor" in (ROOT.parent / path).read_text()]
    assert [Path("callme/tap.py")] == naming


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_migrations_are_numbered_one_after_the_other(database: str) -> None:
    """A schema's version is how many of them it has seen."""
    files = sorted((ROOT / "store" / database / "migrations").glob("*.sql"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))


@pytest.mark.parametrize("path", TEST_MODULES, ids=str)
def test_no_test_module_imports_another_one(path: Path) -> None:
    """Tests share through ``tests/helpers`` and through the fixtures of a ``conftest.py``."""
    imported = {name for name in imports(path) if name.startswith("tests.")}
    modules = {name.rpartition(".")[2] for name in imported}
    assert not [name for name in modules if name == "conftest" or name.startswith("test_")]
