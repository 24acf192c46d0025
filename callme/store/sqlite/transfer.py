"""A SQLite file as one side of a move."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..codec import Columns, Row
from ..interface import CannotOpen
from ..transfer import ATTEMPT_ROW, TASK_ROW, Counts
from .file import configure_writer, open_database


class SqliteEndpoint:
    """Implements :class:`callme.store.transfer.Side`.

    :param must_exist: whether a file that is not there is refused, not created.
    :raises CannotOpen: when it cannot be used, by a daemon that runs on it most likely.
    """

    def __init__(self, path: Path, must_exist: bool) -> None:
        if must_exist and not path.exists():
            raise CannotOpen(f"{path}: there is no such file")
        self._database = open_database(path)
        self.shown = str(self._database.path)
        self._connection = sqlite3.connect(self._database.path, isolation_level=None)
        configure_writer(self._connection)

    def _one(self, statement: str, *values: object) -> Row | None:
        row: Row | None = self._connection.execute(statement, values).fetchone()
        return row

    def _number(self, statement: str, *values: object) -> int:
        row = self._one(statement, *values)
        return int(row[0] or 0) if row is not None else 0

    def refuse_daemons(self) -> None:
        """Do nothing: the file is locked for as long as this side has it."""

    def counts(self) -> Counts:
        states = self._connection.execute("SELECT state, count(*) FROM task GROUP BY state")
        return Counts(dict(states), self._number("SELECT count(*) FROM attempt"))

    def count_to(self, task_id: int) -> int:
        return self._number("SELECT count(*) FROM task WHERE task_id <= ?", task_id)

    def last(self) -> int:
        return self._number("SELECT max(task_id) FROM task")

    def boundary(self, after: int, count: int) -> int | None:
        number = self._number(
            "SELECT max(task_id) FROM "
            "(SELECT task_id FROM task WHERE task_id > ? ORDER BY task_id LIMIT ?)",
            after,
            count,
        )
        return number or None

    def tasks(self, after: int, to: int) -> Iterator[Row]:
        return self._rows(f"SELECT {TASK_ROW} FROM task", after, to)

    def attempts(self, after: int, to: int) -> Iterator[Row]:
        return self._rows(f"SELECT {ATTEMPT_ROW} FROM attempt", after, to)

    def _rows(self, select: str, after: int, to: int) -> Iterator[Row]:
        where = "WHERE task_id > ? AND task_id <= ? ORDER BY task_id"
        return iter(self._connection.execute(f"{select} {where}", (after, to)))

    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert("task", TASK_ROW, tasks)
            self._insert("attempt", ATTEMPT_ROW, attempts)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, table: str, columns: Columns, rows: Iterable[Row]) -> None:
        values = columns.placeholders()
        self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)

    def finish(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()
        self._database.release()
