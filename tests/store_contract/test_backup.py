"""The backup of a SQLite file, also while a daemon uses it."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from callme import backup
from callme.store import tasks
from callme.store.interface import CannotOpen
from callme.store.sqlite.copy import copy_database
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database
from tests.helpers.stores import put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callme.sqlite"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "backups"
    directory.mkdir()
    return directory / "copy.sqlite"


@pytest_twisted.async_yield_fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(open_database(path), reactor, lambda: "node")
    yield made
    await made.close()


@pytest.fixture
def busy(path: Path) -> Iterator[None]:
    """Another process's commits: one every 2 ms, as a busy daemon makes them."""
    open_database(path).release()
    ends = threading.Event()
    with closing(sqlite3.connect(path)) as filling:
        filling.executemany(
            "INSERT INTO task (task_name, trigger_at, callback, callback_method, payload, headers,"
            " expected_http_status, retry, retry_delay, max_delay, timeout, host, expires_at,"
            " state, due_at, created_at_ms)"
            " VALUES (?, 60, 'http://a/', 'GET', ?, '{}', '[200]', 1, '[1]', 10, 30, 'a:80', 660,"
            " 'scheduled', 60, 1)",
            ((f"task{number}", "x" * 2000) for number in range(5000)),
        )
        filling.commit()

    def commit() -> None:
        with closing(sqlite3.connect(path)) as connection:
            while not ends.wait(0.002):
                connection.execute("UPDATE task SET detail = detail || 'x' WHERE task_id = 1")
                connection.commit()

    thread = threading.Thread(target=commit)
    thread.start()
    yield
    ends.set()
    thread.join()


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callme.backup", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(backup.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_copy_of_a_used_database_can_be_opened(
    store: SqliteStore, path: Path, target: Path
) -> None:
    keys = [await put(store, f"task{number}", payload="x" * 1000) for number in range(50)]
    copied = copy_database(path, target, lambda done, total: None)
    assert (copied.tasks, copied.size) == (50, target.stat().st_size)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    restored = SqliteStore(open_database(target), reactor, lambda: "node")
    assert None not in [await restored.read(tasks.get, key) for key in keys]
    await restored.close()


@pytest.mark.usefixtures("busy")
def test_backup_ends_while_others_commit(tmp_path: Path, target: Path) -> None:
    done = run(str(target), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5,000 tasks" in done.stdout
    # Without a terminal there is no bar.
    assert done.stderr == ""


async def test_existing_file_is_not_overwritten(
    store: SqliteStore, path: Path, target: Path
) -> None:
    await put(store, "task")
    target.write_text("precious")
    done = run(str(target), "--database", str(path), cwd=target.parent)
    assert done.returncode == 1
    assert done.stderr == f"callme: {target} exists already: a backup does not overwrite\n"
    assert target.read_text() == "precious"
    assert list(target.parent.iterdir()) == [target]


def test_missing_source_is_not_created(tmp_path: Path, target: Path) -> None:
    done = run(str(target), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unable to open database file" in done.stderr
    assert list(target.parent.iterdir()) == []
    assert not (tmp_path / "callme.sqlite").exists()


def test_database_of_another_program_is_refused(path: Path, target: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(CannotOpen, match="is not a database of callme"):
        copy_database(path, target, lambda done, total: None)
    assert list(target.parent.iterdir()) == []


async def test_damaged_database_makes_no_copy(path: Path, target: Path) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "node")
    for number in range(200):
        await put(store, f"task{number}", payload="x" * 1000)
    await store.close()
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(20 * 4096))
    with pytest.raises(CannotOpen):
        copy_database(path, target, lambda done, total: None)
    assert list(target.parent.iterdir()) == []


async def test_damaged_rows_are_copied_and_open(path: Path, target: Path) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "node")
    for name in ("a", "b"):
        await put(store, name)
    await store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        other.execute("UPDATE task SET state = 'lost', retry = 'many' WHERE task_name = 'a'")
        other.execute("UPDATE task SET task_name = CAST(x'ff' AS TEXT) WHERE task_name = 'b'")
        other.commit()
    assert copy_database(path, target, lambda done, total: None).tasks == 2
    for file in (path, target):
        store = SqliteStore(open_database(file), reactor, lambda: "node")
        page = await store.read(tasks.list_page)
        assert page is not None
        assert {task.damaged for task in page.tasks} == {("retry", "state"), ("task_name",)}
        await store.close()


def test_postgresql_is_refused(target: Path) -> None:
    with pytest.raises(SystemExit, match="pg_dump"):
        backup.main(["--database=postgresql://user@host/database", str(target)])


async def test_restored_backup_of_an_emptied_database_is_small(
    store: SqliteStore, path: Path, target: Path
) -> None:
    for number in range(200):
        await put(store, f"task{number}", payload="x" * 10_000)
    await store.write(lambda write: write.cursor.execute("DELETE FROM task").rowcount)
    await store.write(lambda write: write.cursor.execute("SELECT 1").fetchone())
    assert copy_database(path, target, lambda done, total: None).size < 200_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal_ends_with_all_bytes() -> None:
    stream = Terminal()
    progress = backup.Progress(stream)
    for done in (0, 500_000, 1_000_000):
        progress.display(done, 1_000_000)
    progress.end()
    assert stream.getvalue().endswith(f"[{'#' * 30}] 100%  1.0 of 1.0 MB \n")
