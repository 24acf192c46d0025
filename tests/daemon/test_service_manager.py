"""The daemon under a service manager: messages, and a socket that outlives it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.processes import TWISTD, environment, wait_for

pytestmark = pytest.mark.daemon

# systemd passes sockets from descriptor 3 on, and names the process that they are meant for.
LAUNCHER = (
    "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
    "os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); os.execv(sys.argv[2], sys.argv[2:])"
)


def launch(directory: Path, inherited: socket.socket, **variables: str) -> subprocess.Popen[bytes]:
    """Start callme as systemd does with ``callme.socket``."""
    descriptor = inherited.fileno()
    names = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "callme"}
    command = [TWISTD, "-n", "--pidfile=", "callme", "--port=systemd:domain=INET:name=callme"]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(descriptor), *command],
            cwd=directory,
            stdout=log,
            stderr=log,
            env=environment() | names | variables,
            pass_fds=[descriptor],
        )


def test_restart_with_an_inherited_socket_rejects_no_client(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        responses: list[int] = []
        failures: list[OSError] = []

        def request() -> None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/status/", timeout=60) as done:
                    responses.append(done.status)
            except OSError as error:
                failures.append(error)

        process = launch(tmp_path, listening)
        request()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        # In the gap, the kernel accepts the connection and the next process answers it.
        client = threading.Thread(target=request)
        client.start()
        process = launch(tmp_path, listening)
        client.join(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert (responses, failures) == ([200, 200], []), log
    # Loopback: no token is required.
    assert "--token-file" not in log


def test_manager_is_notified_of_start_progress_and_stop(tmp_path: Path) -> None:
    with (
        socket.socket() as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        process = launch(
            tmp_path, listening, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000"
        )
        port = listening.getsockname()[1]
        assert manager.recv(4096).decode() == f"READY=1\nSTATUS=listens on 127.0.0.1:{port}"
        assert {manager.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}
        # A process that does not run feeds no watchdog.
        process.send_signal(signal.SIGSTOP)
        manager.settimeout(1)
        # Messages from before are still in the socket.
        with suppress(TimeoutError):
            for _ in range(10):
                manager.recv(4096)
        with pytest.raises(TimeoutError):
            manager.recv(4096)
        process.send_signal(signal.SIGCONT)
        manager.settimeout(30)
        assert manager.recv(4096) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: manager.recv(4096) == b"STOPPING=1")
        assert process.wait(60) == 0
