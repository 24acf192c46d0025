"""Fixtures of the tests that run daemon processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.browser import Browser
from tests.helpers.postgres import Cluster
from tests.helpers.processes import Daemon, Sink, free_port


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon over each database."""
    options = []
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        options = [f"--database={cluster.create(f'daemon{free_port()}')}", "--node=one"]
    daemon = Daemon(tmp_path, *options)
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    """A browser for all tests of a module: it takes a second or more to start."""
    browser = Browser()
    yield browser
    browser.close()
