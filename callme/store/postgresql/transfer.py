"""A PostgreSQL database as one side of a move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import psycopg

from ..codec import Columns, Row
from ..interface import CannotOpen
from ..transfer import ATTEMPT_ROW, TASK_ROW, Counts
from .cursor import Text
from .dsn import SCHEMA
from .setup import PEER_TIMEOUT_SECONDS, hold_migrations, open_server

_PAYLOAD = TASK_ROW.index("payload")
_DETAIL = TASK_ROW.index("detail")
_ATTEMPT_DETAIL = ATTEMPT_ROW.index("detail")
_BODY = ATTEMPT_ROW.index("body")


class PostgresqlEndpoint:
    """Implements :class:`callme.store.transfer.Side`.

    :raises CannotOpen: when it cannot be used, or a daemon lives on it.
    """

    def __init__(self, url: str) -> None:
        server = open_server(url)
        self.shown = server.shown
        self._connection = psycopg.connect(server.conninfo, autocommit=True)
        try:
            self._connection.adapters.register_loader("bytea", Text)
            self._connection.execute(f"SET search_path = {SCHEMA}".encode())
            # Daemons that start now wait until this is over.
            hold_migrations(self._connection)
            self.refuse_daemons()
        except BaseException:
            self._connection.close()
            raise

    def refuse_daemons(self) -> None:
        row = self._one(
            "SELECT name FROM node WHERE seen_at > "
            f"extract(epoch FROM clock_timestamp()) * 1000 - {PEER_TIMEOUT_SECONDS * 1000}"
        )
        if row is not None:
            raise CannotOpen(
                f"{self.shown} is in use by the callme daemon {row[0]}: stop it, or if it was "
                f"killed wait {PEER_TIMEOUT_SECONDS} seconds"
            )

    def _one(self, statement: str, *values: Any) -> Row | None:
        return self._connection.execute(statement.encode(), values or None).fetchone()

    def _number(self, statement: str, *values: Any) -> int:
        row = self._one(statement, *values)
        return int(row[0] or 0) if row is not None else 0

    def counts(self) -> Counts:
        rows = self._connection.execute("SELECT state, count(*) FROM task GROUP BY state")
        states = {str(state): int(count) for state, count in rows}
        return Counts(states, self._number("SELECT count(*) FROM attempt"))

    def count_to(self, task_id: int) -> int:
        return self._number("SELECT count(*) FROM task WHERE task_id <= %s", task_id)

    def last(self) -> int:
        return self._number("SELECT max(task_id) FROM task")

    def boundary(self, after: int, count: int) -> int | None:
        number = self._number(
            "SELECT max(task_id) FROM "
            "(SELECT task_id FROM task WHERE task_id > %s ORDER BY task_id LIMIT %s) AS next",
            after,
            count,
        )
        return number or None

    def tasks(self, after: int, to: int) -> Iterator[Row]:
        return self._rows(f"SELECT {TASK_ROW} FROM task", after, to)

    def attempts(self, after: int, to: int) -> Iterator[Row]:
        return self._rows(f"SELECT {ATTEMPT_ROW} FROM attempt", after, to)

    def _rows(self, select: str, after: int, to: int) -> Iterator[Row]:
        where = "WHERE task_id > %s AND task_id <= %s ORDER BY task_id"
        with closing(self._connection.cursor()) as cursor:
            yield from cursor.stream(f"{select} {where}".encode(), (after, to))

    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        with self._connection.transaction():
            self._copy("task", TASK_ROW, tasks, _PAYLOAD, _DETAIL)
            self._copy("attempt", ATTEMPT_ROW, attempts, _BODY, _ATTEMPT_DETAIL)

    def _copy(
        self, table: str, columns: Columns, rows: Iterable[Row], text: int, detail: int
    ) -> None:
        """Copy rows, of which one column may hold a NUL and another must not."""
        with self._connection.cursor() as cursor:
            statement = f"COPY {table} ({columns}) FROM STDIN".encode()
            with cursor.copy(statement) as copying:
                for row in rows:
                    values = list(row)
                    values[text] = values[text].encode()
                    values[detail] = values[detail].replace("\0", "\N{REPLACEMENT CHARACTER}")
                    copying.write_row(values)

    def finish(self) -> None:
        self._connection.execute(
            "SELECT setval(pg_get_serial_sequence('task', 'task_id'), max(task_id)) "
            "FROM task HAVING count(*) > 0"
        )
        self._connection.execute("ANALYZE task, attempt")

    def close(self) -> None:
        self._connection.close()
