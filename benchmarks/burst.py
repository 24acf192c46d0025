"""A burst of tasks that are due at the same time, called and recorded by a daemon.

``python -m benchmarks.burst URL TASKS CONCURRENCY [--profile FILE] [--database URL]`` prints JSON:
the calls per second from the tick to the last record, the peak RSS in MB, and its growth since the
tick. The database is a temporary SQLite file, unless ``--database`` names an empty PostgreSQL
database. If the URL contains ``{}``, each task has a host of its own: an address of the loopback
network.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from callme.caller.tls import TLSContexts, load_authorities
from callme.config import Settings
from callme.core.parameters import parse_definition
from callme.core.task import State
from callme.service import Daemon
from callme.store import tasks
from callme.store.changes import Changes
from callme.store.postgresql.dsn import Server
from callme.store.sqlite.file import DatabaseFile, open_database

from .clients import loopback_address

PUTS = 500
"""Number of tasks that are put in one transaction before the burst."""


class Ends:
    """Subscriber of the change feed that waits until the ends of all tasks are stored."""

    def __init__(self, count: int) -> None:
        self.all: Deferred[None] = Deferred()
        self._left = count

    def on_changes(self, changes: Changes) -> None:
        ended = [one for one in changes.transitions if one.transition.state is not State.SCHEDULED]
        failed = [one for one in ended if one.transition.state is State.FAILED]
        if failed:
            self.all.errback(AssertionError(failed[0].transition.detail))
        self._left -= len(ended)
        if ended and not self._left:
            self.all.callback(None)


async def burst(react: Any, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        database: DatabaseFile | Server = _open(directory, arguments.database)
        # The clock stays before the minute until everything is prepared.
        minute = int(time.time()) // 60 * 60
        turned: list[float] = []
        now = lambda: time.time() if turned else minute - 1.0  # noqa: E731
        settings = Settings(
            port="tcp:0:interface=127.0.0.1",
            database=arguments.database or "callme.sqlite",
            concurrency=arguments.concurrency,
            per_host=arguments.concurrency,
        )
        # The log is written as by twistd, because a log line is part of the cost of a call.
        log = (Path(directory) / "log").open("w", encoding="utf-8")
        globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
        authorities = load_authorities(Path(arguments.ca_file)) if arguments.ca_file else []
        contexts = TLSContexts(authorities=authorities)
        daemon = Daemon(settings, database, react, now=now, contexts=contexts)
        body: dict[str, Any] = {"max_delay": 60}
        if arguments.payload:
            body |= {"callback_method": "POST", "payload": "x" * arguments.payload}
        # In slices: what many tasks take in the memory of a client is none of the daemon's.
        for begin in range(0, arguments.tasks, PUTS):
            made = []
            for number in range(begin, min(begin + PUTS, arguments.tasks)):
                body["callback"] = arguments.url.format(loopback_address(number))
                name, at = f"task{number}", str(minute)
                made.append(parse_definition(body, minute, task_name=name, trigger_at=at))
            await daemon.parts.store.write(tasks.put_many, made, minute - 1.0)
        ends = Ends(arguments.tasks)
        daemon.parts.store.changes.subscribe(ends.on_changes)
        daemon.startService()
        await task.deferLater(react, 0.2)
        profile = cProfile.Profile()
        if arguments.profile:
            profile.enable()
        before = peak_rss_mb()
        turned.append(1)
        began = time.perf_counter()
        daemon.parts.scheduler.tick()
        await ends.all
        elapsed = time.perf_counter() - began
        if arguments.profile:
            profile.disable()
            profile.dump_stats(arguments.profile)
        await daemon.stopService()
        log.close()
    peak = peak_rss_mb()
    figures = {
        "calls_per_second": arguments.tasks / elapsed,
        "peak_rss_mb": peak,
        "added_mb": peak - before,
    }
    print(json.dumps(figures))


def peak_rss_mb() -> float:
    """Return the peak RSS of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _open(directory: str, url: str | None) -> DatabaseFile | Server:
    if url is None:
        return open_database(Path(directory, "callme.sqlite"))
    # Only the benchmark of PostgreSQL needs psycopg.
    from callme.store.postgresql.setup import open_server  # noqa: PLC0415

    # The benchmark sets the clock.
    return evolve(open_server(url), use_client_clock=True)


def main(react: Any) -> Deferred[None]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("tasks", type=int)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--profile")
    parser.add_argument("--directory")
    parser.add_argument("--database")
    parser.add_argument("--payload", type=int, default=0, help="POST this number of bytes")
    parser.add_argument("--ca-file", help="trust this certificate")
    return Deferred.fromCoroutine(burst(react, parser.parse_args()))


if __name__ == "__main__":
    task.react(main)
