"""SQLite only: the file, its schema, its settings and its failures."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.logger import capturedLogs, formatEvent

from callme.core.task import Attempt, Definition, Reason, State, Transition
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.store import queue, stats, tasks
from callme.store.database import Write
from callme.store.interface import CannotOpen, Cursor, Deleted, StoreUnavailable
from callme.store.listing import activity
from callme.store.open import open_store_database, release
from callme.store.sqlite import file
from callme.store.sqlite.cursor import SqliteCursor
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import migrations, open_database
from tests.helpers.query_plans import explain
from tests.helpers.schemas import make_sqlite, with_more
from tests.helpers.tasks import NOON, definition

NOW = NOON + 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callme.sqlite"


@pytest_twisted.async_yield_fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(open_database(path), reactor, lambda: "node")
    yield made
    await made.close()


def make(path: Path) -> None:
    open_database(path).release()


def test_new_file_is_private_to_its_owner(path: Path) -> None:
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_existing_file_becomes_private(path: Path) -> None:
    path.touch(mode=0o644)
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_second_daemon_on_a_file_is_refused(path: Path) -> None:
    first = open_database(path)
    with pytest.raises(CannotOpen, match="in use by another callme daemon"):
        open_database(path)
    first.release()
    make(path)


def test_two_paths_of_one_file_share_the_lock(path: Path) -> None:
    first = open_database(path)
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    with pytest.raises(CannotOpen, match="in use"):
        open_database(link)
    first.release()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all, nor was it ever one" * 100)


def torn(path: Path) -> None:
    make(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))


def newer(path: Path) -> None:
    make(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {migrations().newest + 1}")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (garbage, "file is not a database"),
        (torn, "damaged|malformed"),
        (newer, "from a newer callme; this one knows schemas up to"),
        (foreign, "is a database of another program"),
        (directory, "Is a directory"),
    ],
)
def test_unusable_file_is_a_one_line_error_and_unchanged(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    path.chmod(0o755)
    with pytest.raises(CannotOpen, match=message) as refused:
        open_database(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert before == (path.read_bytes() if path.is_file() else b"")


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match=r"the directory .*/nowhere does not exist"):
        open_database(tmp_path / "nowhere" / "callme.sqlite")


def test_non_regular_file_is_refused_and_unchanged() -> None:
    before = Path("/dev/null").stat().st_mode
    with pytest.raises(CannotOpen, match="is not a file that can hold a database"):
        open_database(Path("/dev/null"))
    assert before == Path("/dev/null").stat().st_mode


def test_newline_in_a_path_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen) as refused:
        open_database(tmp_path / "a\nb" / "callme.sqlite")
    assert "\n" not in str(refused.value)


def test_old_sqlite_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MIN_SQLITE_VERSION", (99, 0, 0))
    with pytest.raises(CannotOpen, match="is too old"):
        open_database(path)


def test_failed_migration_leaves_the_schema_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    bad = with_more(migrations(), "CREATE TABLE half (x);\nCREATE TABLE task (x);")
    monkeypatch.setattr(file, "migrations", lambda: bad)
    with pytest.raises(CannotOpen, match="already exists"):
        open_database(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == bad.newest - 1
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "half" not in tables
    connection.close()


def test_new_migration_runs_once_on_an_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    more = with_more(migrations(), "ALTER TABLE task ADD COLUMN colour TEXT;")
    monkeypatch.setattr(file, "migrations", lambda: more)
    make(path)
    make(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == more.newest
    connection.close()


def shape(path: Path) -> dict[str, object]:
    """Return the columns of each table, and those of each index."""
    with closing(sqlite3.connect(path)) as connection:
        names = "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        return {
            name: sorted(
                column for _, column, *_ in connection.execute(f"PRAGMA table_info({name})")
            )
            if kind == "table"
            else [column for *_, column in connection.execute(f"PRAGMA index_info({name})")]
            for name, kind in connection.execute(names).fetchall()
        }


def test_file_of_the_schema_before_the_baseline_is_upgraded(path: Path) -> None:
    with closing(make_sqlite(path, 5)) as connection:
        connection.execute(
            "INSERT INTO task (task_name, trigger_at, callback, callback_method, payload, headers,"
            " expected_http_status, retry, retry_delay, max_delay, timeout, on_failure, host,"
            " expires_at, state, reason, attempts_used, last_attempt, claimed_at, created_at,"
            " finished_at) VALUES ('task', 60, 'http://a/', 'GET', 'p', '{}', '[200]', 1, '[1]',"
            " 10, 30, 'http://b/', 'a:80', 660, 'failed', 'timeout', 1, 1, 61001, 1, 62002)"
        )
        connection.execute(
            "INSERT INTO attempt VALUES (1, 1, 61002, 1002, 1000, NULL, 'timeout', 'd', 'b', 'n')"
        )
        connection.commit()
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        task = tasks.get(connection.cursor(SqliteCursor), Key("task", 60))
    assert task is not None
    assert task.definition == Definition(
        task_name="task",
        trigger_at=60,
        callback="http://a/",
        payload="p",
        on_failure="http://b/",
    )
    assert (task.state, task.created_at_ms, task.finished_at_ms) == (State.FAILED, 1, 62002)
    assert task.attempts is not None
    assert [(one.started_at_ms, one.node) for one in task.attempts] == [(61002, "n")]


def test_migration_gives_recent_tasks_the_lateness_of_their_first_attempt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    before = {number: sql for number, sql in known.numbered.items() if number < 13}
    monkeypatch.setattr(file, "migrations", lambda: evolve(known, numbered=before))
    make(path)
    now_ms = int(time.time() * 1000)
    # The state, the attempts used, the number of the last one, and the end of each task.
    rows = [
        ("failed", 2, 3, now_ms),
        ("failed", 0, 0, now_ms),
        ("failed", 1, 1, now_ms - 100_000_000),
        ("running", 1, 1, None),
        ("scheduled", 0, 3, None),
    ]
    with closing(sqlite3.connect(path)) as connection:
        for number, (state, used, last, ended) in enumerate(rows, 1):
            connection.execute(
                "INSERT INTO task (task_id, task_name, trigger_at, callback, callback_method,"
                " payload, headers, expected_http_status, retry, retry_delay, max_delay, timeout,"
                " host, expires_at, state, due_at, attempts_used, last_attempt, created_at_ms,"
                " finished_at_ms)"
                " VALUES (?, 'x', ? * 60, '', '', '', '', '', 0, '', 0, 0, '', 0, ?,"
                " iif(? = 'scheduled', 0, NULL), ?, ?, 0, ?)",
                (number, number, state, state, used, last, ended),
            )
            connection.executemany(
                "INSERT INTO attempt (task_id, number, started_at_ms, lateness_ms, detail, body)"
                " VALUES (?, ?, 0, ?, '', '')",
                [(number, one, 100 * one) for one in range(1, last + 1)],
            )
        connection.commit()
    monkeypatch.setattr(file, "migrations", lambda: known)
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT first_lateness_ms FROM task ORDER BY task_id").fetchall()
    assert found == [(200,), (None,), (None,), (100,), (None,)]


def test_upgraded_file_has_the_schema_of_a_new_one(path: Path) -> None:
    make_sqlite(path, 5).close()
    make(path)
    new = path.with_name("new.sqlite")
    make(new)
    assert shape(path) == shape(new)


def test_file_of_an_older_schema_is_refused_in_one_line(path: Path) -> None:
    make_sqlite(path, 4).close()
    with pytest.raises(CannotOpen, match="has schema 4, from an older callme") as refused:
        open_database(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (
            "CREATE TRIGGER spy AFTER INSERT ON task BEGIN"
            " UPDATE task SET callback = 'http://evil/'; END",
            "the trigger 'spy' is not callme's",
        ),
        ("CREATE VIEW seen AS SELECT * FROM task", "the view 'seen' is not callme's"),
        ("CREATE TABLE other (x)", "the table 'other' is not callme's"),
        ("CREATE INDEX slow ON task (payload)", "the index 'slow' is not callme's"),
        ("DROP INDEX task_due", "the index 'task_due' is missing"),
        (
            "DROP INDEX task_due; CREATE INDEX task_due ON task (due_at)",
            "the index 'task_due' was changed",
        ),
        ("ALTER TABLE task ADD COLUMN x TEXT", "the table 'task' was changed"),
        (
            "ALTER TABLE task ADD COLUMN x AS (upper(callback))",
            "the table 'task' was changed",
        ),
        ('CREATE TABLE "a\nb" (x)', r"the table 'a\\nb' is not callme's"),
    ],
)
def test_schema_of_another_program_is_refused_in_one_line(
    path: Path, planted: str, message: str
) -> None:
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(planted)
    with pytest.raises(CannotOpen, match=message) as refused:
        open_database(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_statistics_of_an_administrator_are_accepted(path: Path) -> None:
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ANALYZE")
    make(path)


async def test_no_connection_trusts_the_schema(store: SqliteStore) -> None:
    def settings(cursor: Cursor) -> list[int]:
        names = ("trusted_schema", "cell_size_check")
        return [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store.write(lambda write: settings(write.cursor)) == [0, 1]
    assert await store.read(settings) == [0, 1]


async def test_every_connection_has_durable_settings(store: SqliteStore) -> None:
    def settings(cursor: Cursor) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "query_only", "wal_autocheckpoint")
        return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    # synchronous: 2 is FULL.
    writer = await store.write(lambda write: settings(write.cursor))
    assert tuple(writer.values())[:4] == ("wal", 2, 1, 0)
    reader = await store.read(settings)
    assert (
        reader["journal_mode"],
        reader["query_only"],
        reader["wal_autocheckpoint"],
    ) == ("wal", 1, 0)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queue._TOO_LATE, "task_due (due_at<?)"),
        (queue._CLAIM, "task_host (host=? AND due_at<?)"),
        (f"{queue._CLAIMS} AND lease_until <= ?", "task_running (lease_until<?)"),
        (queue._PURGE, "task_finished (finished_at_ms>? AND finished_at_ms<?)"),
        (queue._RECORD, "INTEGER PRIMARY KEY (rowid=?)"),
        (queue._BACKLOG, "task_due (due_at<?)"),
        (queue._DUE_HOSTS, "task_due (due_at<?)"),
        (tasks._GET, "(task_name=? AND trigger_at=?)"),
        (queue._PURGE_OUTCOMES, "removed_outcome_finished (finished_at_ms<?)"),
        (
            # The query of a trigger for each deleted task.
            "SELECT 1 FROM task WHERE finished_at_ms >= ?",
            "task_finished (finished_at_ms>?)",
        ),
    ],
)
def test_query_uses_its_index(path: Path, statement: str, index: str) -> None:
    make(path)
    connection = sqlite3.connect(path)
    values = [None] * statement.count("?")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    plan = [row[3] for row in rows]
    connection.close()
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN") or "ORDER BY" in step for step in plan), plan


async def test_history_reads_only_an_index(store: SqliteStore) -> None:
    def plan(cursor: Cursor) -> list[str]:
        return explain(cursor, lambda recorder: stats.history(recorder, NOON))

    found = await store.read(plan)
    (step,) = (step for step in found if " task " in step)
    assert "USING COVERING INDEX task_finished (finished_at_ms>? AND finished_at_ms<?)" in step


async def test_groups_of_failures_read_an_index_in_the_place_of_tasks(store: SqliteStore) -> None:
    def program(cursor: Cursor) -> list[Any]:
        return cursor.execute(f"EXPLAIN {activity._FAILURES}", (10,)).fetchall()

    steps = await store.read(program)
    # It names the cursors of the index and of the table, which moves if a column needs it.
    ((_, _, index, _, table, *_),) = (step for step in steps if step[1] == "DeferredSeek")
    columns = {step[2] for step in steps if step[1] == "Column"}
    assert index in columns
    assert table not in columns


async def test_log_that_a_long_reader_let_grow_is_cut(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(file, "WAL_LIMIT_BYTES", 50 * 4096)
    log = path.with_name(path.name + "-wal")

    async def fill(name: str) -> None:
        for number in range(20):
            large = definition(f"{name}{number}", payload="x" * 50_000)
            await store.write(tasks.put, large, PutCondition.NONE, NOW)

    await fill("first")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM task").fetchone()
    await fill("second")
    grown = log.stat().st_size
    reader.close()
    await fill("third")
    assert log.stat().st_size < 150 * 4096 < grown


async def test_locked_database_is_unavailable_and_loses_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(tasks.put, definition("before"), PutCondition.NONE, NOW)

    def impatient(write: Write) -> None:
        write.cursor.execute("PRAGMA busy_timeout = 10")

    await store.write(impatient)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    puts = [
        store.write(tasks.put, definition(f"n{number}"), PutCondition.NONE, NOW)
        for number in range(3)
    ]
    for one in puts:
        with pytest.raises(StoreUnavailable, match="locked"):
            await one
    assert await store.read(tasks.get, definition("before").key) is not None
    other.execute("ROLLBACK")
    other.close()
    await store.write(tasks.put, definition("after"), PutCondition.NONE, NOW)
    page = await store.read(tasks.list_page)
    assert page is not None
    assert [task.key.task_name for task in page.tasks] == ["after", "before"]


async def test_full_database_is_unavailable_and_keeps_its_data(
    store: SqliteStore,
) -> None:
    await store.write(tasks.put, definition("before"), PutCondition.NONE, NOW)
    (claim,) = await store.write(queue.claim, {"sink.example:80": 1}, NOW)
    large = "x" * 20_000

    def fill(write: Write) -> None:
        cursor = write.cursor
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages}")

    await store.write(fill)
    puts = [
        store.write(tasks.put, definition(f"n{number}", payload=large), PutCondition.NONE, NOW)
        for number in range(3)
    ]
    for one in puts:
        with pytest.raises(StoreUnavailable, match="full"):
            await one
    attempt = Attempt(
        number=1,
        started_at_ms=NOON * 1000,
        lateness_ms=0,
        duration_ms=5,
        status=200,
        reason=None,
        detail="",
        body=large,
    )
    transition = Transition(state=State.SUCCEEDED, attempt=attempt)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.write(queue.record, claim, transition, NOW)
    task = await store.read(tasks.get, claim.definition.key)
    assert task is not None
    # Nothing of it is recorded: neither the state nor the attempt.
    assert (task.state, task.attempts) == (State.RUNNING, ())
    unbounded = "PRAGMA max_page_count = 1000000"
    await store.write(lambda write: write.cursor.execute(unbounded).fetchone())
    assert await store.write(queue.record, claim, transition, NOW)
    await store.write(tasks.put, definition("after", payload=large), PutCondition.NONE, NOW)
    page = await store.read(tasks.list_page)
    assert page is not None
    assert [(task.key.task_name, task.state) for task in page.tasks] == [
        ("after", State.SCHEDULED),
        ("before", State.SUCCEEDED),
    ]


async def test_corrupt_row_does_not_block_others(store: SqliteStore, path: Path) -> None:
    for name in ("a", "broken", "c", "late"):
        await store.write(
            tasks.put,
            definition(name, **({"max_delay": 1} if name == "late" else {})),
            PutCondition.NONE,
            NOW,
        )
    other = sqlite3.connect(path)
    other.execute("UPDATE task SET headers = '{' WHERE task_name IN ('broken', 'late')")
    other.commit()
    other.close()
    page = await store.read(tasks.list_page)
    assert page is not None
    assert len(page.tasks) == 4
    claims = await store.write(queue.claim, {"sink.example:80": 9}, NOON + 60)
    assert [claim.definition.task_name for claim in claims] == ["a", "c"]
    await store.write(queue.expire_overdue, NOON + 60)
    for name in ("broken", "late"):
        task = await store.read(tasks.get, definition(name).key)
        assert task is not None
        assert (task.state, task.reason) == (State.FAILED, Reason.CONNECTION_FAILED)
        assert "no request was made" in task.detail
    result = await store.write(tasks.put, definition("broken", retry=0), PutCondition.NONE, NOW)
    assert result.task is not None
    assert State.FAILED is result.task.state


def spoil_text(path: Path, column: str) -> None:
    """Store a text that is not UTF-8 in a column of the task ``broken``, as another program may."""
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            f"UPDATE task SET {column} = CAST(x'ff61' AS TEXT) WHERE task_name = 'broken'"
        )
        other.commit()


@pytest.mark.parametrize("column", ["task_name", "callback", "payload", "detail", "on_failure"])
async def test_text_that_is_not_utf8_is_damaged_and_hides_no_other_task(
    store: SqliteStore, path: Path, column: str
) -> None:
    for name in ("broken", "fine"):
        await store.write(tasks.put, definition(name), PutCondition.NONE, NOW)
    spoil_text(path, column)
    page = await store.read(tasks.list_page)
    assert page is not None
    damaged = {task.key.task_name: task.damaged for task in page.tasks}
    assert damaged.pop("fine") == ()
    # Lists have no payload.
    assert list(damaged.values()) == [() if column == "payload" else (column,)]
    key = definition("broken").key
    task = await store.read(tasks.get, key)
    assert (None if task is None else task.damaged) == (
        None if column == "task_name" else (column,)
    )
    # Intact text is plain again afterwards.
    task = await store.read(tasks.get, definition("fine").key)
    assert task is not None
    assert task.damaged == ()
    if column != "task_name":
        assert await store.write(tasks.delete, key) == Deleted(count=1)


@pytest.mark.parametrize("column", ["callback", "payload", "headers", "on_failure"])
async def test_text_that_is_not_utf8_does_not_block_the_calls_of_others(
    store: SqliteStore, path: Path, column: str
) -> None:
    for name in ("a", "broken", "c"):
        await store.write(tasks.put, definition(name), PutCondition.NONE, NOW)
    spoil_text(path, column)
    claims = await store.write(queue.claim, {"sink.example:80": 9}, NOON + 60)
    assert [claim.definition.task_name for claim in claims] == ["a", "c"]
    task = await store.read(tasks.get, definition("broken").key)
    assert task is not None
    assert (task.state, task.reason) == (State.FAILED, Reason.CONNECTION_FAILED)


def test_migration_is_logged_and_can_be_preceded_by_a_copy(path: Path) -> None:
    make_sqlite(path, 5).close()
    with capturedLogs() as captured:
        database = open_store_database(path.name, "", str(path.parent), backs_up=True)
    release(database)
    copy = path.with_name(f"{path.name}.schema-5")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 5
    (line,) = [formatEvent(event) for event in captured]
    assert line == f"{path}: the schema is migrated from 5 to {migrations().newest}"


def test_new_database_is_neither_copied_nor_migrated(path: Path) -> None:
    with capturedLogs() as captured:
        release(open_store_database(path.name, "", str(path.parent), backs_up=True))
    assert captured == []
    assert list(path.parent.glob("*.schema-*")) == []
