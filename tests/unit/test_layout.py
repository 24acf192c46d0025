"""The layout: packages import one way, modules and functions are small, docstrings stand alone."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
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
    "callme.security",
    "callme.process",
    "callme.core",
    "callme.store",
    "callme.hosts",
    "callme.caller",
    "callme.server",
    "callme.worker",
    "callme.reports",
    "callme.metrics",
    "callme.api",
    "callme.webui",
    "callme.config",
    "callme.service",
    "callme.log",
    "callme.move",
    "callme.backup",
    "callme.tap",
    "callme.client",
    "callme.cli",
)
"""Each may import itself and those before it, but for the walls below."""
WALLS = {
    "callme.store": {"callme.security"},
    "callme.server": {"callme.store", "callme.caller"},
    "callme.caller": {"callme.store"},
    "callme.config": {"callme.worker", "callme.api", "callme.webui"},
    # A client is installed where no daemon runs: it uses the version of callme and no more.
    "callme.client": set(ORDER) - {"callme", "callme.client"},
    "callme.cli": set(ORDER) - {"callme", "callme.client", "callme.cli"},
}
"""Forbidden imports of packages that come before."""
MAX_ROOT_MODULES = 7
MIN_MODULES, MAX_MODULES = 3, 11
"""The modules of a package, without its ``__init__``."""
MAX_FUNCTION_LINES = 60
MAX_P90_FUNCTION_LINES = 18
MAX_POSITIONAL_ARGUMENTS = 5
MIN_FIELDS_KEYWORD_ONLY = 3
"""From this many fields on that could be positional, an attrs class is keyword-only."""
RELATIVE_OPENINGS = ("What", "Who", "Whether", "Where", "How", "Why", "When", "From", "Between")
"""Words that begin a clause: a docstring that begins with one is neither a name nor an order."""
IO = {"sqlite3", "socket", "time", "threading", "asyncio", "os", "pathlib"}


# Known offenders. A test fails for a new one, and for an entry that is no longer needed.
LARGE_PACKAGES: dict[str, int] = {}
LONG_FUNCTIONS: set[str] = set()
LONG_CALLS: set[str] = set()
POSITIONAL_CLASSES: set[str] = set()
RELATIVE_DOCSTRINGS = set(
    Path(__file__).with_name("relative_docstrings.txt").read_text(encoding="utf-8").splitlines()
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


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


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Return every function and class of a module, however deep, each with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")
        else:
            yield from definitions(node, prefix)


def functions() -> Iterator[tuple[str, int]]:
    """Return the dotted name of every function of callme, and its length in lines."""
    for path in MODULES:
        for name, node in definitions(parsed(path)):
            if isinstance(node, Function):
                assert node.end_lineno is not None
                yield name, node.end_lineno - node.lineno + 1


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
    assert not any("psycopg" in name for name in imports(Path("callme/store/postgresql/dsn.py")))


def test_only_the_plugin_module_imports_the_reactor() -> None:
    naming = [path for path in MODULES if "import reactor" in (ROOT.parent / path).read_text()]
    assert [Path("callme/tap.py")] == naming


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_migrations_are_numbered_one_after_the_other(database: str) -> None:
    """The first one makes the whole schema; the version before it has an upgrade."""
    files = {file.name for file in (ROOT / "store" / database / "migrations").glob("*.sql")}
    numbers = sorted(int(name[:4]) for name in files if name[0].isdigit())
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {name for name in files if not name[0].isdigit()} == {f"upgrade_{numbers[0] - 1:04}.sql"}


@pytest.mark.parametrize("path", TEST_MODULES, ids=str)
def test_no_test_module_imports_another_one(path: Path) -> None:
    """Tests share through ``tests/helpers`` and through the fixtures of a ``conftest.py``."""
    imported = {name for name in imports(path) if name.startswith("tests.")}
    modules = {name.rpartition(".")[2] for name in imported}
    assert not [name for name in modules if name == "conftest" or name.startswith("test_")]


def test_the_root_has_few_modules_of_its_own() -> None:
    loose = [path for path in MODULES if len(path.parts) == 2 and path.stem != "__init__"]
    assert len(loose) <= MAX_ROOT_MODULES


def test_packages_are_neither_tiny_nor_crowded() -> None:
    sizes = Counter(
        str(path.parent) for path in MODULES if len(path.parts) > 2 and path.stem != "__init__"
    )
    wrong = {
        package: size
        for package, size in sizes.items()
        if not MIN_MODULES <= size <= LARGE_PACKAGES.get(package, MAX_MODULES)
    }
    assert wrong == {}


def test_no_function_is_long() -> None:
    long = {name for name, lines in functions() if lines > MAX_FUNCTION_LINES}
    assert long == LONG_FUNCTIONS


def test_p90_of_function_lengths_is_small() -> None:
    lengths = sorted(lines for _, lines in functions())
    assert lengths[len(lengths) * 9 // 10] <= MAX_P90_FUNCTION_LINES


def test_calls_of_own_functions_pass_few_positional_arguments() -> None:
    trees = [parsed(path) for path in MODULES]
    own = {node.name for tree in trees for _, node in definitions(tree)}
    calls = {
        ast.unparse(node.func)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) > MAX_POSITIONAL_ARGUMENTS
    }
    assert {call for call in calls if call.rpartition(".")[2] in own} == LONG_CALLS


def attrs_decorator(node: ast.ClassDef) -> ast.expr | None:
    """Return the attrs decorator of a class, or ``None``."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(called).rpartition(".")[2] in ("define", "frozen", "mutable"):
            return decorator
    return None


def is_positional_field(node: ast.stmt) -> bool:
    if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
        return False
    given = node.value.keywords if isinstance(node.value, ast.Call) else []
    return not any(keyword.arg in ("init", "kw_only") for keyword in given)


def test_attrs_classes_of_several_fields_are_keyword_only() -> None:
    positional = set()
    for path in MODULES:
        for name, node in definitions(parsed(path)):
            decorator = attrs_decorator(node) if isinstance(node, ast.ClassDef) else None
            if (
                decorator is None
                or sum(map(is_positional_field, node.body)) < MIN_FIELDS_KEYWORD_ONLY
            ):
                continue
            given = decorator.keywords if isinstance(decorator, ast.Call) else []
            if not any(keyword.arg == "kw_only" for keyword in given):
                positional.add(name)
    assert positional == POSITIONAL_CLASSES


def test_docstrings_begin_with_a_name_or_an_order() -> None:
    """Ruff checks that public modules, classes and functions have one."""
    openings = set()
    for path in MODULES:
        tree = parsed(path)
        documented = [tree, *(node for _, node in definitions(tree))]
        docstrings = [ast.get_docstring(node) for node in documented]
        openings |= {docstring.splitlines()[0] for docstring in docstrings if docstring}
    relative = {
        line
        for line in openings
        if line.split(maxsplit=1)[0].rstrip(",:") in RELATIVE_OPENINGS
        or line.startswith(("...", "\u2026"))
    }
    assert relative == RELATIVE_DOCSTRINGS
