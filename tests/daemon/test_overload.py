"""Daemon processes under overload: crowds of clients, no descriptors left, a full disk."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from callme.server.connection_limits import MIN_READING_SECONDS
from tests.helpers.certificates import write_certificate
from tests.helpers.credentials import write_token_file
from tests.helpers.processes import NEEDS_CURL, Daemon, Sink, listens, slowdown, wait_for

pytestmark = NEEDS_CURL


# Crowds


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open both ends of thousands of connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= before[1] < 4096:
        pytest.skip(f"no more than {before[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_thousands_of_idle_and_slow_clients_do_not_block_requests(
    daemon: Daemon, sink: Sink, many_files: None
) -> None:
    """Runs in real time: takes up to a minute and a half."""
    daemon.start()
    if time.time() % 60 > 25:
        time.sleep(61 - time.time() % 60)
    minute = int(time.time() // 60 + 1) * 60
    keys = [daemon.put(f"n{n}", sink.url("/status/200"), minute) for n in range(20)]
    # All of them are connected when the minute begins: slow requests have 30 s.
    time.sleep(max(0.0, minute - time.time() - 20))
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(daemon)) for _ in range(1000)]
        for client in crowd[::2]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(1000):
            client = stack.enter_context(connected(daemon))
            client.sendall(b"PUT /task/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert time.time() < minute
        # Some may not have been accepted yet.
        wait_for(lambda: open_files(daemon) >= 1000)
        # Some evicted connections may not have been closed yet.
        assert open_files(daemon) < 2000
        wait_for(lambda: 1000 <= open_files(daemon) < 1200)
        time.sleep(max(0.0, minute - time.time()))
        slower = slowdown()
        assert daemon.curl("GET", "/healthz")[0] == 200
        for key in keys:
            task = daemon.until(key, "succeeded", 5 * slower)
            assert 0 <= task["attempts"][0]["lateness_ms"] < 1000 * slower
        assert open_files(daemon) >= 1000
    assert "connection limit reached: 1000 clients are connected" in daemon.log()
    assert "Traceback" not in daemon.log()


def test_burst_of_clients_evicts_idle_ones(daemon: Daemon, many_files: None) -> None:
    """The reactor accepts all clients that arrived while callme was busy in one turn."""
    daemon.start()
    assert daemon.process is not None
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(daemon))
        wait_for(lambda: open_files(daemon) >= 1000)
        daemon.process.send_signal(signal.SIGSTOP)
        rush = [stack.enter_context(connected(daemon)) for _ in range(500)]
        for client in rush:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        daemon.process.send_signal(signal.SIGCONT)
        for client in rush:
            assert client.recv(15) == b"HTTP/1.1 200 OK"


@contextmanager
def connected(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", daemon.port), 60) as client:
        yield client


def open_files(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def test_low_descriptor_limit_is_shared_between_calls_and_clients(
    tmp_path: Path, sink: Sink
) -> None:
    daemon = LimitedDaemon(tmp_path, resource.RLIMIT_NOFILE, 200, "--concurrency=30")
    daemon.start()
    try:
        assert "200 files may be open, which permits 50 clients, not the 1000" in daemon.log()
        with ExitStack() as stack:
            for _ in range(150):
                # One beyond the limit may be reset before its connect() returns.
                with suppress(ConnectionResetError):
                    stack.enter_context(connected(daemon))
            # Clients that have just connected may be about to send a request.
            time.sleep(MIN_READING_SECONDS)
            keys = [daemon.put(f"n{n}", sink.url("/sleep/1"), retry=0) for n in range(60)]
            assert {daemon.until(key, "succeeded")["state"] for key in keys} == {"succeeded"}
        assert "Traceback" not in daemon.log()
    finally:
        daemon.kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit cannot be set from outside")
def test_accepting_resumes_when_descriptors_are_free(daemon: Daemon, sink: Sink) -> None:
    daemon.start()
    key = daemon.put("warm", sink.url("/status/200"))
    daemon.until(key, "succeeded")
    assert daemon.process is not None
    pid = daemon.process.pid
    # The pool keeps the connection of that call for a second.
    time.sleep(1.5)
    with limited(pid, resource.RLIMIT_NOFILE, first_free(pid)):
        for _ in range(100):
            with connected(daemon) as client:
                client.settimeout(60)
                # The server closes it at once.
                assert client.recv(1) == b""
    assert daemon.curl("GET", "/healthz")[1]["status"] == "ok"
    key = daemon.put("then", sink.url("/status/200"))
    daemon.until(key, "succeeded")


def first_free(pid: int) -> int:
    """Return the lowest free descriptor number of a process."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(used) + 1) if number not in used)


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """Set a limit of another process for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    yield
    resource.prlimit(pid, what, before)


class LimitedDaemon(Daemon):
    """A daemon that starts under a resource limit that it cannot raise."""

    def __init__(self, directory: Path, what: int, limit: int, *options: str) -> None:
        super().__init__(directory, *options)
        self.limit = f"import resource as r, os, sys; r.setrlimit({what}, ({limit}, {limit}))"

    def command(self, *more: str) -> list[str]:
        run = f"{self.limit}; os.execv(sys.argv[1], sys.argv[1:])"
        return [sys.executable, "-c", run, *super().command(*more)]


# A full disk


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit cannot be set from outside")
def test_file_size_limit_loses_nothing(daemon: Daemon, sink: Sink) -> None:
    """The limit acts like a quota and needs no privileges."""
    daemon.start()
    assert daemon.process is not None
    pid = daemon.process.pid

    @contextmanager
    def full() -> Iterator[None]:
        wal = daemon.directory / "callme.sqlite-wal"
        size = max(wal.stat().st_size, 64 * 1024)
        with limited(pid, resource.RLIMIT_FSIZE, size):
            yield

    nothing_is_lost(daemon, sink, full)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a file system may not be mounted here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_full_disk_loses_nothing(tmp_path: Path, small_disk: Path, sink: Sink) -> None:
    daemon = Daemon(tmp_path, f"--database={small_disk}/callme.sqlite")
    daemon.start()

    @contextmanager
    def full() -> Iterator[None]:
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        yield
        ballast.unlink()

    try:
        nothing_is_lost(daemon, sink, full)
    finally:
        daemon.kill()


def nothing_is_lost(
    daemon: Daemon, sink: Sink, full: Callable[[], AbstractContextManager[None]]
) -> None:
    """Fill the disk during a call; check the responses, the records and the recovery."""
    before = daemon.put("before", sink.url("/status/200"), "+1h")
    in_flight = daemon.put("under-way", sink.url("/sleep/3"))
    wait_for(lambda: sink.count(in_flight) == 1)
    acknowledged = [before, in_flight]
    with full():
        # The pages already written have some free space.
        status = 0
        for number in range(200):
            body = {"trigger_at": "+0m", "callback": sink.url("/status/200"), "payload": "x" * 9000}
            status, response = daemon.curl("PUT", f"/task/n{number}", body)
            if status == 503:
                break
            assert status == 201
            acknowledged.append(response["task"])
        assert status == 503
        assert response["status"] == 503
        called = len(sink.calls)
        # The call ends now and cannot be recorded; its true result must be stored later.
        time.sleep(4)
        task = daemon.task(in_flight)
        assert (task["state"], task["attempts"]) == ("running", [])
        assert daemon.curl("PUT", "/task/again", body)[0] == 503
        assert daemon.curl("GET", "/status/again")[0] == 404
        # An attempt that cannot be counted on disk must not begin.
        assert len(sink.calls) == called
    for key in acknowledged[1:]:
        assert daemon.until(key, "succeeded", 30)["attempts_used"] == 1
        assert sink.count(key) == 1
    assert daemon.task(before)["state"] == "scheduled"
    after = daemon.put("after", sink.url("/status/200"))
    daemon.until(after, "succeeded")
    assert daemon.curl("GET", "/healthz")[1]["status"] == "ok"
    daemon.kill()
    daemon.start()
    assert [daemon.task(key)["attempts_used"] for key in acknowledged[1:]] == [1] * (
        len(acknowledged) - 1
    )


# TLS and tokens


def test_tls_and_tokens_protect_a_running_daemon(tmp_path: Path, sink: Sink) -> None:
    write_certificate(tmp_path)
    path = write_token_file(tmp_path)
    path.write_text("token-of-the-writer\nread:token-of-the-reader\n")
    daemon = Daemon(tmp_path, "--token-file=tokens")
    files = "privateKey=key.pem:certKey=cert.pem"
    daemon.options = (f"--port=ssl:{daemon.port}:{files}", "--token-file=tokens")
    daemon.start()
    try:
        assert curl(daemon, "/status/") == (401, "Unauthorized")
        assert curl(daemon, "/status/", "guessed-token-of-nobody") == (401, "Unauthorized")
        assert curl(daemon, "/status/", "token-of-the-reader") == (200, None)
        body = json.dumps({"trigger_at": "+0m", "callback": sink.url("/status/200")})
        put = ["-X", "PUT", "--data", body]
        assert curl(daemon, "/task/x", "token-of-the-reader", *put) == (403, "Forbidden")
        assert curl(daemon, "/task/x", "token-of-the-writer", *put) == (201, None)
        assert curl(daemon, "/healthz") == (200, None)
        large = tmp_path / "large"
        large.write_bytes(b"x" * 15_000_000)
        assert curl(daemon, "/batch", "", "--data-binary", f"@{large}") == (401, "Unauthorized")
        path.write_text("new-token-of-the-writer\n")
        reload(daemon)
        wait_for(lambda: "tokens reloaded: " in daemon.log())
        assert curl(daemon, "/status/", "new-token-of-the-writer") == (200, None)
        assert curl(daemon, "/status/", "token-of-the-writer") == (401, "Unauthorized")
        path.chmod(0o644)
        reload(daemon)
        wait_for(lambda: "tokens not reloaded" in daemon.log())
        assert curl(daemon, "/status/", "new-token-of-the-writer") == (200, None)
        wait_for(lambda: "token_wrong from 127.0.0.1" in daemon.log())
        for secret in ("-writer", "-reader", "guessed"):
            assert secret not in daemon.log()
        assert daemon.terminate() == 0
        assert not listens(daemon.port)
    finally:
        daemon.kill()


def reload(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def curl(daemon: Daemon, path: str, token: str = "", *more: str) -> tuple[int, str | None]:
    """Make a request over TLS with the certificate trusted; return status and detail."""
    command = ["curl", "-sS", "-m", "20", "--cacert", "cert.pem", "-w", "\n%{http_code}", *more]
    if token:
        command += ["-H", f"Authorization: Bearer {token}"]
    command.append(f"https://localhost:{daemon.port}{path}")
    done = subprocess.run(command, capture_output=True, check=False, cwd=daemon.directory)
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(text).get("title")
