"""Moves between databases: from SQLite to PostgreSQL, and back."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import reactor

from callme import move
from callme.core.task import Outcome, State, Task
from callme.core.transitions import PutCondition, decide_after_attempt
from callme.hosts.operations import delete_settings, load_settings, put_settings
from callme.hosts.settings import INDEFINITELY, HostSettings
from callme.reports.failures import acknowledge, open_failures
from callme.store import queue, tasks
from callme.store.database import Store
from callme.store.interface import CannotOpen, Cursor
from callme.store.postgresql.dsn import SCHEMA
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.membership import Member
from callme.store.postgresql.setup import open_server
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database
from callme.store.stats import history
from tests.helpers.postgres import Cluster
from tests.helpers.processes import free_port
from tests.helpers.tasks import NOON, definition

HOST = "sink.example:80"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callme.sqlite"


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.create(f"move{free_port()}")


async def fill(store: Store, count: int = 30) -> None:
    """Fill a store with tasks in every state and with every parameter."""
    await store.write(queue.take_orphans, NOON)
    for number in range(count):
        more: dict[str, Any] = {
            "payload": "a\0b \U0001f600\\",
            "headers": {"X-A": "\\é"},
            "labels": {"number": str(number)},
            "retry": number % 2,
            # Without notification URLs, as notifications would be additional tasks.
            "on_failure": "http://told.example/bad" if number >= 20 else None,
            "on_success": "http://told.example/good" if number >= 25 else None,
        }
        await store.write(tasks.put, definition(f"ü{number}", **more), PutCondition.NONE, NOON)
    claims = await store.write(queue.claim, {HOST: 20}, NOON)
    for number, claim in enumerate(claims[:15]):
        outcome = Outcome(
            started_at_ms=NOON * 1000,
            duration_ms=5,
            status=200 if number % 3 else 500,
            body="\0\\\n\t",
        )
        await store.write(queue.record, claim, decide_after_attempt(claim, outcome, NOON), NOON)


async def all_of(store: Store) -> list[Task]:
    page = await store.read(tasks.list_page, limit=1000)
    assert page is not None
    whole = [await store.read(tasks.get, task.key) for task in page.tasks]
    return [task for task in whole if task is not None]


def labels_in(cursor: Cursor) -> list[tuple[Any, ...]]:
    rows = cursor.execute("SELECT key, value FROM task_label ORDER BY value")
    return [tuple(row) for row in rows]


def settings_in(cursor: Cursor) -> Sequence[HostSettings]:
    return load_settings(cursor, "a").settings


async def sqlite_tasks(path: Path) -> list[Task]:
    store = SqliteStore(open_database(path), reactor, lambda: "b")
    found = await all_of(store)
    await store.close()
    return found


def run(source: object, target: object) -> None:
    move.main([str(source), str(target)])


async def test_move_there_and_back_preserves_all_rows(
    path: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "CHUNK_LIMIT", 7)
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store)
    before = await all_of(store)
    labels = await store.read(labels_in)
    for host in ("*", HOST):
        settings = {"max_concurrent": 3, "max_per_minute": 10, "paused_until": INDEFINITELY}
        await store.write(put_settings, host, settings, NOON)
    settings_before = await store.read(settings_in)
    await store.close()
    assert {task.state for task in before} == set(State)
    assert [value for _, value in labels] == sorted(str(number) for number in range(30))
    told = {(task.definition.on_failure, task.definition.on_success) for task in before}
    bad, good = "http://told.example/bad", "http://told.example/good"
    assert told == {(None, None), (bad, None), (bad, good)}
    run(path, url)
    message = capsys.readouterr().out
    for line in ("scheduled", "running", "succeeded", "failed", "attempts"):
        (found,) = [one for one in message.splitlines() if one.startswith(line)]
        _, source, target = found.split()
        assert source == target != "0"
    there = PostgresqlStore(evolve(open_server(url), use_client_clock=True), reactor, lambda: "b")
    assert before == await all_of(there)
    assert labels == await there.read(labels_in)
    assert settings_before == await there.read(settings_in)
    await there.write(delete_settings, "*")
    # Row ids continue after the copied ones, and running tasks are orphans now.
    await there.write(tasks.put, definition("new"), PutCondition.NONE, NOON)
    await there.write(tasks.delete, definition("new").key)
    await there.close()
    back = path.with_name("back.sqlite")
    run(url, back)
    assert before == await sqlite_tasks(back)
    returned = SqliteStore(open_database(back), reactor, lambda: "b")
    (own,) = await returned.read(settings_in)
    await returned.close()
    assert own == settings_before[1]


async def test_running_task_is_rescued_after_the_move(path: Path, url: str) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store)
    await store.close()
    run(path, url)
    there = PostgresqlStore(evolve(open_server(url), use_client_clock=True), reactor, lambda: "b")
    taken = await there.write(queue.take_orphans, NOON)
    assert [claim.node for claim in taken] == ["a"] * 5
    await there.close()


class Interrupted(Exception):
    """The interruption of a move."""


async def test_interrupted_move_resumes(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "CHUNK_LIMIT", 7)
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store)
    before = await all_of(store)
    await store.close()
    written: list[int] = []
    source, target = (
        move.open_endpoint(str(path), must_exist=True),
        move.open_endpoint(url, must_exist=False),
    )

    def write(tasks: Any, attempts: Any) -> None:
        if len(written) == 2:
            raise Interrupted
        written.append(1)
        type(target).write(target, tasks, attempts)

    monkeypatch.setattr(target, "write", write)
    with pytest.raises(Interrupted):
        move.move(source, target, io.StringIO())
    assert target.count_rows().tasks == 14
    monkeypatch.undo()
    monkeypatch.setattr(move, "CHUNK_LIMIT", 10)
    terminal = Terminal()
    counts = move.move(source, target, terminal)
    assert counts[0] == counts[1]
    # The report counts the rows that are already copied.
    assert "[########################      ]  80%  24 of 30" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")
    source.close()
    target.close()
    there = PostgresqlStore(open_server(url), reactor, lambda: "b")
    assert before == await all_of(there)
    await there.close()
    # A third run has nothing left to do.
    run(path, url)


async def test_target_with_other_tasks_is_refused(path: Path, url: str) -> None:
    for name in (path, path.with_name("other.sqlite")):
        store = SqliteStore(open_database(name), reactor, lambda: "a")
        await store.write(tasks.put, definition(name.name), PutCondition.NONE, NOON)
        await store.close()
    run(path, url)
    with pytest.raises(SystemExit, match=r"callme: postgresql://.* contains other tasks than"):
        run(path.with_name("other.sqlite"), url)


@pytest.mark.parametrize(
    "change",
    [
        # The counts by state are the same.
        "UPDATE task SET due_at = due_at + 60 WHERE state = 'scheduled'",
        "UPDATE attempt SET detail = 'another'",
    ],
)
async def test_resumed_move_notices_changed_rows(path: Path, url: str, change: str) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store)
    await store.close()
    run(path, url)
    run(path, url)
    connection = sqlite3.connect(path)
    assert connection.execute(change).rowcount > 0
    connection.commit()
    connection.close()
    with pytest.raises(
        SystemExit, match=r"other tasks than .*, or other versions of them: it must be"
    ):
        run(path, url)


def test_source_in_use_by_a_daemon_is_refused(path: Path, url: str) -> None:
    database = open_database(path)
    with pytest.raises(SystemExit, match="in use by another callme daemon"):
        run(path, url)
    database.release()


async def test_server_in_use_by_a_daemon_is_refused(path: Path, url: str) -> None:
    store = PostgresqlStore(open_server(url), reactor, lambda: "somebody")
    await store.write(queue.take_orphans, 0)
    open_database(path).release()
    for arguments in ((url, path.with_name("new")), (path, url)):
        with pytest.raises(SystemExit, match="in use by the callme daemon somebody: stop it"):
            run(*arguments)
    await store.close()
    run(url, path)


async def test_daemon_that_starts_during_the_move_is_detected(
    path: Path, url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresqlStore(open_server(url), reactor, lambda: "frozen")
    await store.write(tasks.put, definition(), PutCondition.NONE, NOON)
    source, target = (
        move.open_endpoint(url, must_exist=True),
        move.open_endpoint(str(path), must_exist=False),
    )
    finish = target.finalize

    def thaw() -> None:
        with cluster.connect(url.rpartition("/")[2]) as connection:
            connection.execute(f"SET search_path = {SCHEMA}".encode())
            Member(name="frozen").heartbeat(connection, NOON, None, 1)
        finish()

    monkeypatch.setattr(target, "finalize", thaw)
    with pytest.raises(CannotOpen, match="in use by the callme daemon frozen"):
        move.move(source, target, io.StringIO())
    source.close()
    target.close()
    await store.close()


def test_daemons_wait_during_the_move_of_a_server(
    url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = move.open_endpoint(url, must_exist=False)
    monkeypatch.setattr("callme.store.postgresql.setup.MIGRATION_TIMEOUT_SECONDS", 1)
    with pytest.raises(CannotOpen, match="lock timeout"):
        open_server(url)
    side.close()
    open_server(url)


def test_failed_move_is_a_one_line_error(path: Path) -> None:
    free = f"postgresql://127.0.0.1:{free_port()}/db"
    for source, target, message in [
        (str(path), str(path), "are the same"),
        (str(path), "other", "there is no such file"),
        (free, str(path), "Connection refused"),
    ]:
        with pytest.raises(SystemExit, match=message) as ended:
            run(source, target)
        assert str(ended.value).startswith("callme: ")
        assert "\n" not in str(ended.value)


def test_unequal_counts_are_an_error(
    path: Path, url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(path).release()
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO task (task_name, trigger_at, callback, callback_method, payload, headers, "
        "expected_http_status, retry, retry_delay, max_delay, timeout, host, expires_at, state, "
        "due_at, created_at_ms) VALUES ('a', 0, 'x', 'GET', '', '{}', '[200]', 1, '[1]', 1, 1, "
        "'x', 60, 'scheduled', 0, 0)"
    )
    connection.commit()
    connection.close()
    open_server(url)
    with cluster.connect(url.rpartition("/")[2]) as other:
        other.execute(
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        other.execute(
            f"CREATE TRIGGER nothing BEFORE INSERT ON {SCHEMA}.task "
            "FOR EACH ROW EXECUTE FUNCTION nothing()".encode()
        )
    with pytest.raises(SystemExit, match="contain different tasks"):
        run(path, url)


async def outcomes_in(store: Store) -> list[Any]:
    def read(cursor: Cursor) -> list[Any]:
        rows = cursor.execute("SELECT finished_at_ms, state, lateness_ms FROM removed_outcome")
        return sorted(rows.fetchall())

    return await store.read(read)


async def test_move_copies_acknowledgements_and_outcomes_of_removed_tasks(
    path: Path, url: str
) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store)
    await store.write(acknowledge, NOON * 1000)
    for number in range(3):
        assert await store.write(tasks.delete, definition(f"ü{number}").key)
    outcomes = await outcomes_in(store)
    past = await store.read(history, NOON - 60)
    await store.close()
    assert len(outcomes) == 3
    run(path, url)
    there = PostgresqlStore(evolve(open_server(url), use_client_clock=True), reactor, lambda: "b")
    assert await outcomes_in(there) == outcomes
    assert await there.read(history, NOON - 60) == past
    opened = await there.read(open_failures, 0)
    assert opened.acknowledged_until_ms == NOON * 1000
    await there.close()
    back = path.with_name("back.sqlite")
    run(url, back)
    returned = SqliteStore(open_database(back), reactor, lambda: "b")
    assert await outcomes_in(returned) == outcomes
    assert (await returned.read(open_failures, 0)).acknowledged_until_ms == NOON * 1000
    await returned.close()
    # A move that is run again copies nothing twice.
    run(url, back)
    returned = SqliteStore(open_database(back), reactor, lambda: "b")
    assert await outcomes_in(returned) == outcomes
    await returned.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("retry", "'many'"),
        ("retry", "1000000000000000000"),
        ("payload", "x'ff'"),
        ("task_name", "CAST(x'ff61' AS TEXT)"),
        ("trigger_at", "'tomorrow'"),
    ],
)
async def test_damaged_task_that_cannot_be_copied_is_named(
    path: Path, url: str, column: str, value: str
) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store, 3)
    await store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"UPDATE task SET {column} = {value} WHERE task_name = 'ü1'")
        other.commit()
    key = "@2" if column in ("task_name", "trigger_at") else f"ü1@{NOON}"
    with pytest.raises(SystemExit) as refused:
        run(path, url)
    text = str(refused.value)
    assert f"the task {key} of" in text
    assert f"damaged values ({column})" in text
    assert "\n" not in text


async def test_damaged_task_that_can_be_copied_is_copied_unchanged(path: Path, url: str) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await fill(store, 3)
    await store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE task SET headers = '{' WHERE task_name = 'ü1'")
        other.commit()
    run(path, url)
    there = PostgresqlStore(open_server(url), reactor, lambda: "b")
    found = {task.key.task_name: task.damaged for task in await all_of(there)}
    await there.close()
    assert found == {"ü0": (), "ü1": ("headers",), "ü2": ()}


async def test_damaged_row_of_another_table_is_a_one_line_error(path: Path, url: str) -> None:
    store = SqliteStore(open_database(path), reactor, lambda: "a")
    await store.write(put_settings, HOST, {"max_concurrent": 3}, NOON)
    await store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE host_setting SET max_concurrent = 'many'")
        other.commit()
    with pytest.raises(SystemExit) as refused:
        run(path, url)
    assert "the rows of host_setting cannot be copied" in str(refused.value)
    assert "\n" not in str(refused.value)
