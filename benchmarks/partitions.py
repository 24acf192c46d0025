"""Tasks partitioned by day in PostgreSQL: ``python -m benchmarks.partitions``.

Fills two schemas with the same tasks: one table, and one partition a day. Runs callme's statements
on both and prints JSON: the median of each in ms, and sizes in MB. With 10,000,000 tasks it takes
a quarter of an hour and 15 GB in the directory of temporary files.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from attrs import frozen

from callme.core.parameters import parse_definition
from callme.core.task import Attempt, Definition, State, Transition
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.store import tasks
from callme.store.codec import STORED_DEFINITION, to_claim
from callme.store.database import Write
from callme.store.postgresql import queue
from callme.store.postgresql.cursor import PostgresqlCursor, Text, translate
from callme.store.postgresql.setup import migrate
from callme.store.postgresql.tasks import PutCall, send_puts
from tests.helpers.postgres import Cluster

DAY = 86_400
PAST_DAYS, FUTURE_DAYS = 10, 20
DAYS = PAST_DAYS + FUTURE_DAYS
SPREAD = 10_000_019
"""A prime: tasks are numbered by multiples of another one, up to this many of them."""
HOSTS = 1000
DUE = 20_000
DUE_HOST = "due.example:80"
REPEATS = 50

_INDEXES = """
    SELECT indexdef FROM pg_indexes
    WHERE schemaname = 'callme' AND tablename = 'task' AND indexname != 'task_pkey'
"""
_FILL = f"""
    INSERT INTO task ({STORED_DEFINITION}, task_id, state, created_at_ms, due_at, finished_at_ms,
        attempts_used, last_attempt, first_lateness_ms)
    SELECT {
    STORED_DEFINITION.select(
        task_name="'task' || number",
        trigger_at="minute",
        host="made.host",
        expires_at="minute + 3600",
    )
}, number, CASE WHEN ended THEN 'succeeded' ELSE 'scheduled' END, 0,
        CASE WHEN NOT ended THEN minute END, CASE WHEN ended THEN minute * 1000 END,
        ended::int, ended::int, CASE WHEN ended THEN 5 END
    FROM (SELECT {STORED_DEFINITION.select(task_name="''")} FROM callme.task) AS template,
        LATERAL (
            SELECT number, minute, minute < %(now)s AS ended,
                coalesce(%(host)s, 'host' || number %% {HOSTS} || '.example:80') AS host
            FROM (
                SELECT number, coalesce(
                    %(minute)s, %(first)s + (number * 7919) %% {SPREAD} %% {DAYS * 1440} * 60
                ) AS minute
                FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS series (number)
            ) AS spread
        ) AS made
"""
_FILL_ATTEMPTS = """
    INSERT INTO attempt (task_id, number, started_at_ms, lateness_ms, duration_ms, status, detail,
        body, node{more})
    SELECT task_id, 1, finished_at_ms, 5, 3, 200, '', 'ok', 'node'{more}
    FROM task WHERE state = 'succeeded'
"""


@frozen(kw_only=True)
class Layout:
    """One way to store the tasks: a schema.

    :ivar partitioned: whether it has one partition a day.
    :ivar now: the time of all statements, seconds since 1970, a whole minute.
    """

    connection: psycopg.Connection
    partitioned: bool
    now: int

    @property
    def schema(self) -> str:
        return "by_day" if self.partitioned else "plain"

    @property
    def first(self) -> int:
        """The first day's first second."""
        return (self.now // DAY - PAST_DAYS) * DAY

    def run(self, statement: str, values: Any = None) -> list[Any]:
        """Run a statement in the schema; return its rows."""
        cursor = self.connection.execute(translate(statement), values)
        return cursor.fetchall() if cursor.description else []

    def use(self) -> None:
        """Direct the statements that follow to the schema."""
        self.run(f"SET search_path = {self.schema}, callme")

    def create(self) -> None:
        """Create the tables without indexes."""
        self.run(f"CREATE SCHEMA {self.schema}")
        self.use()
        by_day = "PARTITION BY RANGE (trigger_at)" if self.partitioned else ""
        minute = ", trigger_at BIGINT" if self.partitioned else ""
        task = "LIKE callme.task INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
        self.run(f"CREATE TABLE {self.schema}.task ({task}) {by_day}")
        self.run(f"CREATE TABLE {self.schema}.attempt (LIKE callme.attempt{minute}) {by_day}")
        self.run("ALTER TABLE task ALTER task_id SET DEFAULT nextval('number')")
        if not self.partitioned:
            return
        for begin in range(self.first, self.first + (DAYS + 15) * DAY, DAY):
            for table in ("task", "attempt"):
                self.run(
                    f"CREATE TABLE {table}_{begin // DAY} PARTITION OF {table} "
                    f"FOR VALUES FROM ({begin}) TO ({begin + DAY})"
                )

    def fill(self, count: int) -> None:
        """Store tasks of all days, attempts of those that have ended, and due ones."""
        spread = {"now": self.now, "first": self.first, "host": None, "minute": None}
        self.run(_FILL, {**spread, "from": 1, "to": count})
        due = {**spread, "host": DUE_HOST, "minute": self.now}
        self.run(_FILL, {**due, "from": SPREAD, "to": SPREAD + DUE - 1})
        self.run(_FILL_ATTEMPTS.format(more=", trigger_at" if self.partitioned else ""))

    def index(self) -> None:
        """Create callme's indexes, with the minute in those that begin with a number."""
        minute = ", trigger_at" if self.partitioned else ""
        for (definition,) in self.run(_INDEXES):
            self.run(definition.replace(" ON callme.task ", f" ON {self.schema}.task ", 1))
        self.run(f"ALTER TABLE task ADD PRIMARY KEY (task_id{minute})")
        self.run(f"ALTER TABLE attempt ADD PRIMARY KEY (task_id, number{minute})")
        self.run("VACUUM ANALYZE task, attempt")

    def adapted(self, statement: str) -> str:
        """Return a claim or a record that finds its tasks by number and minute."""
        if not self.partitioned:
            return statement
        changes = {
            "SELECT due.task_id FROM": "SELECT due.task_id, due.trigger_at FROM",
            "SELECT task_id FROM task\n": "SELECT task_id, trigger_at FROM task\n",
            "WHERE task.task_id = chosen.task_id": "WHERE task.task_id = chosen.task_id "
            "AND task.trigger_at = chosen.trigger_at",
            "AND task.task_id = ANY(?)": "AND task.task_id = ANY(?) "
            "AND task.trigger_at = transition.trigger_at AND task.trigger_at = ANY(?)",
            "AS given (": "AS given (trigger_at bigint, ",
            "INTO attempt (": "INTO attempt (trigger_at, ",
            "SELECT task_id, number": "SELECT trigger_at, task_id, number",
        }
        for old, new in changes.items():
            statement = statement.replace(old, new)
        return statement


def timed(run: Callable[[], object]) -> float:
    """Return how long a function takes, in ms."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000


def median(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median of how long a function takes, in ms."""
    return round(statistics.median(timed(run) for _ in range(repeats)), 2)


class Statements:
    """The statements of a daemon in one layout."""

    def __init__(self, layout: Layout, count: int) -> None:
        self._layout = layout
        self._count = count
        self._cursor = PostgresqlCursor(layout.connection)
        self._write = Write(cursor=self._cursor, node=lambda: "node")
        # The same random numbers for both layouts.
        self._random = random.Random(7)
        self._claimed: list[list[Any]] = []

    def put(self) -> None:
        """Create 64 tasks on random minutes of the days to come."""
        minutes = [self._layout.now + self._random.randrange(1, 19 * 1440) * 60 for _ in range(64)]
        definitions = [
            sample(f"new{self._random.random()}", minute, self._layout.now) for minute in minutes
        ]
        puts = [
            PutCall(definition=one, condition=PutCondition.NONE, now=self._layout.now)
            for one in definitions
        ]
        send_puts(self._write, puts)()

    def tick(self) -> None:
        """Find the hosts of due tasks."""
        self._layout.run(queue.DUE_HOSTS, {"ms": self._layout.now * 1000})

    def claim(self) -> None:
        """Claim 64 due tasks."""
        values = {
            "ms": self._layout.now * 1000,
            "own": self._layout.now,
            "hosts": [DUE_HOST],
            "most": [64],
            "name": "node",
            "me": 1,
            "token": 1,
        }
        self._claimed.append(self._layout.run(self._layout.adapted(queue._CLAIM), values))

    def record(self) -> None:
        """Record the responses to 64 calls."""
        claims = [to_claim(queue.TOKEN_CLAIM.name(row)) for row in self._claimed.pop()]
        assert len(claims) == 64
        attempt = Attempt(
            number=1,
            started_at_ms=self._layout.now * 1000,
            lateness_ms=5,
            duration_ms=3,
            status=200,
            reason=None,
            detail="",
            body="ok",
            node="node",
        )
        rows = []
        for claim in claims:
            transition = Transition(state=State.SUCCEEDED, attempt=attempt)
            call = queue.RecordCall(claim=claim, transition=transition, now=self._layout.now)
            rows.append({**call.row(), "trigger_at": claim.definition.trigger_at})
        values: list[Any] = [json.dumps(rows), [claim.task_id for claim in claims]]
        if self._layout.partitioned:
            values.append(sorted({claim.definition.trigger_at for claim in claims}))
        assert len(self._layout.run(self._layout.adapted(queue._RECORD), values)) == 64

    def _any(self) -> Key:
        number = self._random.randrange(1, self._count)
        return Key(f"task{number}", minute_of(number, self._layout.first))

    def status_of_key(self) -> None:
        """Read one task by its key."""
        assert tasks.get(self._cursor, self._any()) is not None

    def status_of_name(self) -> None:
        """Read all tasks of a name."""
        assert tasks.list_page(self._cursor, task_name=self._any().task_name) is not None

    def page_by_name(self) -> None:
        """Read a page of 100 tasks in the order of names."""
        assert tasks.list_page(self._cursor, start_from=self._any()) is not None

    def page_by_time(self) -> None:
        """Read a page of 100 tasks in the order of time."""
        assert tasks.list_page(self._cursor, start_from=self._any(), by_due=True) is not None

    def reschedule(self) -> None:
        """Move a scheduled task to another day."""
        key = self._any()
        while key.trigger_at <= self._layout.now:
            key = self._any()
        self._layout.run(
            "UPDATE task SET trigger_at = trigger_at + 86400, due_at = trigger_at + 86400 "
            "WHERE task_name = ? AND trigger_at = ?",
            (key.task_name, key.trigger_at),
        )

    def purge(self) -> None:
        """Delete 1,000 of the tasks that ended first, with their attempts."""
        self._layout.run(
            "WITH gone AS (DELETE FROM task WHERE (task_name, trigger_at) IN (SELECT task_name, "
            "trigger_at FROM task WHERE finished_at_ms IS NOT NULL ORDER BY finished_at_ms "
            "LIMIT 1000) RETURNING *) DELETE FROM attempt USING gone WHERE "
            "attempt.task_id = gone.task_id"
            + (" AND attempt.trigger_at = gone.trigger_at" if self._layout.partitioned else "")
        )

    def drop(self) -> None:
        """Delete the tasks of a day by deletion of its partitions."""
        day = self._layout.first // DAY + 1
        self._layout.run(f"DROP TABLE task_{day}, attempt_{day}")


def minute_of(number: int, first: int) -> int:
    """Return the minute of a task by its number, as :data:`_FILL` computes it."""
    return first + number * 7919 % SPREAD % (DAYS * 1440) * 60


def sample(name: str, minute: int, now: float) -> Definition:
    """Return the definition of a task like those of the store."""
    parameters = {"callback": "http://localhost:9/x"}
    return parse_definition(parameters, now, task_name=name, trigger_at=str(minute))


def measure(layout: Layout, count: int) -> Iterator[tuple[str, float]]:
    """Yield the name and the figure of each measurement."""
    layout.use()
    yield "fill_s", round(timed(lambda: layout.fill(count)) / 1000, 1)
    yield "index_s", round(timed(layout.index) / 1000, 1)
    statements = Statements(layout, count)
    for name in (
        *("put", "tick", "claim", "record", "status_of_key", "status_of_name"),
        *("page_by_name", "page_by_time", "reschedule", "purge"),
    ):
        run = getattr(statements, name)
        run()  # The first reads pages and plans.
        yield name, median(run)
    if layout.partitioned:
        yield "drop_day", round(timed(statements.drop), 1)
    for index in ("task_due", "task_pkey"):
        yield f"{index}_mb", round(size_of(layout, index) / 1e6, 1)


def size_of(layout: Layout, index: str) -> int:
    """Return the size of an index, of all partitions, in bytes."""
    ((size,),) = layout.run(
        "SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(?::regclass)) "
        "FROM pg_partition_tree(?::regclass)",
        (index, index),
    )
    return int(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000_000)
    count = parser.parse_args().tasks
    cluster = Cluster(shared_buffers="512MB", max_wal_size="8GB", maintenance_work_mem="512MB")
    try:
        now = int(time.time()) // 60 * 60
        found: dict[str, dict[str, float]] = {}
        with cluster.connect() as connection:
            connection.adapters.register_loader("bytea", Text)
            migrate(connection, "partitions")
            connection.execute("SET search_path = callme")
            template = PutCall(
                definition=sample("template", now + DAY, now), condition=PutCondition.NONE, now=now
            )
            write = Write(cursor=PostgresqlCursor(connection), node=lambda: "node")
            send_puts(write, [template])()
            connection.execute("INSERT INTO node VALUES (1, 'node', 0, 0)")
            connection.execute(f"CREATE SEQUENCE callme.number START {2 * SPREAD}".encode())
            for partitioned in (False, True):
                layout = Layout(connection=connection, partitioned=partitioned, now=now)
                layout.create()
                for name, figure in measure(layout, count):
                    found.setdefault(name, {})[layout.schema] = figure
                    print(name, layout.schema, figure, file=sys.stderr, flush=True)
        print(json.dumps(found, indent=2))
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
