"""PostgreSQL only: several daemons, membership, lost connections, the schema."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater

from callme.api.long_poll import LongPoll
from callme.core.parameters import PARAMETERS
from callme.core.task import Claim, Outcome, Reason, State, Task
from callme.core.times import Key, floor_to_minute
from callme.core.transitions import PutCondition, PutOutcome, decide_after_attempt, interrupted
from callme.reports import failures
from callme.store import queue, tasks
from callme.store.database import Write
from callme.store.interface import HEARTBEAT_SECONDS, CannotOpen, PutResult, StoreUnavailable
from callme.store.postgresql import (
    cursor,
    engine,
    membership,
    pool,
    setup,
)
from callme.store.postgresql import queue as postgresql_queue
from callme.store.postgresql.dsn import SCHEMA, Server
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.pool import Connections
from callme.store.postgresql.setup import PEER_TIMEOUT_SECONDS, migrations, open_server
from tests.helpers.postgres import Cluster, Silence
from tests.helpers.processes import free_port, wait_for
from tests.helpers.schemas import make_postgresql, with_more
from tests.helpers.tasks import NOON, definition

HOST = "sink.example:80"
NOW = NOON + 0.5


@pytest_twisted.async_yield_fixture
async def daemons(server: Server) -> AsyncIterator[Callable[[str], PostgresqlStore]]:
    """Create stores on one database, one for each daemon."""
    made: list[PostgresqlStore] = []

    def make(name: str, at: Server = server) -> PostgresqlStore:
        made.append(PostgresqlStore(at, reactor, lambda: name))
        return made[-1]

    yield make
    for one in made:
        if one._heartbeats._pool.running:
            await one.close()


async def alive(daemon: PostgresqlStore, *times: float) -> list[Claim]:
    """Send heartbeats of a daemon at some times; return the claims rescued by the last one."""
    taken: list[Claim] = []
    for at in times:
        taken = list(await daemon.write(queue.take_orphans, at))
    return taken


def steadily(begin: float, end: float) -> list[float]:
    return [begin + 5 * n for n in range(int((end - begin) / 5) + 1)]


async def put(daemon: PostgresqlStore, name: str = "task", **more: Any) -> None:
    assert (
        PutOutcome.CREATED
        is (await daemon.write(tasks.put, definition(name, **more), PutCondition.NONE, NOW)).outcome
    )


async def finish(daemon: PostgresqlStore, claim: Claim, status: int, now: float = NOW) -> bool:
    outcome = Outcome(started_at_ms=int(now * 1000), duration_ms=5, status=status)
    return await daemon.write(queue.record, claim, decide_after_attempt(claim, outcome, now), now)


# Several daemons


async def test_concurrent_claims_share_the_due_tasks(daemons: Any) -> None:
    three = [daemons(name) for name in "abc"]
    for one in three:
        await alive(one, NOW)
    await three[0].write(tasks.put_many, [definition(f"n{n}") for n in range(300)], NOW)
    claiming = [one.write(queue.claim, {HOST: 60}, NOW) for _ in range(2) for one in three]
    found = [claim for taken in await gatherResults(claiming) for claim in taken]
    assert len({claim.task_id for claim in found}) == len(found) == 300
    assert {claim.node for claim in found} == {"a", "b", "c"}


async def test_concurrent_puts_of_the_same_tasks_do_not_deadlock(
    daemons: Any, cluster: Cluster
) -> None:
    def deadlocks() -> Any:
        counted = b"SELECT deadlocks FROM pg_stat_database WHERE datname = 'contract'"
        with cluster.connect() as connection:
            return connection.execute(counted).fetchone()

    before = deadlocks()
    a, b = daemons("a"), daemons("b")
    definitions = [definition(f"n{n}") for n in range(400)]
    results = await gatherResults(
        [
            one.write(tasks.put_many, some, NOW)
            for _ in range(5)
            for one, some in ((a, definitions), (b, definitions[::-1]))
        ]
    )
    assert sum(one.outcome is PutOutcome.CREATED for some in results for one in some) == 400
    assert deadlocks() == before


class Meanwhile:
    """A cursor that runs another daemon's operation before one of its statements."""

    def __init__(self, cursor: Any, before: str, act: Callable[[], object]) -> None:
        self._cursor = cursor
        self._before = before
        self._act = act

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == self._before:
            self._before = ""
            self._act()
        return self._cursor.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


async def put_while(
    daemon: PostgresqlStore, before: str, other: str, payload: str, condition: PutCondition
) -> PutResult:
    """Put a task while another connection changes it; a blocked statement times out soon."""

    def act() -> None:
        with psycopg.connect(daemon._server.conninfo) as connection:
            connection.execute("SET lock_timeout = '50ms'")
            connection.execute(other.encode())

    def work(write: Write) -> PutResult:
        watched: Any = Meanwhile(write.cursor, before, act)
        made = definition(payload=payload)
        return tasks.put(evolve(write, cursor=watched), made, condition, NOW)

    return await daemon.write(work)


@pytest.mark.parametrize("payload", ["", "other"])
@pytest.mark.parametrize(
    "other",
    [
        f"UPDATE {SCHEMA}.task SET state = 'running', due_at = NULL",
        f"DELETE FROM {SCHEMA}.task",
    ],
)
async def test_task_being_replaced_is_not_claimed(daemons: Any, other: str, payload: str) -> None:
    daemon = daemons("a")
    await put(daemon)
    before = tasks._REPLACE if payload else tasks._ATTEMPTS
    with pytest.raises(StoreUnavailable, match="lock timeout"):
        await put_while(daemon, before, other, payload, PutCondition.MUST_EXIST)


async def test_put_during_a_concurrent_delete_creates_the_task(daemons: Any) -> None:
    daemon = daemons("a")
    await put(daemon)
    gone = f"DELETE FROM {SCHEMA}.task"
    result = await put_while(daemon, tasks._LOCK, gone, "other", PutCondition.NONE)
    assert result.outcome is PutOutcome.CREATED
    task = await daemon.read(tasks.get, definition().key)
    assert task is not None
    assert task.definition.payload == "other"


async def test_claim_uses_the_later_of_server_and_client_time(daemons: Any, server: Server) -> None:
    daemon = daemons("a", evolve(server, use_client_clock=False))
    now = time.time()
    this = floor_to_minute(now)
    for name, at in (("due", this), ("later", this + 120)):
        await daemon.write(tasks.put, definition(name, at), PutCondition.NONE, now)
    await alive(daemon, now)
    assert list(await daemon.read(queue.hosts_with_due_tasks, 0)) == [HOST]
    assert list(await daemon.write(queue.claim, {HOST: 9}, this - 1)) == []
    (claim,) = await daemon.write(queue.claim, {HOST: 9}, this + 600)
    assert claim.definition.task_name == "due"
    assert abs(claim.claimed_at_ms / 1000 - time.time()) < 5
    assert (await daemon.write(queue.expire_overdue, this + 600)).hosts == []
    assert await daemon.read(queue.backlog, this + 600) == 0


# Membership


async def test_corrupt_orphan_fails_at_rescue(daemons: Any, cluster: Cluster) -> None:
    dead, b = daemons("dead"), daemons("b")
    await put(dead)
    await alive(dead, NOW)
    await dead.write(queue.claim, {HOST: 1}, NOW)
    with cluster.connect("contract") as other:
        other.execute(f"UPDATE {SCHEMA}.task SET headers = '['".encode())
    assert await alive(b, *steadily(NOW, NOW + 40)) == []
    task = await b.read(tasks.get, definition().key)
    assert task is not None
    assert task.state is State.FAILED
    # In 1970 it would be purged at once.
    assert task.finished_at_ms is not None
    assert 0 <= task.finished_at_ms - int(NOW * 1000) <= 40_000


async def test_claims_of_a_dead_daemon_are_rescued_once(daemons: Any) -> None:
    dead, b, c = daemons("dead"), daemons("b"), daemons("c")
    await put(dead, retry=1)
    await alive(dead, NOW)
    (claim,) = await dead.write(queue.claim, {HOST: 1}, NOW)
    for one in (b, c):
        assert await alive(one, *steadily(NOW, NOW + PEER_TIMEOUT_SECONDS)) == []
    (taken,) = await alive(b, NOW + PEER_TIMEOUT_SECONDS + 5)
    assert await alive(c, NOW + PEER_TIMEOUT_SECONDS + 5) == []
    assert (taken.task_id, taken.number, taken.node) == (claim.task_id, 1, "dead")
    # A late record of the dead daemon is rejected; that of the rescuer is stored.
    assert not await finish(dead, claim, 200)
    assert await b.write(
        queue.record, taken, decide_after_attempt(taken, interrupted(taken), NOW + 36), NOW + 36
    )
    assert not await finish(dead, claim, 200)
    (again,) = await c.write(queue.claim, {HOST: 1}, NOW + 120)
    assert not await finish(dead, claim, 200)
    assert await finish(c, again, 200, NOW + 120)
    task = await c.read(tasks.get, definition().key)
    assert task is not None
    assert [(a.node, a.reason) for a in task.attempts or ()] == [
        ("dead", Reason.INTERRUPTED),
        ("c", None),
    ]


async def test_daemon_without_heartbeat_claims_nothing(
    daemons: Any,
) -> None:
    frozen, b = daemons("frozen"), daemons("b")
    for name in ("one", "two", "three"):
        await put(frozen, name)
    await alive(frozen, NOW)
    assert len(await frozen.write(queue.claim, {HOST: 1}, NOW)) == 1
    assert len(await alive(b, *steadily(NOW, NOW + PEER_TIMEOUT_SECONDS + 5))) == 1
    assert list(await frozen.write(queue.claim, {HOST: 1}, NOW + 40)) == []
    await alive(frozen, NOW + 40)
    assert len(await frozen.write(queue.claim, {HOST: 1}, NOW + 40)) == 1


async def test_late_daemon_keeps_claims_that_were_not_rescued(daemons: Any) -> None:
    frozen = daemons("frozen")
    await put(frozen)
    await alive(frozen, NOW)
    (claim,) = await frozen.write(queue.claim, {HOST: 1}, NOW)
    with psycopg.connect(frozen._server.conninfo) as other:
        other.execute(f"DELETE FROM {SCHEMA}.node".encode())
    assert await alive(frozen, NOW + 50) == []
    assert await finish(frozen, claim, 200)


async def waiting_for(
    waits: LongPoll, daemon: PostgresqlStore, keys: Sequence[Key]
) -> list[Deferred[Task | None]]:
    """Start long polls for tasks; return after the first query of each."""
    looked: list[Key] = []

    def getting(key: Key) -> Deferred[Task | None]:
        def read(task: Task | None) -> Task | None:
            looked.append(key)
            return task

        reading = daemon._read(lambda cursor: tasks.get(cursor, key))
        return reading.addCallback(read)

    daemon.overrides[tasks.get] = getting
    waiting = [Deferred.fromCoroutine(waits.wait(key, 60)) for key in keys]
    for one in waiting:
        # The test's own clock: only its operations wake a long poll.
        one.addTimeout(30, reactor)
    while len(looked) < len(keys):
        await deferLater(reactor, 0.01)
    return waiting


async def test_long_poll_notices_changes_by_another_daemon(daemons: Any) -> None:
    here, there = daemons("here"), daemons("there")
    await alive(there, NOW)
    names = ["a", "b", "c", "d"]
    keys = [Key(name, NOON) for name in names]
    for name in names:
        await put(here, name, retry=int(name == "b"))
    clock = Clock()
    waits = LongPoll(store=here, clock=clock, is_shared=True)
    looks: list[int] = []
    get_if_modified = here.overrides[tasks.get_if_modified]

    def counted(known: Any, limit: int) -> Any:
        looks.append(len(known))
        return get_if_modified(known, limit)

    here.overrides[tasks.get_if_modified] = counted

    async def look(waiting: Sequence[Deferred[Task | None]]) -> list[Task | None]:
        assert not any(one.called for one in waiting)
        clock.advance(1)
        clock.advance(0)
        return list(await gatherResults(waiting))

    waiting = await waiting_for(waits, here, keys)
    claims = {
        claim.definition.task_name: claim
        for claim in await there.write(queue.claim, {HOST: 9}, NOW)
    }
    found = await look(waiting)
    assert [task and task.state for task in found] == [State.RUNNING] * 4
    waiting = await waiting_for(waits, here, keys)
    await finish(there, claims["a"], 200)
    await finish(there, claims["b"], 500)
    await there.write(
        queue.record,
        claims["c"],
        decide_after_attempt(claims["c"], interrupted(claims["c"]), NOW),
        NOW,
    )
    await finish(there, claims["d"], 500)
    await there.write(tasks.delete, keys[3])
    found = await look(waiting)
    ends = [(task.state, task.reason) if task else None for task in found]
    assert ends == [
        (State.SUCCEEDED, None),
        (State.SCHEDULED, None),
        (State.FAILED, Reason.INTERRUPTED),
        None,
    ]
    waiting = await waiting_for(waits, here, keys[1:2])
    await there.write(queue.expire_overdue, NOON + 86_400 * 366)
    (late,) = await look(waiting)
    assert late is not None
    assert late.reason is Reason.TOO_LATE
    # There is one statement a second for all long polls.
    assert looks == [4, 4, 1]
    assert clock.getDelayedCalls() == []


async def test_rescue_notifies_and_ends_long_polls(daemons: Any) -> None:
    dead, here = daemons("dead"), daemons("here")
    await put(dead, retry=0, on_failure="http://told.example/")
    await alive(dead, NOW)
    await dead.write(queue.claim, {HOST: 1}, NOW)
    clock = Clock()
    waits = LongPoll(store=here, clock=clock)
    (waiting,) = await waiting_for(waits, here, [Key("task", NOON)])
    later = NOW + PEER_TIMEOUT_SECONDS + 5
    (taken,) = await alive(here, *steadily(NOW, later))
    transition = decide_after_attempt(taken, interrupted(taken), later)
    here.changes.subscribe(waits.on_changes)
    assert await here.write(queue.record, taken, transition, later)
    clock.advance(0)
    task = await waiting
    assert task is not None
    assert task.reason is Reason.INTERRUPTED
    notice = await here.read(tasks.get, Key(f"task.{NOON}.on_failure", floor_to_minute(later)))
    assert notice is not None
    assert json.loads(notice.definition.payload)["reason"] == "interrupted"


async def test_corrupt_orphan_is_notified_at_its_end(daemons: Any, cluster: Cluster) -> None:
    dead, here = daemons("dead"), daemons("here")
    await put(dead, on_failure="http://told.example/")
    await alive(dead, NOW)
    await dead.write(queue.claim, {HOST: 1}, NOW)
    with cluster.connect("contract") as other:
        other.execute(f"UPDATE {SCHEMA}.task SET headers = '['".encode())
        # The notification cannot be stored, so the end is not committed either.
        refuse = (
            f"ALTER TABLE {SCHEMA}.task ADD CONSTRAINT told CHECK (callback !~ 'told') NOT VALID"
        )
        other.execute(refuse.encode())
        with pytest.raises(psycopg.errors.CheckViolation):
            await alive(here, *steadily(NOW, NOW + PEER_TIMEOUT_SECONDS + 5))
        assert state_in(other) == ["running"]
        other.execute(f"ALTER TABLE {SCHEMA}.task DROP CONSTRAINT told".encode())
    # The claim belongs to the new daemon by now, and its lease ends.
    assert await alive(here, NOW + 300) == []
    page = await here.read(tasks.list_page)
    assert page is not None
    assert [(task.definition.callback, task.state) for task in page.tasks] == [
        ("http://sink.example/", State.FAILED),
        ("http://told.example/", State.SCHEDULED),
    ]


def state_in(connection: psycopg.Connection) -> list[str]:
    states = connection.execute(f"SELECT state FROM {SCHEMA}.task".encode())
    return [state for (state,) in states]


async def test_outage_does_not_declare_daemons_dead(daemons: Any) -> None:
    a, b = daemons("a"), daemons("b")
    await put(a)
    await alive(a, NOW)
    await alive(b, *steadily(NOW, NOW + 60))
    await alive(a, *steadily(NOW, NOW + 60))
    (claim,) = await a.write(queue.claim, {HOST: 1}, NOW + 60)
    # The database is away for an hour; b is the first to be back.
    back = NOW + 3660
    assert await alive(b, back, back + 5) == []
    await alive(a, back + 6)
    assert await alive(b, *steadily(back + 10, back + 35)) == []
    assert await finish(a, claim, 200)


async def test_restarted_daemon_rescues_its_own_claims_at_once(daemons: Any) -> None:
    killed = daemons("name")
    await put(killed)
    await alive(killed, NOW)
    await killed.write(queue.claim, {HOST: 1}, NOW)
    for connection in (killed._heartbeats, killed._writer):
        connection.close()
    again = daemons("name")
    # The server needs a moment to see that the connection is gone.
    for _ in range(3000):
        taken = await alive(again, NOW + 1)
        if taken:
            break
        again._own_member = None
        await deferLater(reactor, 0.01)
    assert [claim.node for claim in taken] == ["name"]


async def test_claims_of_a_stopped_daemon_are_free_at_once(daemons: Any) -> None:
    a, b = daemons("a"), daemons("b")
    await put(a)
    await alive(a, NOW)
    await alive(b, NOW)
    await a.write(queue.claim, {HOST: 1}, NOW)
    await a.close()
    assert len(await alive(b, NOW + 1)) == 1


async def test_node_name_in_use_is_refused(daemons: Any, server: Server) -> None:
    a = daemons("a", evolve(server, use_client_clock=False))
    await alive(a, NOW)
    with pytest.raises(CannotOpen, match="another callme daemon named a uses postgresql://callme@"):
        open_server(server.conninfo, "a")
    open_server(server.conninfo, "b").release()
    await a.close()
    # The server needs a moment to see that connections are gone.
    wait_for(lambda: _opens(server, "a"))


async def test_concurrent_starts_with_one_node_name_admit_one(daemons: Any, server: Server) -> None:
    first = open_server(server.conninfo, "a")
    with pytest.raises(CannotOpen, match="another callme daemon named a uses postgresql://callme@"):
        open_server(server.conninfo, "a")
    other = open_server(server.conninfo, "b")
    other.release()
    a = daemons("a", first)
    await alive(a, NOW)
    assert first.name_lock.closed, "one connection less, now that it lives"
    with pytest.raises(CannotOpen, match="give this one another --node"):
        open_server(server.conninfo, "a")


def test_crash_during_start_frees_the_node_name(server: Server) -> None:
    open_server(server.conninfo, "a").release()
    wait_for(lambda: _opens(server, "a"))


def _opens(server: Server, name: str) -> bool:
    try:
        open_server(server.conninfo, name).release()
    except CannotOpen:
        return False
    return True


# Lost responses


def losing(daemon: PostgresqlStore) -> None:
    """Let the next transaction be committed and its response be lost."""
    transact = daemon._commits._transact

    def lose(run: Any) -> Deferred[Any]:
        daemon._commits._transact = transact

        def lost(_: object) -> None:
            raise StoreUnavailable("lost")

        return transact(run).addCallback(lost)

    daemon._commits._transact = lose


async def test_claim_with_lost_response_is_recovered(daemons: Any) -> None:
    daemon = daemons("a")
    for name in ("one", "two"):
        await put(daemon, name)
    await alive(daemon, NOW)
    losing(daemon)
    with pytest.raises(StoreUnavailable):
        await daemon.write(queue.claim, {HOST: 1}, NOW)
    assert list(await daemon.read(queue.hosts_with_due_tasks, NOW - 100)) == [HOST]
    (claim,) = await daemon.write(queue.claim, {HOST: 9}, NOW)
    assert (claim.definition.task_name, claim.attempts_used) == ("one", 1)
    (other,) = await daemon.write(queue.claim, {HOST: 9}, NOW)
    assert other.definition.task_name == "two"
    assert await finish(daemon, claim, 200)


async def test_record_with_lost_response_counts_as_stored(daemons: Any) -> None:
    daemon = daemons("a")
    await put(daemon)
    await alive(daemon, NOW)
    (claim,) = await daemon.write(queue.claim, {HOST: 1}, NOW)
    losing(daemon)
    with pytest.raises(StoreUnavailable):
        await finish(daemon, claim, 200)
    assert await finish(daemon, claim, 200)
    assert not await finish(daemon, claim, 500)


# Lost and hanging connections


async def test_connection_closed_while_idle_is_replaced_silently(
    daemons: Any, cluster: Cluster
) -> None:
    daemon = daemons("a")
    await put(daemon, "before")
    await daemon.read(tasks.get, definition().key)
    with cluster.connect() as other:
        others = "FROM pg_stat_activity WHERE datname = 'contract' AND application_name = 'callme'"
        other.execute(f"SELECT pg_terminate_backend(pid) {others}".encode())
    pools = [one._pool for one in (daemon._writer, daemon._readers)]
    used = [connection for one in pools for connection in one.connections.values()]
    # The last message of the server arrives before the end of the connection.
    wait_for(lambda: all(map(pool._is_closed, used)))
    await put(daemon, "after")
    assert await daemon.read(tasks.get, definition("after").key) is not None


async def test_connection_lost_during_use_is_reported_and_replaced(
    daemons: Any, server: Server
) -> None:
    daemon = daemons("a")

    def die(write: Write) -> None:
        write.cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(StoreUnavailable, match="terminat"):
        await daemon.write(die)
    await put(daemon)


async def test_heartbeat_restores_health_of_an_idle_daemon(
    daemons: Any,
) -> None:
    daemon = daemons("a")

    def die(write: Write) -> None:
        write.cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    await alive(daemon, NOW)
    with pytest.raises(StoreUnavailable, match="terminat"):
        await daemon.write(die)
    assert not daemon.is_writable
    await alive(daemon, NOW + 5)
    assert daemon.is_writable


async def test_slow_write_does_not_fail_its_batch(daemons: Any) -> None:
    daemon = daemons("a")

    def take_long(write: Write) -> None:
        cursor = write.cursor
        cursor.execute("SET LOCAL statement_timeout = '50ms'")
        cursor.execute("SELECT pg_sleep(5)").fetchone()

    long = daemon.write(take_long)
    neighbour = Deferred.fromCoroutine(put(daemon))
    with pytest.raises(StoreUnavailable, match="canceling statement due to statement timeout"):
        await long
    await neighbour
    assert await daemon.read(tasks.get, definition().key) is not None


async def test_silent_server_times_out(cluster: Cluster) -> None:
    proxy = Silence(cluster.port)
    url = cluster.url("contract").replace(str(cluster.port), str(proxy.port))
    one = Connections(conninfo=url, size=1, seconds=1, reactor=reactor, clock=reactor)

    def ask(connection: psycopg.Connection) -> Any:
        return connection.execute("SELECT 1").fetchone()

    assert await one.run(ask) == (1,)
    proxy.silent = True
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no response within 1 s"):
        await one.run(ask)
    assert time.monotonic() - began < 5
    proxy.silent = False
    assert await one.run(ask) == (1,)
    one.close()
    proxy.close()


async def test_network_timeouts_are_within_thirty_seconds(daemons: Any) -> None:
    assert engine.WORK_SECONDS < 30
    # A disconnected daemon must be back before its peers declare it dead.
    assert engine.HEARTBEAT_WORK_SECONDS + HEARTBEAT_SECONDS + 5 < PEER_TIMEOUT_SECONDS
    daemon = daemons("a")

    def settings(write: Write) -> dict[str, str]:
        cursor = write.cursor
        names = [
            "synchronous_commit",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "tcp_keepalives_idle",
            "tcp_user_timeout",
            "search_path",
        ]
        return {name: cursor.execute(f"SHOW {name}").fetchone()[0] for name in names}

    # The server of the tests has synchronous_commit off.
    assert await daemon.write(settings) == {
        "synchronous_commit": "on",
        "statement_timeout": "20s",
        "idle_in_transaction_session_timeout": "20s",
        "tcp_keepalives_idle": "5",
        "tcp_user_timeout": "10000",
        "search_path": SCHEMA,
    }
    info: Any = await daemon._writer.run(lambda connection: connection.info.get_parameters())
    assert (info["tcp_user_timeout"], info["keepalives_idle"]) == ("10000", "5")


# Isolation of rows and statements


async def test_corrupt_row_does_not_block_others(daemons: Any) -> None:
    daemon = daemons("a")
    await alive(daemon, NOW)
    for name in ("a", "broken", "c", "late"):
        await put(daemon, name, **({"max_delay": 1} if name == "late" else {}))
    with psycopg.connect(daemon._server.conninfo) as other:
        broken = "SET headers = '{' WHERE task_name IN ('broken', 'late')"
        other.execute(f"UPDATE {SCHEMA}.task {broken}".encode())
    found = await daemon.write(queue.claim, {HOST: 9}, NOON + 60)
    assert [claim.definition.task_name for claim in found] == ["a", "c"]
    await daemon.write(queue.expire_overdue, NOON + 60)
    for name in ("broken", "late"):
        task = await daemon.read(tasks.get, definition(name).key)
        assert task is not None
        assert (task.state, task.reason) == (State.FAILED, Reason.CONNECTION_FAILED)


async def test_failing_or_slow_write_does_not_fail_others(
    daemons: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = daemons("a")
    await alive(daemon, NOW)
    for name in ("a", "b"):
        await put(daemon, name)
    one, other = await daemon.write(queue.claim, {HOST: 2}, NOW)

    def slow(write: Write) -> None:
        cursor = write.cursor
        cursor.execute("SET LOCAL statement_timeout = 10")
        cursor.execute("SELECT pg_sleep(5)")

    # A lone surrogate cannot be stored.
    bad = decide_after_attempt(
        one, Outcome(started_at_ms=NOON * 1000, duration_ms=5, status=200, body="\ud800"), NOW
    )
    results = [
        daemon.write(queue.record, one, bad, NOW),
        finish(daemon, other, 200),
        daemon.write(slow),
        daemon.write(tasks.put, definition("c"), PutCondition.NONE, NOW),
    ]
    with pytest.raises(UnicodeEncodeError):
        await results[0]
    assert await results[1]
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        await results[2]
    assert (await results[3]).outcome is PutOutcome.CREATED


async def test_database_error_contains_no_row_data(daemons: Any) -> None:
    """PostgreSQL's own message quotes the whole row that violates a constraint."""
    a = daemons("a")
    broken = definition(payload="canary", headers={"X": "canary"})._replace(trigger_at=NOON + 1)
    for writing in (
        a.write(tasks.put, broken, PutCondition.NONE, NOW),
        a.write(tasks.put_many, [broken], NOW),
    ):
        with pytest.raises(psycopg.IntegrityError) as refused:
            await writing
        told = "".join(traceback.format_exception(refused.value))
        assert "task_trigger_at_check" in told
        assert "canary" not in told
        assert b"canary".hex() not in told


async def test_nul_in_a_response_is_stored(daemons: Any) -> None:
    daemon = daemons("a")
    await put(daemon)
    await alive(daemon, NOW)
    (claim,) = await daemon.write(queue.claim, {HOST: 1}, NOW)
    outcome = Outcome(
        started_at_ms=NOON * 1000,
        duration_ms=5,
        status=None,
        reason=Reason.CONNECTION_FAILED,
        detail="a\0b",
        body="\0 \U0001f600",
    )
    assert await daemon.write(queue.record, claim, decide_after_attempt(claim, outcome, NOW), NOW)
    task = await daemon.read(tasks.get, definition().key)
    assert task is not None
    assert task.attempts is not None
    (attempt,) = task.attempts
    assert (attempt.detail, attempt.body) == ("a\ufffdb", "\0 \U0001f600")


# Schema


def test_concurrent_starts_migrate_once(cluster: Cluster) -> None:
    url = cluster.create("at_once")
    found: list[Any] = []
    starting = [threading.Thread(target=lambda: found.append(open_server(url))) for _ in range(4)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len(found) == 4
    with cluster.connect("at_once") as connection:
        rows = connection.execute(f"SELECT number FROM {SCHEMA}.migration".encode()).fetchall()
    assert [number for (number,) in rows] == list(migrations().numbered)


def test_failed_migration_leaves_the_schema_unchanged(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.create("fails")
    bad = with_more(migrations(), "CREATE TABLE half (x int);", "CREATE TABLE task (x int);")
    monkeypatch.setattr(setup, "migrations", lambda: bad)
    with pytest.raises(CannotOpen, match='relation "task" already exists') as refused:
        open_server(url)
    assert "\n" not in str(refused.value)
    with cluster.connect("fails") as connection:
        assert setup.schema_version(connection) == 0
    monkeypatch.undo()
    open_server(url)


SHAPE = """
    SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'callme'
    UNION ALL
    SELECT indexname, regexp_replace(indexdef, '.* USING', '') FROM pg_indexes
    WHERE schemaname = 'callme'
    ORDER BY 1, 2
"""


async def test_database_of_the_schema_before_the_baseline_is_upgraded(
    cluster: Cluster, daemons: Any
) -> None:
    url = cluster.create("before_baseline")
    with cluster.connect("before_baseline") as connection:
        make_postgresql(connection, 4)
        connection.execute(
            b"INSERT INTO task (task_name, trigger_at, callback, callback_method, payload, headers,"
            b" expected_http_status, retry, retry_delay, max_delay, timeout, on_failure, host,"
            b" expires_at, state, reason, attempts_used, last_attempt, claimed_at, created_at,"
            b" finished_at) VALUES ('task', 60, 'http://a/', 'GET', 'p', '{}', '[200]', 1, '[1]',"
            b" 10, 30, 'http://b/', 'a:80', 660, 'failed', 'timeout', 1, 1, 61001, 1, 62002)"
        )
        connection.execute(
            b"INSERT INTO attempt VALUES (1, 1, 61002, 1002, 1000, NULL, 'timeout', 'd', 'b', 'n')"
        )
    task = await daemons("a", open_server(url)).read(tasks.get, Key("task", 60))
    assert task is not None
    assert (task.definition.payload, task.definition.on_failure) == ("p", "http://b/")
    assert (task.state, task.created_at_ms, task.finished_at_ms) == (State.FAILED, 1, 62002)
    assert [(one.started_at_ms, one.node) for one in task.attempts or ()] == [(61002, "n")]
    open_server(cluster.create("of_baseline"))
    with cluster.connect("before_baseline") as old, cluster.connect("of_baseline") as new:
        assert old.execute(SHAPE.encode()).fetchall() == new.execute(SHAPE.encode()).fetchall()


def test_database_of_an_older_schema_is_refused_in_one_line(cluster: Cluster) -> None:
    url = cluster.create("older")
    with cluster.connect("older") as connection:
        make_postgresql(connection, 3)
    with pytest.raises(CannotOpen, match="has schema 3, from an older callme") as refused:
        open_server(url)
    assert "\n" not in str(refused.value)


def test_newer_schema_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    url = cluster.create("newer")
    with monkeypatch.context() as patch:
        more = with_more(migrations(), "ALTER TABLE task ADD COLUMN colour TEXT;")
        patch.setattr(setup, "migrations", lambda: more)
        open_server(url)
    with pytest.raises(CannotOpen, match="from a newer callme; this one knows schemas up to"):
        open_server(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:hunter2@127.0.0.1:{free}/db", "Connection refused"),
        ("postgresql://callme:hunter2@127.0.0.1:{port}/nowhere", 'database "nowhere" does not'),
        ("postgresql://me:hunter2@h/db?colour=red", "not a URL that PostgreSQL knows"),
        ("postgresql://callme:hunter2@127.0.0.1:{port}/latin", "encoding is LATIN1, not UTF8"),
    ],
)
def test_unusable_database_is_a_one_line_error(cluster: Cluster, url: str, message: str) -> None:
    with cluster.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS latin")
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(CannotOpen, match=message) as refused:
        open_server(url.format(free=free_port(), port=cluster.port))
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_old_server_version_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "MIN_SERVER_VERSION", 990_000)
    with pytest.raises(CannotOpen, match="or newer is needed"):
        open_server(server.conninfo)


def test_password_is_not_displayed(server: Server) -> None:
    assert "conninfo" not in repr(server)


@pytest.fixture(params=["no statistics", "none was ever scheduled", "none was scheduled lately"])
def filled(
    cluster: Cluster, server: Server, request: pytest.FixtureRequest
) -> Iterator[psycopg.Connection]:
    """A database of 20,000 tasks, 200 of them due and 100 running, with various statistics."""
    columns = (
        "task_name, trigger_at, callback, callback_method, payload, headers, expected_http_status, "
        "retry, retry_delay, max_delay, timeout, host, expires_at, state, due_at, holder, "
        "lease_until, created_at_ms, finished_at_ms"
    )
    with cluster.connect("contract") as connection:
        connection.execute(f"SET search_path = {SCHEMA}".encode())
        connection.execute((pool._SESSION % 20).encode())
        # Only this fixture gathers statistics, and removes those of other tests.
        connection.execute(b"ALTER TABLE task SET (autovacuum_enabled = off)")
        connection.execute(b"DELETE FROM pg_statistic WHERE starelid = 'task'::regclass")
        if request.param == "none was ever scheduled":
            connection.execute(
                f"INSERT INTO task ({columns}) SELECT 'n' || n, {NOON}, '', 'GET', '', '{{}}', "
                f"'[200]', 1, '[1]', 9, 30, 'host', {NOON}, 'succeeded', NULL, NULL, NULL, 0, n "
                "FROM generate_series(1, 3) AS n".encode()
            )
            connection.execute(b"ANALYZE task")
            connection.execute(b"TRUNCATE task")
        for state, count, at, due, holder, finished in (
            ("running", 100, 2 * NOON, "NULL::bigint", "7", "NULL::bigint"),
            ("succeeded", 5000, 3 * NOON, "NULL::bigint", "NULL::bigint", "n * 1000"),
            ("scheduled", 200, 0, "60 * n", "NULL::bigint", "NULL::bigint"),
            ("scheduled", 20_000, NOON, f"{NOON} + 60 * n", "NULL::bigint", "NULL::bigint"),
        ):
            if not at and request.param == "none was scheduled lately":
                connection.execute(b"VACUUM ANALYZE task")
            connection.execute(
                f"INSERT INTO task ({columns}) SELECT 'n' || n, {at} + 60 * n::bigint, '', 'GET', "
                "'', '{}', '[200]', 1, '[1]', 9, 30, 'host' || n % 20, "
                f"{at} + 60 * n::bigint + 1000000000, '{state}', {due}, {holder}, {holder}, 0, "
                f"{finished} FROM generate_series(1, {count}) AS n".encode()
            )
        yield connection
        connection.execute(b"ALTER TABLE task RESET (autovacuum_enabled)")


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (
            postgresql_queue._CLAIM,
            {
                "ms": 1000,
                "hosts": ["host1"],
                "most": [5],
                "own": 1,
                "name": "a",
                "me": 1,
                "token": 1,
            },
            "task_host",
        ),
        (postgresql_queue.DUE_HOSTS, {"ms": 1000}, "task_due"),
        (membership._HEARTBEAT, {"ms": 1000, "me": 1, "token": 1}, "task_running"),
        (postgresql_queue._RECORD, ('[{"task_id": 1}]', [1, 2, 3]), "task_pkey"),
        (queue._PURGE, (1000, 500), "task_finished"),
        (queue._TOO_LATE, (1000, 1000, 1000), "task_due"),
        (queue._DUE_HOSTS, (1000,), "task_due"),
        (failures._OPEN, (1000, 10**13, 10_000), "task_failures"),
        (
            # The query of a trigger for each deleted task.
            "SELECT 1 FROM task WHERE finished_at_ms >= ? ORDER BY finished_at_ms LIMIT 1",
            (1000,),
            "task_finished",
        ),
    ],
)
def test_query_uses_its_index(
    filled: psycopg.Connection, statement: str, values: Any, index: str
) -> None:
    explain = b"EXPLAIN " + cursor.translate(statement)
    plan = [row[0] for row in filled.execute(explain, values)]
    assert any(index in line for line in plan), plan
    assert not any("Seq Scan on task" in line or "Bitmap" in line for line in plan), plan
    assert not any("Sort Key: due_at" in line for line in plan), plan


def test_parameters_have_the_types_of_their_columns(server: Server) -> None:
    with psycopg.connect(server.conninfo) as connection:
        rows = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = 'task'",
            (SCHEMA,),
        ).fetchall()
    types = {name: data_type.replace("integer", "int") for name, data_type in rows}
    for parameter in PARAMETERS:
        assert types[parameter.name] == parameter.column.postgresql_type
