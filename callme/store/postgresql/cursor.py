"""A cursor that takes the statements which all databases share, and the transaction around it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader

T = TypeVar("T")


class Text(Loader):
    """BYTEA is text here: UTF-8 that may hold a NUL."""

    def load(self, data: Any) -> str:
        return bytes.fromhex(bytes(data)[2:].decode("ascii")).decode("utf-8")


class Cursor:
    """A cursor of psycopg's that takes the statements which all databases share.

    In a transaction statements are sent one behind the other without waiting, until
    somebody asks for what one of them returned or did. What :meth:`execute` returns goes
    on standing for its statement when others have followed.
    """

    def __init__(
        self, connection: psycopg.Connection, cursor: psycopg.Cursor[Any] | None = None
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor() if cursor is None else cursor

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        if self._connection.info.pipeline_status:
            # Not known before the answer is here, for which only fetching would wait.
            with self._connection.pipeline() as pipeline:
                pipeline.sync()
        return self._cursor.rowcount

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        """Run a statement; one of PostgreSQL's own may name its values: ``%(name)s``."""
        self._cursor = self._connection.cursor()
        self._cursor.execute(_translated(statement), values or None)
        return Cursor(self._connection, self._cursor)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> None:
        """Run a statement for each of many rows of values."""
        self._cursor = self._connection.cursor()
        self._cursor.executemany(_translated(statement), values)

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor.fetchall())


@lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    """Return what PostgreSQL takes for what SQLite does: see :mod:`callme.store.cursor`."""
    statement = re.sub(r"INDEXED BY \w+", "", statement)
    statement = re.sub(r"/\* (FOR UPDATE[A-Z ]*) \*/", r"\1", statement)
    return statement.replace("?", "%s").encode()


def in_transaction(connection: psycopg.Connection, begin: bytes, work: Callable[[Cursor], T]) -> T:
    """Do some work in one transaction."""
    # libpq is older than 14 where the system's own is used and the system is old.
    pipelined = psycopg.Pipeline.is_supported()
    with connection.pipeline() if pipelined else contextlib.nullcontext():
        connection.execute(begin)
        result = work(Cursor(connection))
        connection.execute(b"COMMIT")
    return result
