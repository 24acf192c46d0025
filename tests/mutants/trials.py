"""The trials: each runs tests on one mutant in a separate process, a few at a time."""

from __future__ import annotations

import ast
import atexit
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path

from attrs import frozen

from .operators import Mutant
from .planting import Planting, Recording, Selection, enter_process, run_tests
from .targets import Target, is_test_of

RECORDING_SECONDS = 1200.0
"""Time limit for the recording of a target's tests."""
LEAST_SECONDS, SLOWER = 40.0, 8.0
"""The time limit of a trial: a number of seconds, plus a multiple of its tests' duration."""
_THIRD_PARTIES = (
    "attrs",
    "cryptography.x509",
    "httptools",
    "hypothesis.stateful",
    "hypothesis.strategies",
    "icalendar",
    "jsonschema_rs",
    "openapi_spec_validator",
    "prometheus_client",
    "psycopg",
    "greenlet",
    "service_identity",
    "twisted.internet.task",
    "twisted.internet.testing",
    "twisted.logger",
    "twisted.web.http",
    "werkzeug.routing",
    "yaml",
)
"""Modules that every trial needs, imported once. None of them may install Twisted's reactor."""


class Verdict(Enum):
    """The result of a trial."""

    KILLED = "killed"
    TIMED_OUT = "killed by the time limit"
    SURVIVED = "survived"
    NOT_RUN = "survived: no test runs the line"


@frozen(kw_only=True)
class Recorded:
    """Behaviour of a target's tests without a fault.

    :ivar seconds: how long each takes.
    :ivar lines: the tests of each line of each module.
    """

    seconds: Mapping[str, float]
    lines: Mapping[str, Mapping[str, list[str]]]

    def tests_of(self, mutant: Mutant, source: bytes) -> dict[str, float]:
        """Return the tests that run the changed statement, with the seconds that each takes.

        Before Python 3.12, lines that a coroutine runs after it has caught an exception are not
        recorded: the tests of a coroutine are those of all its lines. A statement outside functions
        is run by imports alone. Its tests are those of the lines that use what it defines, or else
        those of the whole module.
        """
        by_line, tree = self.lines[mutant.module], ast.parse(source)
        function = _function_of(tree, mutant)
        lines: Iterable[int] = range(mutant.lines[0], mutant.lines[1] + 1)
        if isinstance(function, ast.AsyncFunctionDef):
            lines = range(function.lineno, (function.end_lineno or 0) + 1)
        tests = _of_lines(by_line, lines) or _of_lines(by_line, _lines_that_use(tree, mutant))
        if not tests and function is None:
            tests = _of_lines(by_line, map(int, by_line))
        return {test: self.seconds[test] for test in tests if test in self.seconds}


def _of_lines(by_line: Mapping[str, list[str]], lines: Iterable[int]) -> set[str]:
    return {test for line in lines for test in by_line.get(str(line), ())}


def _lines_that_use(tree: ast.Module, mutant: Mutant) -> Iterator[int]:
    """Yield the lines with a name that the changed statement of the module's level defines."""
    names = {
        node.id
        for statement in tree.body
        if statement.lineno == mutant.lines[0] and isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
            yield node.lineno


def _function_of(tree: ast.Module, mutant: Mutant) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the innermost function whose body has the changed statement."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body[0].lineno <= mutant.lines[0] <= (node.end_lineno or 0)
    ]
    return max(found, key=lambda node: node.lineno, default=None)


def prepare() -> None:
    """Import what every trial needs, once for all, and let trials share their bytecode."""
    sys.dont_write_bytecode = False
    sys.pycache_prefix = tempfile.mkdtemp(prefix="callme-mutants-bytecode-")
    atexit.register(shutil.rmtree, sys.pycache_prefix)
    for name in _THIRD_PARTIES:
        with suppress(ImportError):
            importlib.import_module(name)
    loaded = [name for name in sys.modules if name.partition(".")[0] == "callme"]
    assert "twisted.internet.reactor" not in sys.modules, "processes must not share a reactor"
    assert not loaded, f"a mutant must be imported afresh: {loaded}"
    gc.freeze()


def record(target: Target) -> Recorded:
    """Run the tests of a target without a fault; they must pass."""

    def run(directory: Path) -> int:
        recording = Recording(target.modules, lambda test: is_test_of(target, test))
        recording.start()
        code = run_tests(target.tests, recording, directory)
        recording.save(directory / "recorded.json")
        return code

    directory = Path(tempfile.mkdtemp(prefix="callme-mutants-"))
    try:
        pid = _start(run, directory, RECORDING_SECONDS)
        status = os.waitpid(pid, 0)[1]
        output = (directory / "output.txt").read_text(errors="replace")
        assert status == 0, f"the tests fail without a fault:\n{output[-4000:]}"
        return Recorded(**json.loads((directory / "recorded.json").read_text()))
    finally:
        _clear(pid, directory)


@frozen(kw_only=True)
class Trial:
    """A mutant and the tests that must notice it."""

    mutant: Mutant
    tests: Mapping[str, float]

    def start(self, directory: Path) -> int:
        """Start the process; return its number."""
        source = Path(self.mutant.module).read_bytes()
        planted = self.mutant.planted(source)
        compile(planted, self.mutant.module, "exec", dont_inherit=True)

        def run(directory: Path) -> int:
            sys.meta_path.insert(0, Planting(self.mutant.module, planted))
            files = sorted({test.partition("::")[0] for test in self.tests})
            return run_tests(files, Selection(self.tests), directory)

        seconds = LEAST_SECONDS + SLOWER * sum(self.tests.values())
        return _start(run, directory, seconds)


def run_trials(
    trials: Iterable[Trial], workers: int, until: float
) -> Iterator[tuple[Mutant, Verdict]]:
    """Run trials, a few side by side; start none after a time of the monotonic clock."""
    running: dict[int, tuple[Mutant, Path]] = {}
    waiting = iter(trials)
    is_over = False
    while True:
        while not is_over and len(running) < workers:
            trial = next(waiting, None) if time.monotonic() < until else None
            if trial is None:
                is_over = True
            elif not trial.tests:
                yield trial.mutant, Verdict.NOT_RUN
            else:
                directory = Path(tempfile.mkdtemp(prefix="callme-mutants-"))
                running[trial.start(directory)] = trial.mutant, directory
        if not running:
            return
        pid, status = os.wait()
        mutant, directory = running.pop(pid)
        _clear(pid, directory)
        if os.WIFSIGNALED(status):
            yield mutant, Verdict.TIMED_OUT
        else:
            yield mutant, Verdict.KILLED if os.WEXITSTATUS(status) else Verdict.SURVIVED


def _start(run: Callable[[Path], int], directory: Path, seconds: float) -> int:
    # The server of PostgreSQL runs as another user.
    directory.chmod(0o755)
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        enter_process(directory, seconds)
        code = run(directory)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _clear(pid: int, directory: Path) -> None:
    """End the processes that a process has left behind, and delete its files."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for server in directory.glob("callme-pg-*/data/postmaster.pid"):
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(server.read_text().split()[0]), signal.SIGQUIT)
    shutil.rmtree(directory, ignore_errors=True)
