"""The daemon under each runner of Twisted, as another user, and its response to signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.processes import (
    NEEDS_CURL,
    TWISTD,
    Daemon,
    Sink,
    environment,
    free_port,
    wait_for,
)

pytestmark = NEEDS_CURL

TWIST = str(Path(TWISTD).with_name("twist"))
NOBODY = 65534


@pytest.mark.parametrize("runner", [[TWIST], [sys.executable, "-m", "twisted"]])
def test_other_runners_of_twisted_run_the_daemon(tmp_path: Path, runner: list[str]) -> None:
    class RunDaemon(Daemon):
        def command(self, *more: str) -> list[str]:
            return [*runner, *super().command(*more)[3:]]

    daemon = RunDaemon(tmp_path).start()
    try:
        key = daemon.put("later", "http://example.com/", "+1h")
        assert daemon.task(key)["state"] == "scheduled"
        assert daemon.terminate() == 0
        assert "callme has stopped" in daemon.log()
    finally:
        daemon.kill()


@pytest.mark.parametrize("arguments", [[], ["--logfile=twistd.log"]])
def test_signals_without_effect_do_not_end_the_daemon(tmp_path: Path, arguments: list[str]) -> None:
    class LoggingDaemon(Daemon):
        def command(self, *more: str) -> list[str]:
            twistd, *rest = super().command(*more)
            return [twistd, *arguments, *rest]

        def log(self) -> str:
            logs = sorted(self.directory.glob("twistd.log*")) if arguments else []
            return super().log() + "".join(file.read_text() for file in logs)

    daemon = LoggingDaemon(tmp_path).start()
    try:
        assert daemon.process is not None
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            daemon.process.send_signal(number)
            line = f"] {number.name}"
            wait_for(lambda line=line: line in daemon.log())  # type: ignore[misc]
        assert daemon.answers()
        rotated = (tmp_path / "twistd.log.1").exists()
        assert rotated is bool(arguments)
        assert daemon.terminate() == 0
    finally:
        daemon.kill()


def as_root_only() -> None:
    if os.getuid() != 0:
        pytest.skip("only root may change its user")


@pytest.mark.parametrize("owner", [0, NOBODY])
def test_user_of_the_daemon_must_be_able_to_write(owner: int) -> None:
    as_root_only()
    # Not below pytest's own directory, which other users cannot enter.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.chown(directory, owner, owner)
        command = [TWISTD, "-n", "--pidfile=", f"--uid={NOBODY}", f"--gid={NOBODY}", "callme"]
        if owner == 0:
            directory.chmod(0o755)
            done = subprocess.run(
                [*command, f"--port={free_port()}"],
                cwd=directory,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert f"{directory} is not writable by the user of --uid and --gid" in line
            return

        class UserDaemon(Daemon):
            def command(self, *more: str) -> list[str]:
                return [*command, *super().command(*more)[4:]]

        daemon = UserDaemon(directory).start()
        try:
            daemon.put("later", "http://example.com/", "+1h")
            assert daemon.terminate() == 0
        finally:
            daemon.kill()


LATE = """
import os, sys
late = set()
def note(event, arguments):
    if running and event == "import":
        late.add(arguments[0])
running = False
def run_now():
    global running
    running = True
    reactor.addSystemEventTrigger("before", "shutdown", stop)
def stop():
    global running
    running = False
    print("late:", sorted(late))
sys.addaudithook(note)
from twisted.internet import reactor
reactor.callWhenRunning(lambda: reactor.callLater(0, run_now))
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""


def test_requests_and_calls_import_nothing(tmp_path: Path, sink: Sink) -> None:
    """After --uid, the files of Python's library may be out of reach."""

    class NotingDaemon(Daemon):
        def command(self, *more: str) -> list[str]:
            return [sys.executable, "-c", LATE, *super().command(*more)[1:]]

    daemon = NotingDaemon(tmp_path).start()
    try:
        daemon.until(daemon.put("called", sink.url("/status/200")), "succeeded")
        local = sink.url("/status/200").replace("127.0.0.1", "localhost").replace("http", "https")
        key = daemon.put("tls", local, retry=0)
        wait_for(lambda: daemon.task(key)["state"] == "failed")
        for path in ("/status/", "/status/.ics", "/forecast", "/metrics", "/", "/page/find"):
            for accept in ("*/*", "text/html", "application/openmetrics-text"):
                url = f"127.0.0.1:{daemon.port}{path}"
                command = ["curl", "-sS", "-o", os.devnull, "-H", f"Accept: {accept}", url]
                subprocess.run(command, check=True, capture_output=True)
        assert daemon.terminate() == 0
        assert "late: []" in daemon.log()
    finally:
        daemon.kill()
