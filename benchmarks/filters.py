"""The duration of a query for a page of a filtered list, among a million tasks.

``python -m benchmarks.filters [postgresql://…] [--tasks N]`` fills an empty database, a temporary
file by default, and prints for each filter and order the median and the longest time of a page of
100 tasks, in milliseconds, over pages from the beginning to the end. Each filter matches about a
hundredth of the tasks.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from callme.core.task import Reason, State
from callme.core.times import Key
from callme.store import tasks
from callme.store.interface import Cursor
from callme.store.sqlite.cursor import SqliteCursor
from callme.store.sqlite.file import configure_reader, configure_writer, migrate

NOON = 1858852800
PAGES = 40
# A hundredth of the tasks has failed, half have succeeded, and the rest are scheduled. They call a
# hundred hosts, and their names are in no order.
FILL = """
    WITH RECURSIVE number (i) AS (
        SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM number WHERE i < {last}
    )
    INSERT INTO task (task_name, trigger_at, callback, callback_method, payload, headers,
        expected_http_status, retry, retry_delay, max_delay, timeout, host, expires_at, state,
        reason, due_at, created_at_ms, finished_at_ms, labels)
    SELECT 'job.' || (i * 7919 % 1000003), at, 'http://h.example/', 'GET', '', '{{}}', '[200]', 1,
        '[1]', 10, 30, 'h' || (i % 101) || '.example:80', at + 600, state,
        CASE WHEN state = 'failed' THEN 'timeout' END,
        CASE WHEN state = 'scheduled' THEN at END, 0,
        CASE WHEN state != 'scheduled' THEN at * 1000 END,
        CASE WHEN i % 100 = 7 THEN '{{"customer":"42"}}' ELSE '{{}}' END
    FROM (
        SELECT i, {noon} + 60 * (i * 31 % 20000) AS at, CASE WHEN i % 100 = 3 THEN 'failed'
            WHEN i % 2 = 0 THEN 'succeeded' ELSE 'scheduled' END AS state
        FROM number
    ) AS made
"""
HOST = "h5.example:80"
LABEL = [("customer", "42")]
FAILED = {"state": State.FAILED}
DUE = {"due_from": NOON + 600_000, "due_before": NOON + 612_000}
QUERIES: dict[str, dict[str, Any]] = {
    "no filter": {},
    "state": FAILED,
    "reason": {"reason": Reason.TIMEOUT},
    "host": {"host": HOST},
    "prefix": {"prefix": "job.77"},
    "label": {"labels": LABEL},
    "due_from and due_before": DUE,
    "state and host": {**FAILED, "host": HOST},
    "state=scheduled and label": {"state": State.SCHEDULED, "labels": LABEL},
    "state=succeeded and host": {"state": State.SUCCEEDED, "host": HOST},
    "host and label": {"host": HOST, "labels": LABEL},
    "state, reason, host, prefix and due": {
        **FAILED,
        **DUE,
        "reason": Reason.TIMEOUT,
        "host": HOST,
        "prefix": "job.7",
    },
    "state=succeeded, half of all": {"state": State.SUCCEEDED},
}


@contextmanager
def sqlite_reads(path: Path, count: int) -> Iterator[Callable[[Callable[[Cursor], Any]], Any]]:
    """Fill a new file, and yield a function that runs a query on it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        configure_writer(connection)
        migrate(connection)
        connection.execute(FILL.format(last=count - 1, noon=NOON))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        configure_reader(connection)
        yield lambda query: query(connection.cursor(SqliteCursor))


@contextmanager
def postgresql_reads(url: str, count: int) -> Iterator[Callable[[Callable[[Cursor], Any]], Any]]:
    """Fill an empty database, and yield a function that runs a query on it."""
    # Only a benchmark of PostgreSQL needs psycopg.
    import psycopg  # noqa: PLC0415

    from callme.store.postgresql import pool  # noqa: PLC0415
    from callme.store.postgresql.cursor import Text, in_transaction  # noqa: PLC0415
    from callme.store.postgresql.setup import open_server  # noqa: PLC0415

    server = open_server(url)
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.adapters.register_loader("bytea", Text)
        connection.execute((pool._SESSION % 20).encode())
        connection.execute("SET statement_timeout = 0")
        connection.execute(FILL.format(last=count - 1, noon=NOON).encode())
        connection.execute("VACUUM ANALYZE task")
        connection.execute("VACUUM ANALYZE task_label")
        yield lambda query: in_transaction(connection, b"BEGIN", query)


def pages(
    read: Callable[[Callable[[Cursor], Any]], Any], *, by_due: bool, **filters: Any
) -> list[float]:
    """Return the durations of the queries for pages from the beginning to the end, in ms."""
    times: list[float] = []
    start_from: Key | None = None
    for number in range(PAGES):
        began = time.perf_counter()
        query = partial(tasks.list_page, start_from=start_from, limit=100, by_due=by_due, **filters)
        page = read(query)
        times.append(1000 * (time.perf_counter() - began))
        if page.next is None:
            break
        start_from = page.next
        if not filters:
            # The pages are spread over the whole list.
            at = NOON + 30_000 * number
            start_from = Key("job.", at) if by_due else Key(f"job.{9 - number % 10}", at)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", nargs="?", help="the URL of an empty database on PostgreSQL")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if asked.database is None:
            opening = sqlite_reads(Path(directory, "callme.sqlite"), asked.tasks)
        else:
            opening = postgresql_reads(asked.database, asked.tasks)
        with opening as read:
            for order in ("name", "due"):
                for name, filters in QUERIES.items():
                    times = pages(read, by_due=order == "due", **filters)
                    print(
                        f"order={order:5} {name:36} median {statistics.median(times):7.1f} ms"
                        f"  longest {max(times):7.1f} ms  {len(times):3} pages",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
