"""PostgreSQL under administration and failover: standbys, locks, rights, poolers, clocks."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from callme.core.times import Key
from callme.core.transitions import PutCondition, PutOutcome
from callme.store import queue, tasks
from callme.store.database import Write
from callme.store.interface import CannotOpen, PutResult, StoreUnavailable
from callme.store.postgresql import engine, pool
from callme.store.postgresql.dsn import SCHEMA, Server
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.membership import MAX_CLOCK_DIFFERENCE_SECONDS, ClockWatch
from callme.store.postgresql.pool import AbandonedCommits, Connections
from callme.store.postgresql.setup import open_server
from tests.helpers.postgres import Cluster, PgBouncer, Silence
from tests.helpers.processes import wait_for
from tests.helpers.stores import HOST, NOW, claim_all, put
from tests.helpers.tasks import NOON, definition


@pytest_twisted.async_yield_fixture
async def daemon(server: Server) -> AsyncIterator[PostgresqlStore]:
    daemon = PostgresqlStore(server, reactor, lambda: "a")
    yield daemon
    await daemon.close()


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """A session of the operator."""
    with cluster.connect("contract") as connection:
        yield connection


LOCK_TIMEOUT_SECONDS = 0.3


@pytest.fixture
def short_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    session = pool._SESSION.replace(
        "lock_timeout = '5s'", f"lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"
    )
    assert session != pool._SESSION
    monkeypatch.setattr(pool, "_SESSION", session)


# Standbys


async def test_session_that_became_read_only_is_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WRITERS", 1)
    daemon = PostgresqlStore(server, reactor, lambda: "a")

    def become_read_only(write: Write) -> None:
        write.cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    await daemon.write(become_read_only)
    with pytest.raises(StoreUnavailable, match="read-only transaction"):
        await put(daemon)
    writable = [daemon.is_writable]
    await put(daemon)
    writable.append(daemon.is_writable)
    assert writable == [False, True]
    await daemon.close()


async def test_read_only_server_is_replaced_by_a_writable_one(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    await put(daemon, "before")
    try:
        admin.execute("ALTER DATABASE contract SET default_transaction_read_only = on")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'contract' AND pid <> pg_backend_pid()"
        )
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await put(daemon)
    finally:
        admin.execute("ALTER DATABASE contract RESET default_transaction_read_only")
    await put(daemon, "after")


def sessions_in_wait(admin: psycopg.Connection) -> int:
    counted = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    row = admin.execute(counted).fetchone()
    assert row is not None
    return int(row[0])


async def test_commits_without_a_synchronous_standby_take_one_session(
    server: Server, admin: psycopg.Connection
) -> None:
    abandoned = AbandonedCommits()
    some: Any = {"conninfo": server.conninfo, "reactor": reactor, "clock": reactor}
    one, other = (Connections(**some, size=1, seconds=1, abandoned=abandoned) for _ in range(2))

    def write(connection: psycopg.Connection) -> None:
        connection.execute("INSERT INTO node (name, seen_at_ms, stable_since_ms) VALUES ('', 0, 0)")

    await one.run(write)
    try:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
        admin.execute("SELECT pg_reload_conf()")
        # The server needs a moment to apply the setting.
        failures: list[Failure] = []
        while not failures:
            await one.run(write).addErrback(failures.append)
        assert "no response within 1 s" in failures[0].getErrorMessage()
        for connections in (one, other, one):
            with pytest.raises(StoreUnavailable, match="waits for a synchronous standby"):
                await connections.run(write)
        assert sessions_in_wait(admin) == 1
    finally:
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")
    wait_for(lambda: not sessions_in_wait(admin))
    await one.run(write)
    await other.run(write)
    one.close()
    other.close()


# Locks


@pytest.mark.usefixtures("short_lock_timeout")
async def test_locked_table_fails_all_waiting_writes_together(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    await put(daemon, "before")
    number = 400
    seconds_one_by_one = number * LOCK_TIMEOUT_SECONDS / engine.WRITERS
    with admin.transaction():
        admin.execute(f"LOCK TABLE {SCHEMA}.task".encode())
        began = time.monotonic()
        results: Any = await DeferredList(
            [
                daemon.write(tasks.put, definition(f"n{n}"), PutCondition.NONE, NOW)
                for n in range(number)
            ],
            consumeErrors=True,
        )
        assert time.monotonic() - began < seconds_one_by_one / 3
        assert not daemon.is_writable
    for succeeded, failure in results:
        assert not succeeded
        assert failure.check(StoreUnavailable)
        assert "the table task is locked by the process" in failure.getErrorMessage()
    await put(daemon, "after")
    assert daemon.is_writable


@pytest.mark.usefixtures("short_lock_timeout")
async def test_locked_row_fails_only_its_own_write(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    key = await put(daemon, "locked")
    with admin.transaction():
        admin.execute(f"SELECT FROM {SCHEMA}.task FOR UPDATE".encode())
        deleting = daemon.write(tasks.delete, key)
        other = daemon.write(tasks.put, definition("other"), PutCondition.NONE, NOW)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await deleting
        assert (await other).task is not None
    assert daemon.is_writable


@pytest.mark.usefixtures("short_lock_timeout")
async def test_locked_table_makes_an_idle_daemon_unwritable(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    await daemon.write(queue.take_orphans, NOW)
    with admin.transaction():
        admin.execute(f"LOCK TABLE {SCHEMA}.task".encode())
        with pytest.raises(StoreUnavailable):
            await daemon.write(queue.take_orphans, NOW)
        assert not daemon.is_writable
    await daemon.write(queue.take_orphans, NOW)
    assert daemon.is_writable


# Several transactions in flight


async def test_put_does_not_wait_for_one_that_waits_for_a_lock(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    key = await put(daemon, "blocked")
    await daemon.write(tasks.delete, key)
    with admin.transaction(force_rollback=True):
        admin.execute(
            f"INSERT INTO {SCHEMA}.task (task_name, trigger_at, callback, callback_method, payload,"
            " headers, expected_http_status, retry, retry_delay, max_delay, timeout, host,"
            " expires_at, state, due_at, created_at_ms) VALUES (%s, %s, '', 'GET', '', '{}',"
            " '[200]', 1, '[1]', 9, 30, 'host', 0, 'scheduled', 0, 0)".encode(),
            (key.task_name, key.trigger_at),
        )
        blocked = daemon.write(tasks.put, definition("blocked"), PutCondition.NONE, NOW)
        await deferLater(reactor, 0.01)
        await put(daemon, "other")
        assert not blocked.called
    assert (await blocked).outcome is PutOutcome.CREATED


async def test_concurrent_puts_of_the_same_keys_create_each_once(daemon: PostgresqlStore) -> None:
    def at_once(turn: int) -> list[Deferred[PutResult]]:
        return [
            daemon.write(tasks.put, definition(f"n{n}"), PutCondition.NONE, NOW)
            for n in range(turn % 7, 50)
        ]

    putting: list[Deferred[PutResult]] = []
    for turn in range(40):
        putting += at_once(turn)
        await deferLater(reactor, 0.002)
    outcomes = Counter([(await one).outcome for one in putting])
    assert outcomes == {PutOutcome.CREATED: 50, PutOutcome.UNCHANGED: len(putting) - 50}


async def test_write_that_arrives_after_its_time_limit_is_not_committed(
    cluster: Cluster, server: Server, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WORK_SECONDS", 1)
    monkeypatch.setattr(engine, "WRITERS", 1)
    proxy = Silence(cluster.port)
    conninfo = server.conninfo.replace(str(cluster.port), str(proxy.port))
    daemon = PostgresqlStore(evolve(server, conninfo=conninfo), reactor, lambda: "a")
    await daemon.write(queue.take_orphans, NOW)
    await put(daemon, "before")
    proxy.silent = True
    with pytest.raises(StoreUnavailable, match="no response within 1 s"):
        await put(daemon, "late")
    await deferLater(reactor, 0.2)
    proxy.silent = False
    await put(daemon, "after")
    names = admin.execute(f"SELECT task_name FROM {SCHEMA}.task ORDER BY 1".encode()).fetchall()
    assert names == [("after",), ("before",)]
    await daemon.close()
    proxy.close()


async def test_clock_of_the_database_that_is_set_fails_no_write(daemon: PostgresqlStore) -> None:
    await daemon.write(queue.take_orphans, NOW)
    daemon._database_ahead = -1000.0
    await put(daemon)
    assert daemon.is_writable


# Administration


async def test_renamed_schema_is_unavailable_until_it_is_back(
    daemon: PostgresqlStore, admin: psycopg.Connection
) -> None:
    await put(daemon, "before")
    admin.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO elsewhere".encode())
    try:
        for writing in (put(daemon), daemon.read(tasks.get, Key("before", NOON))):
            with pytest.raises(StoreUnavailable, match="does not exist"):
                await writing
    finally:
        admin.execute(f"ALTER SCHEMA elsewhere RENAME TO {SCHEMA}".encode())
    await put(daemon)


async def test_revoked_rights_are_unavailable_until_they_are_back(
    daemon: PostgresqlStore, server: Server, admin: psycopg.Connection
) -> None:
    admin.execute("CREATE ROLE clerk LOGIN")
    admin.execute(f"GRANT ALL ON SCHEMA {SCHEMA} TO clerk".encode())
    admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO clerk".encode())
    conninfo = psycopg.conninfo.make_conninfo(server.conninfo, user="clerk")
    clerk = PostgresqlStore(evolve(server, conninfo=conninfo), reactor, lambda: "clerk")
    with pytest.raises(StoreUnavailable, match="permission denied"):
        await put(clerk)
    assert not clerk.is_writable
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO clerk".encode())
    await put(clerk)
    await clerk.close()
    admin.execute("DROP OWNED BY clerk")
    admin.execute("DROP ROLE clerk")


# Poolers


def test_pooler_of_transactions_is_refused_and_keeps_no_traces(
    cluster: Cluster, server: Server
) -> None:
    with psycopg.connect(server.conninfo) as direct:
        (began,) = direct.execute("SELECT clock_timestamp()").fetchone() or ()
    pooler = PgBouncer(cluster, "transaction")
    try:
        for _ in range(2):
            with pytest.raises(CannotOpen, match="pool_mode=session") as refused:
                open_server(pooler.url("contract"), "a")
            assert "\n" not in str(refused.value)
        with psycopg.connect(pooler.url("contract"), autocommit=True) as other:
            assert other.execute("SHOW search_path").fetchone() == ('"$user", public',)
            # A store of an earlier test may still be closing: only the pooler's sessions count.
            locks = (
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE locktype = 'advisory' AND backend_start >= %s"
            )
            assert other.execute(locks, (began,)).fetchone() == (0,)
    finally:
        pooler.close()


async def test_pooler_of_sessions_is_supported(cluster: Cluster, server: Server) -> None:
    pooler = PgBouncer(cluster, "session")
    through = evolve(open_server(pooler.url("contract"), "a"), use_client_clock=True)
    daemon = PostgresqlStore(through, reactor, lambda: "a")
    await daemon.write(queue.take_orphans, NOW)
    await put(daemon)
    assert len(await claim_all(daemon)) == 1
    await daemon.close()
    pooler.close()


async def test_heartbeat_in_another_session_is_unavailable(
    daemon: PostgresqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.write(queue.take_orphans, NOW)
    (connection,) = daemon._heartbeats._pool.connections.values()
    monkeypatch.setitem(pool._PIDS, connection, 1)
    with pytest.raises(StoreUnavailable, match="pool_mode=session"):
        await daemon.write(queue.take_orphans, NOW)
    assert not daemon.is_writable


# Claims in doubt


async def test_claims_in_doubt_beyond_the_free_slots_are_given_back(
    daemon: PostgresqlStore,
) -> None:
    await daemon.write(queue.take_orphans, NOW)
    await put(daemon, "in-flight")
    await claim_all(daemon)
    for name in "abc":
        await put(daemon, name)
    transact = daemon._commits._transact

    def lose(operations: Any) -> Any:
        daemon._commits._transact = transact
        return transact(operations).addCallback(lambda _: daemon_is_lost())

    def daemon_is_lost() -> None:
        raise StoreUnavailable("lost")

    daemon._commits._transact = lose
    with pytest.raises(StoreUnavailable, match="lost"):
        await claim_all(daemon)
    (first,) = await claim_all(daemon, 1)
    rest = await daemon.write(queue.claim, {HOST: 9}, NOW)
    assert {claim.definition.task_name for claim in (first, *rest)} == set("abc")
    assert {(claim.number, claim.attempts_used) for claim in (first, *rest)} == {(1, 1)}


async def test_giving_up_work_on_a_connection_that_ended_raises_nothing(server: Server) -> None:
    work = pool._Work(1, AbandonedCommits())
    connection = psycopg.connect(server.conninfo)
    pool._PIDS[connection] = 1

    class Ended:
        """A connection that ends between the check and the use of its descriptor."""

        closed = False

        def fileno(self) -> int:
            raise psycopg.OperationalError("the connection is lost")

    connection.close()
    ended: Any = Ended()
    pool._PIDS[ended] = 1
    work._connection = ended
    work.cancel()


# Clocks


async def test_clock_that_differs_from_the_databases_is_logged_once_a_minute(
    server: Server,
) -> None:
    daemon = PostgresqlStore(evolve(server, use_client_clock=False), reactor, lambda: "a")
    now = time.time()
    with capturedLogs() as captured:
        await daemon.write(queue.take_orphans, now)
        assert captured == []
        for seconds in (900, 905, -900):
            await daemon.write(queue.take_orphans, now + seconds)
    ahead, behind = (event["log_format"].format(**event) for event in captured)
    # A busy machine takes its time.
    assert re.search(r"this daemon's clock is (900|8\d\d)\.\d s ahead of the database's", ahead)
    assert re.search(r"this daemon's clock is (9|8)\d\d\.\d s behind the database's", behind)
    await daemon.close()


@pytest.mark.parametrize(
    ("sent_at", "count"), [(102.1, 1), (102, 0), (101.9, 0), (88.1, 0), (88, 0), (87.9, 1)]
)
def test_clock_difference_allows_for_the_duration_of_the_request(
    sent_at: float, count: int
) -> None:
    with capturedLogs() as captured:
        ClockWatch().compare(sent_at=sent_at, duration_seconds=10, database_ms=100_000)
    assert len(captured) == count


def test_different_clocks_are_logged_once_a_minute() -> None:
    watch = ClockWatch()

    def warnings(sent_at: float) -> int:
        with capturedLogs() as captured:
            ahead = MAX_CLOCK_DIFFERENCE_SECONDS + 1
            watch.compare(
                sent_at=sent_at, duration_seconds=0, database_ms=1000 * int(sent_at - ahead)
            )
        return len(captured)

    assert [warnings(sent_at) for sent_at in (1000, 1059, 1060, 1100, 1120)] == [1, 0, 1, 0, 1]
    # The daemon's clock was set back.
    assert warnings(900) == 1
