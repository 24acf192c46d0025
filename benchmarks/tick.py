"""The duration of a tick without due tasks.

``python -m benchmarks.tick FILE`` prints milliseconds. No daemon may use the file.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from callme.store import queue
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database


async def measure_tick(react: Any, path: str) -> None:
    store = SqliteStore(open_database(Path(path)), react, lambda: "tick")
    ticks = []
    for _ in range(50):
        began = time.perf_counter()
        await store.write(queue.take_orphans, time.time())
        await store.write(queue.expire_overdue, time.time())
        ticks.append((time.perf_counter() - began) * 1000)
    await store.close()
    print(statistics.median(ticks))


def main(react: Any) -> Deferred[None]:
    return Deferred.fromCoroutine(measure_tick(react, sys.argv[1]))


if __name__ == "__main__":
    task.react(main)
