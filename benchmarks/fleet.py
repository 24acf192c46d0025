"""A fleet on one PostgreSQL server: ``python -m benchmarks.fleet [--quick] [--only WORD]``.

The benchmark starts a server of its own, and measures three properties:

- ``scaling``: the throughput of several daemons, with calls that take 50 ms;
- ``burst``: the throughput of one daemon on PostgreSQL in comparison with SQLite;
- ``idle``: the load of idle daemons on the database.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from callme.core.parameters import parse_definition
from callme.store import tasks
from callme.store.postgresql.dsn import SCHEMA
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.setup import open_server
from tests.helpers.postgres import Cluster

from .__main__ import CALLS, CONCURRENCY, background, free_port, run, sink, twistd

LATENCY = 0.05
CALLS_IN_FLIGHT = 16
"""Maximum calls in flight in each daemon: few enough that two processors suffice for three daemons,
the server and the endpoint."""


@contextmanager
def fleet(url: str, count: int, *options: str) -> Iterator[list[int]]:
    """Run some daemons; yield their ports."""
    with ExitStack() as running:
        ports = [free_port() for _ in range(count)]
        for port in ports:
            command = [*twistd(Path("x"), port)[:-1], f"--database={url}", *options]
            running.enter_context(background(None, command, port))
        yield ports


def put(url: str, tasks: int, callback: str) -> None:
    """Put due tasks in one transaction, in a separate process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fleet"]
    subprocess.run([*command, "--put", url, str(tasks), callback], check=True)


def put_here(url: str, count: int, callback: str) -> None:
    async def putting(react: Any) -> None:
        store = PostgresqlStore(open_server(url), react, lambda: "put")
        now = time.time()
        minute = str(int(now) // 60 * 60)
        one = parse_definition(
            {"callback": callback, "max_delay": 60}, now, task_name="x", trigger_at=minute
        )
        await store.write(
            tasks.put_many, [one._replace(task_name=f"n{n}") for n in range(count)], now
        )
        await store.close()

    task.react(lambda react: Deferred.fromCoroutine(putting(react)))


def ask(port: int, path: str, body: object = None) -> float:
    """Make a request; return the milliseconds until the response."""
    data = None if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "PUT"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1000


def throughput(cluster: Cluster, count: int, tasks: int) -> dict[str, float]:
    """Return the calls per second of a fleet whose tasks are all due at the same time."""
    database = f"throughput{free_port()}"
    url = cluster.create(database)
    options = [f"--concurrency={CALLS_IN_FLIGHT}", f"--per-host={CALLS_IN_FLIGHT}"]
    with sink(LATENCY) as endpoint, fleet(url, count, *options) as ports:
        time.sleep(2)
        put(url, tasks * count, f"http://127.0.0.1:{endpoint}/x")
        puts: list[float] = []
        reads: list[float] = []
        later = {"trigger_at": "+1h", "callback": f"http://127.0.0.1:{endpoint}/x"}
        with cluster.connect(database) as connection:
            while connection.execute(LEFT).fetchone() != (0,):
                puts.append(ask(ports[-1], f"/task/put{len(puts)}", later))
                reads.append(ask(ports[0], "/status/?limit=100"))
                time.sleep(0.1)
            spread = connection.execute(SPREAD).fetchone()
    assert spread is not None
    began, ended, least, most, extra = spread
    assert extra == 0
    return {
        "calls_per_second": tasks * count / ((ended - began) / 1000),
        "least": least,
        "most": most,
        "put_p99": sorted(puts)[len(puts) * 99 // 100],
        "status_p99": sorted(reads)[len(reads) * 99 // 100],
    }


LEFT = f"""
    SELECT count(*) FROM {SCHEMA}.task
    WHERE task_name LIKE 'n%' AND state IN ('scheduled', 'running')
""".encode()
SPREAD = f"""
    SELECT min(began), max(ended), min(calls), max(calls), sum(extra) FROM (
        SELECT node, min(started_at) AS began, max(started_at + duration_ms) AS ended,
            count(*) AS calls, count(*) FILTER (WHERE number > 1) AS extra
        FROM {SCHEMA}.attempt GROUP BY node
    ) AS by_node
""".encode()


def scaling(cluster: Cluster, quick: bool) -> None:
    """Measure the throughput of one to several daemons."""
    first = 0.0
    for count in (1, 2, 3):
        found = throughput(cluster, count, 1000 if quick else 4000)
        first = first or found["calls_per_second"]
        print(
            f"{count} daemons: {found['calls_per_second']:,.0f} calls/s, "
            f"{found['calls_per_second'] / first:.2f} of one; calls of the idlest and the busiest "
            f"{found['least']:,.0f}, {found['most']:,.0f}; meanwhile PUT p99 "
            f"{found['put_p99']:.0f} ms, page of 100 p99 {found['status_p99']:.0f} ms",
            flush=True,
        )


def burst(cluster: Cluster, quick: bool) -> None:
    """Compare one daemon on PostgreSQL with one on SQLite."""
    ratios = []
    with sink() as port, tempfile.TemporaryDirectory() as directory:
        arguments = [f"http://127.0.0.1:{port}/x", CALLS, CONCURRENCY, "--directory", directory]
        # The first burst is not counted, because the server's log grows to its final size.
        for turn in range(3 if quick else 6):
            url = cluster.create(f"burst{turn}")
            theirs, ours = (
                json.loads(run("burst", *arguments, *more))["calls_per_second"]
                for more in ([], ["--database", url])
            )
            if turn:
                ratios.append(ours / theirs)
                print(f"burst: PostgreSQL {ours:,.0f}/s, SQLite {theirs:,.0f}/s", flush=True)
    found = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    print(f"burst of 5,000, PostgreSQL / SQLite: {found}")


def idle(cluster: Cluster, quick: bool) -> None:
    """Measure the load of ten daemons while nothing is due."""
    seconds = 20 if quick else 60
    url = cluster.create("idle")
    with cluster.connect("idle") as connection, fleet(url, 10):
        connection.execute("CREATE EXTENSION pg_stat_statements")
        time.sleep(5)
        connection.execute("SELECT pg_stat_statements_reset()")
        time.sleep(seconds)
        row = connection.execute(
            "SELECT sum(calls), sum(total_exec_time + total_plan_time) FROM pg_stat_statements "
            "JOIN pg_database ON dbid = pg_database.oid WHERE datname = 'idle'"
        ).fetchone()
    assert row is not None
    print(
        f"10 idle daemons: {float(row[0]) * 60 / seconds:,.0f} statements a minute, which take the "
        f"server {float(row[1]) / 10 / seconds:.2f} % of one processor"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure less, in two minutes")
    parser.add_argument("--only", help="scaling, burst or idle")
    parser.add_argument("--put", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.put:
        url, tasks, callback = asked.put
        put_here(url, int(tasks), callback)
        return
    cluster = Cluster(
        durable=True,
        shared_buffers="256MB",
        min_wal_size="1GB",
        max_wal_size="2GB",
        shared_preload_libraries="pg_stat_statements",
        **{"pg_stat_statements.track_planning": "on"},
    )
    try:
        for part in (scaling, burst, idle):
            if asked.only in (None, part.__name__):
                part(cluster, asked.quick)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
