"""Daemon processes, requests made with curl, and an endpoint that counts its calls."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

TWISTD = str(Path(sys.executable).with_name("twistd"))
NEEDS_CURL = [
    pytest.mark.daemon,
    pytest.mark.skipif(
        shutil.which("curl") is None and not os.environ.get("CI"), reason="curl is not installed"
    ),
]
"""The marks of tests that run a daemon process and make requests with curl."""


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a port of this machine that no other test chooses until this process ends.

    A socket that never listens occupies it: the system neither gives it to another process that
    asks for a free port nor uses it for a connection. A server can listen on it as long as it sets
    ``SO_REUSEADDR``, as Twisted does. Without the socket, two daemons that started at the same
    time could get the same port: the second one ended, and its test used the first one.
    """
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    # Only now: with the option, the system would consider ports that others have reserved so.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(reserved)
    port: int = reserved.getsockname()[1]
    return port


@atexit.register
def _release_ports() -> None:
    for reserved in _reserved:
        reserved.close()


def listens(port: int) -> bool:
    """Return whether a port of this machine accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serves(port: int) -> bool:
    """Return whether a server reacts to a request, if only by closing: its reactor runs.

    A port listens earlier, when the handler of SIGTERM is not yet installed.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            probe.recv(1)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True


def slowdown() -> float:
    """Return how many times as long work takes now as it would on an idle machine, at least 1.

    A bound in seconds, times this factor, holds on a busy machine too.
    """
    began_at, began = time.perf_counter(), time.thread_time()
    while (used := time.thread_time() - began) < 0.1:
        pass
    return max(1.0, (time.perf_counter() - began_at) / used)


def wait_for(what: Callable[[], Any], seconds: float = 60, every: float = 0.02) -> Any:
    """Call ``what`` until its result is true; return that result."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(every)


class Sink:
    """An endpoint that counts its calls and responds as its URL demands.

    ``/status/204`` responds with 204, ``/sleep/2`` with 200 after two seconds, and
    ``/once/500`` with 500 to the first call of a task and with 200 to later ones.

    :ivar calls: the time, the task's key and the headers of each call.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, dict[str, str]]] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                status = sink.called(self.path, dict(self.headers.items()))
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")
                except OSError:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *args: Any) -> None:
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024

            def handle_error(self, *args: Any) -> None:
                """Ignore daemons that were killed during a call."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def called(self, path: str, headers: dict[str, str]) -> int:
        """Count a call; return the status of its response."""
        key = unquote(headers.get("Idempotency-Key", "").strip('"')).rpartition(".")[0]
        with self._lock:
            self.calls.append((time.time(), key, headers))
            self._seen[key] += 1
            first = self._seen[key] == 1
        _, kind, value = path.split("/", 2)
        if kind == "sleep":
            time.sleep(float(value))
            return 200
        return 200 if kind == "once" and not first else int(value)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def count(self, key: str) -> int:
        with self._lock:
            return sum(1 for _, called, _ in self.calls if called == key)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Daemon:
    """``twistd -n callme`` in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *more: str) -> list[str]:
        return [TWISTD, "-n", "--pidfile=", "callme", f"--port={self.port}", *self.options, *more]

    def start(self) -> Daemon:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, env=environment()
            )
        wait_for(self.answers)
        return self

    def answers(self) -> bool:
        assert self.process is not None
        reacts = serves(self.port)
        # Only afterwards: a server that reacts may be another one, or this one as it ends.
        assert self.process.poll() is None, self.log()
        return reacts

    def kill(self) -> None:
        """Kill the process at once, as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        """Send SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def curl(self, method: str, path: str, body: object = None, *more: str) -> tuple[int, Any]:
        """Make a request with curl; return the status and the JSON of the answer."""
        command = ["curl", "-sS", "-m", "60", "-X", method, "-w", "\n%{http_code}", *more]
        if body is not None:
            command += ["--data-binary", body if isinstance(body, str) else json.dumps(body)]
        command.append(f"127.0.0.1:{self.port}{path}")
        done = subprocess.run(command, capture_output=True, check=False, cwd=self.directory)
        assert done.returncode == 0, done.stderr
        text, _, status = done.stdout.rpartition(b"\n")
        return int(status), json.loads(text) if text else None

    def put(self, name: str, callback: str, trigger_at: object = "+0m", **more: Any) -> str:
        """Register a task; return its key once callme has acknowledged it."""
        body = {"trigger_at": trigger_at, "callback": callback, **more}
        status, task = self.curl("PUT", f"/task/{name}", body)
        assert status == 201, task
        key: str = task["task"]
        return key

    def task(self, key: str) -> Any:
        status, task = self.curl("GET", f"/status/{key}")
        assert status == 200, task
        return task

    def until(self, key: str, state: str, seconds: float = 60) -> Any:
        """Return a task once it is in a state."""

        def reached() -> Any:
            task = self.task(key)
            return task if task["state"] == state else None

        return wait_for(reached, seconds, 0.05)


def environment() -> dict[str, str]:
    """Return the environment without callme's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CALLME_")}
