"""The process of one mutant: it imports the changed module, and runs the tests chosen for it."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Collection, Generator, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import coverage
import pytest
from attrs import frozen
from hypothesis import Phase, settings

MEMORY_BYTES = 4 * 1024**3
"""Bound of the memory of a process: a mutant may fill a list without end."""
# Detailed assertions take time, and their texts are not used.
_OPTIONS = ("-x", "-q", "-m", "not daemon", "--assert=plain", "-p", "no:xdist", "-p", "no:anyio")


@frozen
class Planting(MetaPathFinder):
    """An importer that finds one module, with the source text of a mutant."""

    module: str
    source: bytes

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.module.removesuffix(".py").replace("/", "."):
            return None
        loader = _Loader(fullname, str(Path(self.module).absolute()))
        loader.mutant = self.source
        return spec_from_file_location(fullname, loader.path, loader=loader)


class _Loader(SourceFileLoader):
    mutant: bytes

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.mutant, self.path, "exec", dont_inherit=True)
        return code


class Selection:
    """A plugin of pytest that runs chosen tests only, those that take the least time first."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        _use_fixed_examples()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._seconds]
        items[:] = sorted(chosen, key=lambda item: self._seconds[item.nodeid])


class Recording:
    """A plugin of pytest that records which test runs which lines, and how long each takes."""

    def __init__(self, modules: Collection[str], is_chosen: Any) -> None:
        self._is_chosen = is_chosen
        self._modules = [str(Path(module).absolute()) for module in modules]
        self._coverage = coverage.Coverage(
            data_file=None,
            config_file=False,
            include=self._modules,
            concurrency=["thread", "greenlet"],
        )
        self._seconds: dict[str, float] = {}

    def start(self) -> None:
        """Begin; the modules must not be imported yet."""
        self._coverage.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        _use_fixed_examples()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._is_chosen(item.nodeid)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self._seconds[item.nodeid] = time.perf_counter() - began
        self._coverage.switch_context("")
        return result

    def save(self, file: Path) -> None:
        """Write the seconds of each test, and the tests of each line of each module."""
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(module).relative_to(Path.cwd())): {
                line: [test for test in tests if test]
                for line, tests in data.contexts_by_lineno(module).items()
            }
            for module in self._modules
        }
        file.write_text(json.dumps({"seconds": self._seconds, "lines": lines}))


def _use_fixed_examples() -> None:
    """Let Hypothesis try the same examples each time, and not search for a smaller failure."""
    settings.register_profile(
        "mutants",
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    settings.load_profile("mutants")


def enter_process(directory: Path, seconds: float) -> None:
    """Confine this process, which is a new one, to a directory and to some seconds."""
    os.setsid()
    output = os.open(directory / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    # Only this core of coverage knows contexts on every Python.
    os.environ["COVERAGE_CORE"] = "ctrace"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(max(1, round(seconds)))


def run_tests(tests: Collection[str], plugin: object, directory: Path) -> int:
    """Run the tests of some files with a plugin; return pytest's exit code."""
    base = f"--basetemp={directory / 'pytest'}"
    return int(pytest.main([*_OPTIONS, base, *tests], plugins=[plugin]))
