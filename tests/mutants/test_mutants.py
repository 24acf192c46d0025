"""The mutation run itself: its operators, its choice of tests, its list of equivalents."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from .equivalents import EQUIVALENTS
from .operators import mutants
from .planting import Planting
from .report import Results
from .targets import TARGETS, is_test_of
from .trials import Recorded, Trial, Verdict

MODULES = [module for target in TARGETS for module in target.modules]


def becomes(source: str, module: str = "callme/worker/module.py") -> list[str]:
    """Return the changed lines of the mutants of a source text."""
    return [one.becomes for one in mutants(module, dedent(source).encode())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a is None", ["x = a is not None"]),
        ("x = a and b", ["x = a or b", "x = b", "x = a"]),
        (
            "x = a or b and c",
            [
                *("x = a and (b and c)", "x = (b and c)", "x = a"),
                *("x = a or b or c", "x = a or c", "x = a or b"),
            ],
        ),
        ("x = not a", ["x = a"]),
        ("x = a - b - c", ["x = (a - b) + c", "x = a + b - c"]),
        ("x = 3", ["x = 4", "x = 2"]),
        ("x = True", ["x = False"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if True]"]),
        ("x = a if b else c", ["x = a if not b else c"]),
        ("return x", ["return None"]),
        ("return", ["pass"]),
        ("x()", ["pass"]),
        ("self.x = y", ["pass"]),
        ("self.x += y", ["pass", "self.x -= y"]),
        ("raise x", ["pass"]),
    ],
)
def test_statement_has_these_mutants(line: str, expected: list[str]) -> None:
    found = becomes(f"def f(self, a, b, c, y):\n    {line}\n")
    assert Counter(found) == Counter(expected)


def test_condition_is_negated_once() -> None:
    assert becomes("def f(a):\n    if a:\n        yield\n") == ["if not a:"]
    assert becomes("def f(a):\n    if a < b:\n        yield\n") == ["if a <= b:"]


@pytest.mark.parametrize(
    "source",
    [
        '"""A text."""',
        "LIMIT = 16 * 1024",
        "def f(x: int | None) -> bool | None:\n    assert x\n",
        "def f():\n    log.error('no')\n",
        "class A:\n    def __init__(self, x):\n        self.x = x\n",
        "@define(eq=False)\nclass A:\n    x: int = field(init=False)\n",
    ],
)
def test_source_without_decisions_has_no_mutants(source: str) -> None:
    assert becomes(source) == []


def test_statement_of_the_database_has_mutants_in_the_store_only() -> None:
    source = '''
        FIND = """
            SELECT 1 FROM task
            WHERE due_at <= ? AND state = 'running'
        """
    '''
    assert set(becomes(source, "callme/store/queue.py")) == {
        "WHERE due_at < ? AND state = 'running'",
        "WHERE due_at <= ? OR state = 'running'",
        "WHERE due_at <= ?",
    }
    assert becomes(source) == []


def test_equal_mutants_of_a_function_are_numbered() -> None:
    found = mutants("callme/a.py", b"def f():\n    x()\n    x()\n")
    assert [(one.function, one.was, one.nth) for one in found] == [("f", "x()", 1), ("f", "x()", 2)]
    assert found[1].planted(b"def f():\n    x()\n    x()\n") == b"def f():\n    x()\n    pass\n"


@pytest.mark.parametrize("module", MODULES)
def test_mutants_of_a_module_differ_and_can_be_parsed(module: str) -> None:
    source = Path(module).read_bytes()
    found = mutants(module, source)
    assert len({one.identity for one in found}) == len(found) > 0
    for one in found[:: max(1, len(found) // 8)]:
        assert ast.dump(ast.parse(one.planted(source))) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("module", sorted({one.module for one in EQUIVALENTS}))
def test_listed_equivalents_are_mutants_of_the_code(module: str) -> None:
    """An entry whose code has changed must be judged anew, and changed or deleted."""
    existing = {one.identity for one in mutants(module, Path(module).read_bytes())}
    listed = [one for one in EQUIVALENTS if one.module == module]
    assert [one for one in listed if one.identity not in existing] == []
    assert len({one.identity for one in listed}) == len(listed)
    assert all(one.reason.endswith(".") for one in listed)


def test_targets_exist() -> None:
    paths = [path for target in TARGETS for path in (*target.modules, *target.tests)]
    assert [path for path in paths if not Path(path).exists()] == []
    assert len(set(MODULES)) == len(MODULES)


def test_target_has_the_tests_of_its_database() -> None:
    on_sqlite, on_postgresql = (
        next(target for target in TARGETS if target.on_postgresql is wanted)
        for wanted in (False, True)
    )
    for name in ("a.py::test_put[sqlite]", "a.py::test_put"):
        assert is_test_of(on_sqlite, name)
        assert not is_test_of(on_postgresql, name)
    assert is_test_of(on_postgresql, "a.py::test_put[postgresql]")
    assert not is_test_of(on_sqlite, "a.py::test_mutation_of_callme_is_detected[name]")


SOURCE = b"LIMIT = a < b\nOTHER = a < b\n\ndef f(x):\n    y = x < LIMIT\n    return x < y\n"


@pytest.mark.parametrize(
    ("line", "tests"),
    [
        (1, {"t1"}),  # where LIMIT is used
        (2, {"t1", "t2"}),  # OTHER is used in no function
        (5, {"t1"}),
        (6, {"t2"}),
    ],
)
def test_tests_of_a_mutant_run_its_line(line: int, tests: set[str]) -> None:
    recorded = Recorded(
        seconds={"t1": 0.1, "t2": 0.2}, lines={"callme/a.py": {"5": ["t1"], "6": ["t2"]}}
    )
    found = {one.lines[0]: one for one in mutants("callme/a.py", SOURCE)}
    assert set(recorded.tests_of(found[line], SOURCE)) == tests


def test_line_that_no_test_runs_has_no_tests() -> None:
    recorded = Recorded(seconds={"t1": 0.1}, lines={"callme/a.py": {"5": ["t1"]}})
    found = {one.lines[0]: one for one in mutants("callme/a.py", SOURCE)}
    assert recorded.tests_of(found[6], SOURCE) == {}


def test_tests_of_a_coroutine_are_those_of_all_its_lines() -> None:
    source = b"async def f(x):\n    await g()\n    return x\n"
    recorded = Recorded(seconds={"t1": 0.1}, lines={"callme/a.py": {"2": ["t1"]}})
    (_, last) = mutants("callme/a.py", source)
    assert set(recorded.tests_of(last, source)) == {"t1"}


def test_planted_module_is_imported_instead_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "callme/worker/slots.py"
    name = "callme.worker.slots"
    monkeypatch.setattr(sys, "meta_path", [Planting(module, b"PLANTED = 1\n"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, name, raising=False)
    planted = __import__(name, fromlist=["PLANTED"])
    monkeypatch.delitem(sys.modules, name)
    assert planted.PLANTED == 1


def test_results_count_tried_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    found = mutants("callme/a.py", SOURCE)
    trials = [[Trial(mutant=one, tests={}) for one in found]]
    results = Results(trials, {found[0].identity})
    results.note(found[1], Verdict.KILLED)
    results.note(found[2], Verdict.TIMED_OUT)
    results.note(found[3], Verdict.SURVIVED)
    assert "callme/a.py:6 f: `return x < y` → `return x <= y`: survived" in capsys.readouterr().out
    assert results.percent == pytest.approx(200 / 3)
    assert "| callme/a.py | 4 | 1 | 3 | 2 | 1 |" in results.page()
    assert "killed: 66.7 % of 3" in results.table()
