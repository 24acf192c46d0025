"""What a tick with nothing due costs, and a page anywhere in the list.

``python -m benchmarks.looks FILE``: prints JSON, milliseconds. No daemon may use the file.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from callme.core.trigger import Key
from callme.store.sqlite.database import open_database
from callme.store.sqlite.store import SqliteStore


async def look(react: Any, path: str) -> None:
    store = SqliteStore(open_database(Path(path)), react)
    ticks, pages = [], []
    for _ in range(50):
        began = time.perf_counter()
        await store.abandoned(time.time())
        await store.due(time.time())
        ticks.append((time.perf_counter() - began) * 1000)
    for _ in range(200):
        start = Key(f"task{random.randrange(1_000_003)}", 0)
        began = time.perf_counter()
        await store.page(start_from=start, limit=100)
        pages.append((time.perf_counter() - began) * 1000)
    await store.close()
    pages.sort()
    print(
        json.dumps(
            {
                "tick": statistics.median(ticks),
                "page": statistics.median(pages),
                "page_p99": pages[197],
            }
        )
    )


def main(react: Any) -> Deferred[None]:
    return Deferred.fromCoroutine(look(react, sys.argv[1]))


if __name__ == "__main__":
    task.react(main)
