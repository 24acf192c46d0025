"""The daemon as a user runs it: processes, sockets, curl and kills are real."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from callme import __version__
from callme.config import Options
from callme.store.sqlite.file import migrations
from tests.helpers.postgres import Cluster
from tests.helpers.processes import (
    NEEDS_CURL,
    TWISTD,
    Daemon,
    Sink,
    environment,
    free_port,
    listens,
    slowdown,
    wait_for,
)

pytestmark = NEEDS_CURL


def twistd(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TWISTD, "-n", "--pidfile=", "callme", *arguments],
        cwd=directory,
        env=environment() | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# On the minute


def test_calls_are_made_on_the_minute_and_retried(either: Daemon, sink: Sink) -> None:
    """The whole daemon in real time: takes up to two minutes."""
    daemon = either.start()
    if time.time() % 60 > 50:
        # The minute must not have begun when the last PUT arrives.
        time.sleep(11)
    minute = int(time.time() // 60 + 1) * 60
    keys = [daemon.put(f"n{n}", sink.url("/status/200"), minute) for n in range(20)]
    retried = daemon.put("retried", sink.url("/once/500"), str(minute), payload='{"a": 1}')
    interrupted = daemon.put("interrupted", sink.url("/sleep/3"), "+0m", timeout=5)
    wait_for(lambda: sink.count(interrupted) == 1)
    daemon.kill()
    daemon.start()
    wait_for(lambda: daemon.task(interrupted)["attempts"])
    assert daemon.task(interrupted)["attempts"][0]["reason"] == "interrupted"
    slower = slowdown_at(minute)
    for key in keys:
        task = daemon.until(key, "succeeded", 70)
        assert 0 <= task["attempts"][0]["lateness_ms"] < 1000 * slower
    slower = slowdown_at(minute + 60)
    task = daemon.until(retried, "succeeded", 70)
    assert [(a["number"], a["status"]) for a in task["attempts"]] == [(1, 500), (2, 200)]
    assert 60_000 <= task["attempts"][1]["lateness_ms"] < 60_000 + 1000 * slower
    task = daemon.until(interrupted, "succeeded")
    assert [(a["reason"], a["status"]) for a in task["attempts"]] == [
        ("interrupted", None),
        (None, 200),
    ]
    assert all(time >= minute for time, key, _ in sink.calls if key in keys)
    assert [sink.count(key) for key in keys] == [1] * 20
    assert (sink.count(retried), sink.count(interrupted)) == (2, 2)
    headers = next(headers for _, key, headers in sink.calls if key == retried)
    assert headers["User-Agent"] == f"callme/{__version__}"
    assert headers["Content-Type"] == "application/json"


def slowdown_at(seconds: int) -> float:
    """Wait for a time; return by what factor the machine is slower then."""
    time.sleep(max(0.0, seconds - time.time()))
    return slowdown()


def test_task_is_put_called_rescheduled_and_deleted(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    key = daemon.put(
        "now", sink.url("/status/204"), expected_http_status=204, callback_method="PUT"
    )
    task = daemon.until(key, "succeeded")
    assert task["attempts"][0]["status"] == 204
    assert f'"{key}" attempt 1 succeeded: 204' in daemon.log()
    status, conflict = daemon.curl("PUT", f"/task/{key}", {"callback": sink.url("/status/200")})
    assert (status, conflict["task"]["state"]) == (409, "succeeded")
    failed = daemon.put("bad", sink.url("/status/500"), retry=0)
    assert daemon.until(failed, "failed")["reason"] == "unexpected_status"
    status, response = daemon.curl("POST", f"/reschedule/{failed}", {"trigger_at": "+1d"})
    assert (status, response["rescheduled"][0]["from"]) == (200, failed)
    later = response["rescheduled"][0]["to"]
    status, page = daemon.curl("GET", "/status/?future_only&pretty")
    assert [later] == [task["task"] for task in page["tasks"]]
    assert daemon.curl("DELETE", f"/task/{later}") == (204, None)
    assert daemon.curl("GET", f"/status/{later}")[0] == 404
    status, health = daemon.curl("GET", "/healthz")
    assert (status, health["status"], health["backlog"]) == (200, "ok", 0)


def test_long_poll_gets_response_and_notification_is_sent(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    key = daemon.put("bad", sink.url("/once/500"), retry=0, on_failure=sink.url("/status/204"))
    task = {"state": "scheduled"}
    while task["state"] in ("scheduled", "running"):
        status, task = daemon.curl("GET", f"/status/{key}?wait=50")
        assert status == 200
    assert task["state"] == "failed"
    _, page = daemon.curl("GET", f"/status/{key.replace('@', '.')}.on_failure")
    (notice,) = [task["task"] for task in page["tasks"]]
    assert daemon.until(notice, "succeeded")["payload"] == json.dumps(
        task, ensure_ascii=False, separators=(",", ":")
    )
    assert sink.count(notice) == 1


# Kills and stops


def test_acknowledged_tasks_survive_sigkill(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    keys = [daemon.put(f"n{n}", sink.url("/status/200"), "+1h") for n in range(5)]
    daemon.kill()
    daemon.start()
    assert [daemon.task(key)["state"] for key in keys] == ["scheduled"] * 5


def test_task_without_retry_is_not_called_again_after_sigkill(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    key = daemon.put("once", sink.url("/sleep/1"), retry=0)
    wait_for(lambda: sink.count(key) == 1)
    daemon.kill()
    daemon.start()
    task = daemon.until(key, "failed")
    assert task["reason"] == "interrupted"
    assert "unknown" in task["detail"]
    daemon.kill()
    daemon.start()
    time.sleep(1)
    assert sink.count(key) == 1


def test_sigterm_waits_for_calls_in_flight(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    key = daemon.put("slow", sink.url("/sleep/2"))
    wait_for(lambda: sink.count(key) == 1)
    assert daemon.terminate() == 0
    daemon.start()
    assert daemon.task(key)["state"] == "succeeded"
    assert sink.count(key) == 1


def test_sigterm_cancels_calls_that_outlast_the_grace_period(either: Daemon, sink: Sink) -> None:
    daemon = either.start()
    key = daemon.put("slow", sink.url("/sleep/60"), timeout=100)
    wait_for(lambda: sink.count(key) == 1)
    began = time.monotonic()
    assert daemon.terminate() == 0
    assert 9 < time.monotonic() - began < 10 + 5 * slowdown()
    daemon.start()
    # The next attempt follows within 2 s of the start, not at the next minute.
    wait_for(lambda: sink.count(key) == 2, 5 * slowdown())
    task = daemon.task(key)
    assert (task["state"], task["attempts_left"]) == ("running", 0)
    assert task["attempts"][0]["reason"] == "interrupted"


def test_sigterm_does_not_wait_for_idle_clients(daemon: Daemon) -> None:
    daemon.options = ("--grace=60",)
    daemon.start()
    clients = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(20)]
    clients[0].sendall(b"GET /status/ HT")
    began = time.monotonic()
    assert daemon.terminate() == 0
    assert time.monotonic() - began < 5 * slowdown()
    for client in clients:
        client.close()


# Start


def test_missing_postgresql_driver_names_the_package_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('it is not here')")
    done = twistd(tmp_path, "--database=postgresql://me@host/db", PYTHONPATH=str(tmp_path))
    refused(done, r"needs psycopg \(it is not here\): pip install 'callme-daemon\[postgresql\]'")


def test_unreachable_server_is_reported_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://me:hunter2@127.0.0.1:{free_port()}/db"
    done = twistd(tmp_path, f"--port={free_port()}", f"--database={url}")
    refused(done, "Connection refused")
    assert "hunter2" not in done.stdout + done.stderr


def test_node_name_of_a_running_daemon_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    options = [f"--database={cluster.create(f'daemon{free_port()}')}", "--node=one"]
    daemon = Daemon(tmp_path, *options).start()
    try:
        wait_for(lambda: daemon.curl("GET", "/healthz")[1]["last_tick"])
        done = twistd(tmp_path, f"--port={free_port()}", *options)
        refused(done, "another callme daemon named one uses postgresql://callme@127.0.0.1")
    finally:
        daemon.kill()


def test_second_daemon_on_the_same_file_is_refused(daemon: Daemon) -> None:
    daemon.start()
    done = twistd(daemon.directory, f"--port={free_port()}")
    refused(done, "callme.sqlite is in use by another callme daemon")
    assert daemon.answers()


def test_port_in_use_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    done = twistd(tmp_path, f"--port={daemon.port}", "--database=other.sqlite")
    refused(done, f"cannot listen on tcp:{daemon.port}:interface=127.0.0.1: Address already in use")


def test_damaged_database_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "callme.sqlite").write_bytes(b"nonsense" * 1000)
    refused(twistd(tmp_path, f"--port={free_port()}"), "file is not a database")


def test_database_file_of_a_newer_schema_is_refused(daemon: Daemon) -> None:
    daemon.start().terminate()
    connection = sqlite3.connect(daemon.directory / "callme.sqlite")
    connection.execute(f"PRAGMA user_version = {migrations().newest + 1}")
    connection.close()
    refused(twistd(daemon.directory, f"--port={free_port()}"), "from a newer callme")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database=nowhere/callme.sqlite"], "the directory .* does not exist"),
        (["--concurrency=0"], "--concurrency is '0': expected an integer from 1"),
        (["--per-host=many"], "--per-host is 'many'"),
        (["--retention=-1"], "--retention is '-1'"),
        (["--port=99999"], "--port is '99999': expected a port number of at most 65535"),
        (["--port=banana"], "--port is 'banana': expected a port number or a Twisted endpoint"),
        (["--database="], "--database is ''"),
        (["--database=mysql://host/db"], "--database is mysql://"),
        (["--colour=red"], "colour"),
        (["--port=tcp:0"], "can be reached from other machines: give a --token-file, or --no-auth"),
        (["--token-file=nowhere"], 'the token file ".*/nowhere": No such file'),
        (["--token-file=x", "--no-auth"], "contradict each other"),
        (["stray"], "'stray' is not an option"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused(twistd(tmp_path, f"--port={free_port()}", *arguments), message)


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Check that a daemon did not start and printed the reason in one line."""
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("callme: ")
    assert re.search(message, lines[0]), lines[0]


def test_help_and_version_are_printed(tmp_path: Path) -> None:
    done = twistd(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"callme {__version__}\n")
    done = twistd(tmp_path, "--help")
    assert done.returncode == 0
    for option in Options.optParameters + Options.optFlags:
        assert f"--{option[0]}" in done.stdout
    listed = subprocess.run([TWISTD, "--help"], capture_output=True, text=True, check=True)
    assert "callme  " in listed.stdout


def test_chosen_port_is_reserved_for_its_daemon(daemon: Daemon) -> None:
    """Of two daemons on one port, one would end, and its test would use the other one."""
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", daemon.port))
    key = daemon.start().put("later", "http://example.com/", "+1h")
    assert daemon.terminate() == 0
    assert daemon.start().task(key)["state"] == "scheduled"


def test_daemon_in_the_background_writes_a_pid_file(tmp_path: Path) -> None:
    port = free_port()
    done = subprocess.run(
        [TWISTD, "--pidfile=callme.pid", "--logfile=callme.log", "callme", f"--port={port}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"callme .+ listens on .+; tasks: 0 scheduled, .+\n", done.stdout)
    pid = int(wait_for((tmp_path / "callme.pid").read_text))
    daemon = Daemon(tmp_path)
    daemon.port = port
    try:
        wait_for(lambda: listens(port))
        key = daemon.put("later", "http://example.com/", "+1h")
        refused_too = twistd(tmp_path, f"--port={free_port()}")
        assert refused_too.returncode == 1
        assert daemon.task(key)["state"] == "scheduled"
        assert stat.S_IMODE((tmp_path / "callme.sqlite").stat().st_mode) == 0o600
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not (tmp_path / "callme.pid").exists())
    assert "callme has stopped" in (tmp_path / "callme.log").read_text()


def test_options_are_read_from_the_environment(tmp_path: Path) -> None:
    done = twistd(tmp_path, CALLME_PER_HOST="none")
    refused(done, "CALLME_PER_HOST is 'none'")
    done = twistd(tmp_path, "--per-host=no", CALLME_PER_HOST="none")
    refused(done, "--per-host is 'no'")


# Clock changes

SETTABLE = """
import os, sys, time
true = time.time
def set_by() -> float:
    try:
        return float(open("set-by").read() or 0)
    except OSError:
        return 0.0
time.time = lambda: true() + set_by()
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""


class SettableDaemon(Daemon):
    """Daemon whose wall clock a test can set."""

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-c", SETTABLE, *super().command(*more)[1:]]

    def set_clock(self, seconds: float) -> None:
        new = self.directory / "new"
        new.write_text(str(seconds))
        new.replace(self.directory / "set-by")

    def health(self) -> Any:
        return self.curl("GET", "/healthz")[1]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_wall_clock_change_does_not_stop_calls(tmp_path: Path, sink: Sink, step: int) -> None:
    daemon = SettableDaemon(tmp_path)
    daemon.start()
    try:
        hanging = daemon.put("hanging", sink.url("/sleep/60"), retry=0, timeout=4)
        wait_for(lambda: sink.count(hanging) == 1)
        slow = daemon.put("slow", sink.url("/sleep/3"), retry=0, timeout=20)
        wait_for(lambda: sink.count(slow) == 1)
        before = daemon.health()["last_tick"]
        daemon.set_clock(step)
        # Only the daemon's own timers wake it.
        time.sleep(7)
        health = daemon.health()
        assert health["status"] == "ok"
        assert abs(_seconds(health["last_tick"]) - _seconds(before) - step) < 90
        assert health["last_tick"][11:16] != before[11:16]
        task = daemon.task(hanging)
        assert (task["state"], task["reason"]) == ("failed", "timeout")
        assert 3900 < task["attempts"][0]["duration_ms"] < 4000 + 1500 * slowdown()
        assert daemon.task(slow)["state"] == "succeeded"
        key = daemon.put("now", sink.url("/status/200"))
        daemon.until(key, "succeeded")
        assert f"wall clock was set by {step:+}" in daemon.log()
    finally:
        daemon.kill()


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()


# Difficult clients


def test_memory_of_large_bodies_is_released(daemon: Daemon) -> None:
    daemon.start()
    large = daemon.directory / "large"
    large.write_bytes(b"x" * 20_000_000)
    daemon.curl("PUT", "/task/x", "@large")
    before = daemon.rss()
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]) * 3:
        status, problem = daemon.curl("PUT", "/task/x", "@large", *more)
        assert (status, problem["status"]) == (413, 413)
    assert daemon.rss() - before < 10_000_000


def test_idle_and_half_open_connections_do_not_block_requests(daemon: Daemon, sink: Sink) -> None:
    daemon.start()
    crowd = []
    for number in range(300):
        client = socket.create_connection(("127.0.0.1", daemon.port))
        client.sendall(b"PUT /task/x HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"[: number % 50])
        crowd.append(client)
    key = daemon.put("through", sink.url("/status/200"))
    daemon.until(key, "succeeded")
    for client in crowd:
        client.close()
    assert daemon.curl("GET", "/healthz")[0] == 200


def test_contents_of_tasks_are_not_logged(daemon: Daemon, sink: Sink) -> None:
    daemon.start()
    key = daemon.put(
        "n%C3%A4me",
        sink.url("/status/500"),
        retry=0,
        payload="hunter2",
        headers={"Authorization": "hunter2"},
    )
    daemon.until(key, "failed")
    daemon.terminate()
    log = daemon.log()
    assert "hunter2" not in log
    (line,) = [line for line in log.splitlines() if "attempt" in line]
    assert '"n\\u00e4me@' in line
    assert "unexpected_status" in line
    assert "Traceback" not in log
