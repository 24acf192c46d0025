"""The SQLite file at one end of a move."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..codec import Columns, Row
from ..interface import CannotOpen
from ..listing.damaged import Examined, find_damaged
from ..transfer import ATTEMPT_ROW, TASK_ROW, TransferEndpoint
from .cursor import run_decoded
from .file import configure_writer, open_database


class SqliteEndpoint(TransferEndpoint):
    """SQLite file at one end of a move, locked while it is open.

    :param must_exist: whether to refuse a missing file instead of creating it.
    :raises CannotOpen: if it cannot be used, most likely because a daemon uses it.
    """

    def __init__(self, path: Path, must_exist: bool) -> None:
        if must_exist and not path.exists():
            raise CannotOpen(f"{path}: there is no such file")
        self._database = open_database(path)
        self.name = str(self._database.path)
        self._connection = sqlite3.connect(self._database.path, isolation_level=None)
        configure_writer(self._connection)

    def _select(self, statement: str, *values: Any) -> Iterator[Row]:
        return iter(self._connection.execute(statement, values))

    def ensure_no_daemon(self) -> None:
        """Do nothing: the lock on the file excludes daemons."""

    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        with self._transaction():
            self._insert("task", TASK_ROW, tasks)
            self._insert("attempt", ATTEMPT_ROW, attempts)

    def replace(self, table: str, columns: Columns, rows: Iterable[Row]) -> None:
        with self._transaction():
            self._connection.execute(f"DELETE FROM {table}")
            self._insert(table, columns, rows)

    def find_damaged(self, after: int, limit: int) -> Examined:
        try:
            return run_decoded(
                self._connection, "BEGIN", lambda cursor: find_damaged(cursor, after, limit)
            )
        finally:
            self._connection.rollback()
            self._connection.text_factory = str

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, table: str, columns: Columns, rows: Iterable[Row]) -> None:
        values = columns.placeholders()
        self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)

    def finalize(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()
        self._database.release()
