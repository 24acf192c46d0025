"""Real daemons whose database file is deleted, moved or replaced while they run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import NEEDS_CURL, Daemon, Sink

pytestmark = NEEDS_CURL

DIRECTORY = "data"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / DIRECTORY
    directory.mkdir()
    return directory


def delete_files(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def delete_file(directory: Path) -> None:
    (directory / "callme.sqlite").unlink()


def delete_log(directory: Path) -> None:
    (directory / "callme.sqlite-wal").unlink()


def rename_directory(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def replace_by_copy(directory: Path) -> None:
    copy = directory / "copy"
    shutil.copyfile(directory / "callme.sqlite", copy)
    copy.rename(directory / "callme.sqlite")


def put(daemon: Daemon, name: str, callback: str) -> tuple[int, Any, str]:
    """Put a task that is due at once; return the status, the body and the head."""
    body = {"trigger_at": "+0m", "callback": callback, "retry": 0}
    status, answer = daemon.curl("PUT", f"/task/{name}", body, "-D", "head")
    return status, answer, (daemon.directory / "head").read_text().lower()


@pytest.mark.parametrize(
    "spoil", [delete_files, delete_file, delete_log, rename_directory, replace_by_copy]
)
def test_daemon_without_its_file_accepts_nothing_and_calls_nothing(
    tmp_path: Path, sink: Sink, directory: Path, spoil: Callable[[Path], None]
) -> None:
    daemon = Daemon(tmp_path, f"--database={DIRECTORY}/callme.sqlite").start()
    try:
        later = daemon.put("later", sink.url("/status/200"), int(time.time()) + 3600)
        daemon.until(daemon.put("first", sink.url("/status/200")), "succeeded")
        spoil(directory)
        for _ in range(3):
            status, _, head = put(daemon, "second", sink.url("/status/200"))
            assert (status, "retry-after:" in head) == (503, True)
        status, health = daemon.curl("GET", "/healthz")
        assert (status, health["writable"]) == (503, False)
        assert [key.partition("@")[0] for _, key, _ in sink.calls] == ["first"]
        assert daemon.log().count("callme accepts no task and makes no call") == 1
        assert "Traceback" not in daemon.log()
    finally:
        daemon.kill()
    if spoil is delete_log:
        # All that was acknowledged is in the file.
        daemon.start()
        assert daemon.task(later)["state"] == "scheduled"
        daemon.kill()


def test_daemon_that_got_its_directory_back_goes_on(
    tmp_path: Path, sink: Sink, directory: Path
) -> None:
    daemon = Daemon(tmp_path, f"--database={DIRECTORY}/callme.sqlite").start()
    try:
        rename_directory(directory)
        assert put(daemon, "during", sink.url("/status/200"))[0] == 503
        directory.with_name("elsewhere").rename(directory)
        key = daemon.put("after", sink.url("/status/200"))
        daemon.until(key, "succeeded")
        assert sink.count(key) == 1
        assert daemon.curl("GET", "/healthz")[0] == 200
        assert "is in its place again" in daemon.log()
    finally:
        daemon.kill()


def test_tick_detects_that_the_file_is_gone(tmp_path: Path, directory: Path) -> None:
    """Up to a minute: nothing is written but by the tick."""
    daemon = Daemon(tmp_path, f"--database={DIRECTORY}/callme.sqlite").start()
    try:
        daemon.curl("GET", "/healthz")
        delete_files(directory)
        end = time.monotonic() + 65
        while daemon.curl("GET", "/healthz")[1]["writable"]:
            assert time.monotonic() < end
            time.sleep(0.5)
    finally:
        daemon.kill()
