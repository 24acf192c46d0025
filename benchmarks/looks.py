"""What a tick with nothing due costs.

``python -m benchmarks.looks FILE``: prints milliseconds. No daemon may use the file.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from callme.store.sqlite.database import open_database
from callme.store.sqlite.store import SqliteStore


async def look(react: Any, path: str) -> None:
    store = SqliteStore(open_database(Path(path)), react, lambda: "looks")
    ticks = []
    for _ in range(50):
        began = time.perf_counter()
        await store.abandoned(time.time())
        await store.due(time.time())
        ticks.append((time.perf_counter() - began) * 1000)
    await store.close()
    print(statistics.median(ticks))


def main(react: Any) -> Deferred[None]:
    return Deferred.fromCoroutine(look(react, sys.argv[1]))


if __name__ == "__main__":
    task.react(main)
