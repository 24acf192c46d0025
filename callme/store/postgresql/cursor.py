"""The cursor for statements that both databases share, and the transaction around it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader

from ...core.parameters import PARAMETERS
from ...core.task import Definition
from ..codec import STORED_DEFINITION, Row, decode_text, definition_values

T = TypeVar("T")
BINARY = tuple(
    parameter.name for parameter in PARAMETERS if parameter.column.postgresql_type == "bytea"
)
"""Parameters whose text may contain NUL, and is therefore stored as bytes."""
_BINARY_PLACES = tuple(STORED_DEFINITION.index(name) for name in BINARY)


_FLEET_PLACE = """
    SELECT count(*), count(*) FILTER (
        WHERE node_id < (SELECT max(node_id) FROM node AS own WHERE own.name = ?)
    )
    FROM node
"""


class Text(Loader):
    """Loader of BYTEA columns that contain UTF-8 text, which may contain NUL or be damaged."""

    def load(self, data: Any) -> str:
        return decode_text(bytes.fromhex(bytes(data)[2:].decode("ascii")))


class PostgresqlCursor:
    """Implementation of :class:`callme.store.interface.Cursor` with psycopg's cursors.

    In a transaction, statements are pipelined: callme waits only when it needs a result. The cursor
    that :meth:`execute` returns stays valid for its statement when further statements follow.

    :param use_client_clock: whether the daemon's time is authoritative, not the database's.
    """

    SIZE = "SELECT pg_total_relation_size('task') + pg_total_relation_size('attempt')"

    def __init__(
        self,
        connection: psycopg.Connection,
        cursor: psycopg.Cursor[Any] | None = None,
        *,
        use_client_clock: bool = False,
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor() if cursor is None else cursor
        self._use_client_clock = use_client_clock

    @property
    def rowcount(self) -> int:
        """Number of rows that the last statement changed."""
        if self._connection.info.pipeline_status:
            # The number is unknown until the result arrives; the synchronization waits for that.
            with self._connection.pipeline() as pipeline:
                pipeline.sync()
        return self._cursor.rowcount

    def execute(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /
    ) -> PostgresqlCursor:
        """Run a statement; a statement for PostgreSQL only may have named values: ``%(name)s``."""
        self._cursor = self._connection.cursor()
        self._cursor.execute(translate(statement), values or None)
        return PostgresqlCursor(self._connection, self._cursor)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> None:
        """Run a statement for each of many rows of values."""
        self._cursor = self._connection.cursor()
        self._cursor.executemany(translate(statement), values)

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor.fetchall())

    def current_time(self, now: float) -> float:
        """Return the authoritative time: the database's, or ``now``; seconds since 1970."""
        if self._use_client_clock:
            return now
        (seconds,) = self.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        return float(seconds)

    def fleet_place(self, node: str) -> tuple[int, int]:
        """Return the number of live daemons, and the rank of one daemon among them, from 0."""
        daemons, rank = self.execute(_FLEET_PLACE, (node,)).fetchone()
        return max(1, int(daemons)), int(rank)

    def definition_values(self, definition: Definition) -> Row:
        """Return the values of a definition's columns, with text that may contain NUL as bytes."""
        values = list(definition_values(definition))
        for place in _BINARY_PLACES:
            values[place] = values[place].encode()
        return tuple(values)


@lru_cache(maxsize=256)
def translate(statement: str) -> bytes:
    """Translate a shared statement (:class:`callme.store.interface.Cursor`) for PostgreSQL."""
    statement = re.sub(r"INDEXED BY \w+", "", statement)
    statement = re.sub(r"/\* (FOR UPDATE[A-Z ]*) \*/", r"\1", statement)
    return statement.replace("instr(", "strpos(").replace("?", "%s").encode()


def in_transaction(
    connection: psycopg.Connection,
    begin: bytes,
    work: Callable[[PostgresqlCursor], T],
    *,
    use_client_clock: bool = False,
) -> T:
    """Run work in one transaction, with its statements in a pipeline."""
    # The libpq of an old system may be older than 14, which introduced pipelines.
    pipelined = psycopg.Pipeline.is_supported()
    with connection.pipeline() if pipelined else contextlib.nullcontext():
        connection.execute(begin)
        result = work(PostgresqlCursor(connection, use_client_clock=use_client_clock))
        connection.execute(b"COMMIT")
    return result
