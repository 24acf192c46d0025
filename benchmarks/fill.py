"""A store with many tasks scheduled: ``python -m benchmarks.fill FILE TASKS``."""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

from callme.core.parameters import parse_definition
from callme.store import tasks
from callme.store.database import Write
from callme.store.sqlite.cursor import SqliteCursor
from callme.store.sqlite.file import open_database

SPREAD = 10_000_019
"""Prime modulus of the permutation of task numbers, and their maximum."""


def fill(path: Path, count: int) -> None:
    """Schedule tasks over the thirty days from tomorrow, in a pseudo-random order."""
    database = open_database(path)
    connection = sqlite3.connect(path, isolation_level=None)
    # A new file needs no journal, and the cache is large enough to write each page only once.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -6000000")
    cursor = connection.cursor(SqliteCursor)
    now = time.time()
    first = int(now // 60) * 60 + 86_400
    one = parse_definition(
        {"callback": "http://localhost:9/x"}, now, task_name="x", trigger_at=str(first)
    )
    cursor.execute("BEGIN IMMEDIATE")
    for begin in range(0, count, 10_000):
        made = []
        for number in range(begin, min(begin + 10_000, count)):
            spread = number * 7919 % SPREAD
            minute = first + spread % 43_200 * 60
            made.append(one._replace(task_name=f"task{spread}", trigger_at=minute))
        tasks.put_many(Write(cursor=cursor, node=lambda: "fill"), made, now)
    connection.commit()
    connection.close()
    database.release()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
    print(sys.argv[2])
