"""callme calls the servers that people run, over real sockets; ``tests/interop`` has many more."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from attrs import evolve

from ..helpers.processes import Daemon
from ..interop.packages import Packages
from ..interop.servers import SERVERS, Server, running
from ..interop.workloads import Driver, workloads_for

pytestmark = pytest.mark.daemon

TASKS = 40
AT_ONCE = 4
"""Calls in flight: few, because http.server lets few connections queue."""
TESTED = (
    *("gunicorn sync", "gunicorn gthread", "uvicorn", "waitress", "aiohttp", "tornado"),
    "http.server",
)


@pytest.mark.parametrize(
    "server", [server for server in SERVERS if server.name in TESTED], ids=lambda it: it.name
)
def test_server_that_is_well_gets_each_task_once(server: Server, tmp_path: Path) -> None:
    source, _, module = server.package.partition(":")
    if source == "pypi" and find_spec(module) is None and not os.environ.get("CI"):
        pytest.skip(f"{module} is not installed")
    (home := tmp_path / "callme").mkdir()
    (work := tmp_path / "server").mkdir()
    daemon = Daemon(home, f"--per-host={AT_ONCE}")
    try:
        daemon.start()
        with running(server, Packages(tmp_path, sys.executable), work) as started:
            # The full run pauses for the server's own time.
            quick = [
                it for it in workloads_for(evolve(server, reload=None), TASKS) if it.waves == 1
            ]
            results = [Driver(daemon, started).run(workload) for workload in quick]
        served = started.served()
    finally:
        daemon.kill()
    for result in results:
        result.compare(served)
        assert (result.failed, result.late, result.doubles) == (set(), 0, 0), result.details
        assert result.wrong == []
