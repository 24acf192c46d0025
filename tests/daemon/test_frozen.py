"""Daemon processes that are stopped for a while, as a suspended machine or a debugger does."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

from tests.helpers.processes import NEEDS_CURL, Daemon, Sink, wait_for

pytestmark = NEEDS_CURL

TASKS = 64
FROZEN_SECONDS = 7


class LateSink(Sink):
    """An endpoint that responds when the test permits it."""

    def __init__(self) -> None:
        self.may_respond = threading.Event()
        self.responses = 0
        super().__init__()

    def called(self, path: str, headers: dict[str, str]) -> int:
        super().called(path, headers)
        assert self.may_respond.wait(60)
        self.responses += 1
        return 200


def test_responses_that_arrive_while_the_daemon_is_stopped_count(daemon: Daemon) -> None:
    """The reactor finds the time-outs expired before it reads the responses."""
    sink = LateSink()
    daemon.start()
    assert daemon.process is not None
    lines = [
        {
            "task_name": f"n{n}",
            "trigger_at": "+0m",
            "callback": sink.url("/status/200"),
            "timeout": 2,
            "retry": 3,
            "retry_delay": 0,
        }
        for n in range(TASKS)
    ]
    status, results = daemon.curl("POST", "/batch", json.dumps(lines))
    assert status == 200
    wait_for(lambda: len(sink.calls) == TASKS)
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        sink.may_respond.set()
        wait_for(lambda: sink.responses == TASKS)
        time.sleep(FROZEN_SECONDS)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    tasks = [daemon.until(result["task"], "succeeded") for result in results]
    assert [task["attempts_used"] for task in tasks] == [1] * TASKS
    assert len(sink.calls) == TASKS
    sink.close()


def test_request_that_arrives_while_the_daemon_is_stopped_gets_a_response(tmp_path: Path) -> None:
    """An idle connection is closed after a while, but not with a request in its socket."""
    daemon = Daemon(tmp_path, "--idle-timeout=5").start()
    assert daemon.process is not None
    try:
        with socket.create_connection(("127.0.0.1", daemon.port), 10) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            daemon.process.send_signal(signal.SIGSTOP)
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(FROZEN_SECONDS)
            daemon.process.send_signal(signal.SIGCONT)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        daemon.kill()
