"""SQLite only: files that are deleted, moved or replaced under a running daemon."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from callme.core.transitions import PutCondition
from callme.store import queue, tasks
from callme.store.interface import StoreUnavailable
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database
from callme.store.sqlite.guard import FileGuard
from tests.helpers.stores import HOST, NOW, put
from tests.helpers.tasks import definition

SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "callme.sqlite"
    path.parent.mkdir()
    return path


@pytest_twisted.async_yield_fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = open_store(path)
    yield made
    await made.close()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines of the log."""
    logged: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield logged
    globalLogPublisher.removeObserver(observe)


def open_store(path: Path) -> SqliteStore:
    return SqliteStore(open_database(path), reactor, lambda: "node")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def delete_all(path: Path) -> None:
    for suffix in SUFFIXES:
        beside(path, suffix).unlink()


def delete_file(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    beside(path, "-wal").unlink()


def delete_index(path: Path) -> None:
    beside(path, "-shm").unlink()


def delete_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename_file(path: Path) -> None:
    path.rename(path.with_name("moved.sqlite"))


def rename_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy.sqlite")
    shutil.copyfile(path, copy)
    copy.rename(path)


def replace_log(path: Path) -> None:
    delete_log(path)
    beside(path, "-wal").touch()


WAYS: list[Callable[[Path], None]] = [
    delete_all,
    delete_file,
    delete_log,
    delete_index,
    delete_directory,
    rename_file,
    rename_directory,
    replace_by_copy,
    replace_log,
]


@pytest.mark.parametrize("spoil", WAYS)
async def test_missing_file_stops_acknowledgements_and_claims(
    store: SqliteStore, path: Path, lines: list[str], spoil: Callable[[Path], None]
) -> None:
    await put(store, "before")
    spoil(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"callme\.sqlite.* (is gone|was replaced)"):
            await put(store, "after")
        with pytest.raises(StoreUnavailable):
            await store.write(queue.claim, {HOST: 1}, NOW)
    assert not store.is_writable
    reported = [line for line in lines if "callme accepts no task and makes no call" in line]
    assert len(reported) == 1
    assert "restart callme" in reported[0]


@pytest.mark.parametrize("move", [rename_file, rename_directory])
async def test_file_that_is_put_back_is_used_again(
    store: SqliteStore, path: Path, move: Callable[[Path], None]
) -> None:
    before = await put(store, "before")
    move(path)
    with pytest.raises(StoreUnavailable):
        await put(store, "during")
    (moved,) = path.parent.parent.rglob("moved*")
    moved.rename(path if move is rename_file else path.parent)
    after = await put(store, "after")
    assert store.is_writable
    assert [await store.read(tasks.get, key) is not None for key in (before, after)] == [True] * 2
    assert await store.read(tasks.get, definition("during").key) is None


@pytest.mark.parametrize("spoil", [delete_log, delete_index, replace_log])
async def test_acknowledged_tasks_outlast_a_deleted_log_and_a_kill(
    store: SqliteStore, path: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    keys = [await put(store, f"task{number}") for number in range(20)]
    spoil(path)
    with pytest.raises(StoreUnavailable):
        await put(store, "after")
    # After a kill only the file itself is left, because its log was deleted.
    left = tmp_path / "left.sqlite"
    shutil.copyfile(path, left)
    restarted = open_store(left)
    found = [await restarted.read(tasks.get, key) for key in keys]
    assert None not in found
    assert await restarted.read(tasks.get, definition("after").key) is None
    await restarted.close()


@pytest.mark.parametrize("move", [rename_file, rename_directory])
async def test_file_that_is_gone_before_the_first_write_is_reported(
    store: SqliteStore, path: Path, lines: list[str], move: Callable[[Path], None]
) -> None:
    """The connection that writes is opened by the first write."""
    move(path)
    with pytest.raises(StoreUnavailable, match=r"callme\.sqlite.* is gone"):
        await put(store, "during")
    (moved,) = path.parent.parent.rglob("moved*")
    moved.rename(path if move is rename_file else path.parent)
    await put(store, "after")
    assert store.is_writable
    reported = [line for line in lines if "callme.sqlite" in line]
    assert ["makes no call" in line for line in reported] == [True, False]
    assert "is in its place again" in reported[1]


def test_directory_that_is_gone_while_the_database_is_opened_can_come_back(path: Path) -> None:
    database = open_database(path)
    guard = FileGuard(database)
    rename_directory(path)
    with pytest.raises(StoreUnavailable, match="is gone"):
        guard.note_companions()
    path.parent.with_name("moved").rename(path.parent)
    guard.note_companions()
    assert guard.is_in_place
    database.release()


async def test_deleted_file_is_not_created_again(store: SqliteStore, path: Path) -> None:
    await put(store, "before")
    delete_all(path)
    # More queries at once than there are connections, so that others would be opened.
    reads: list[Any] = [store.read(tasks.list_page) for _ in range(10)]
    for read in reads:
        with suppress(StoreUnavailable):
            await read
    assert list(path.parent.iterdir()) == []


async def test_new_reader_of_a_replaced_file_is_refused(store: SqliteStore, path: Path) -> None:
    await put(store, "before")
    replace_by_copy(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM task")
        other.commit()
    with pytest.raises(StoreUnavailable, match="was replaced"):
        await store.read(tasks.list_page)


async def test_symbolic_link_leads_to_the_file(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    store = open_store(link)
    await put(store, "before")
    link.unlink()
    with pytest.raises(StoreUnavailable, match=r"link\.sqlite.* is gone"):
        await put(store, "during")
    link.symlink_to(path)
    await put(store, "after")
    delete_log(path)
    with pytest.raises(StoreUnavailable, match=r"data/callme\.sqlite-wal.* is gone"):
        await put(store, "later")
    await store.close()


async def test_writes_that_wait_together_fail_together(store: SqliteStore, path: Path) -> None:
    await put(store, "before")
    delete_file(path)
    writes = [
        store.write(tasks.put, definition(f"n{number}"), PutCondition.NONE, NOW)
        for number in range(50)
    ]
    for write in writes:
        with pytest.raises(StoreUnavailable):
            await write
