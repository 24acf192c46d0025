"""The PostgreSQL database at one end of a move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import psycopg

from ..codec import Columns, Row, UndecodableText
from ..interface import CannotOpen
from ..listing.damaged import Examined, find_damaged
from ..transfer import ATTEMPT_ROW, TASK_ROW, TransferEndpoint
from .cursor import PostgresqlCursor, Text, translate
from .dsn import SCHEMA
from .setup import PEER_TIMEOUT_SECONDS, hold_migrations, open_server

_PAYLOAD = TASK_ROW.index("payload")
_DETAIL = TASK_ROW.index("detail")
_ATTEMPT_DETAIL = ATTEMPT_ROW.index("detail")
_BODY = ATTEMPT_ROW.index("body")


class StrictText(Text):
    """Loader of BYTEA columns as text that rejects damaged text, because a copy must be exact."""

    def load(self, data: Any) -> str:
        text = super().load(data)
        if isinstance(text, UndecodableText):
            raise psycopg.DataError("a payload or a response is not UTF-8")
        return text


class PostgresqlEndpoint(TransferEndpoint):
    """PostgreSQL database at one end of a move; starting daemons wait until it is closed.

    :raises CannotOpen: if it cannot be used, or a live daemon uses it.
    """

    def __init__(self, url: str) -> None:
        server = open_server(url)
        self.name = server.display_url
        self._connection = psycopg.connect(server.conninfo, autocommit=True)
        try:
            self._connection.adapters.register_loader("bytea", Text)
            self._connection.execute(f"SET search_path = {SCHEMA}".encode())
            hold_migrations(self._connection)
            self.ensure_no_daemon()
        except BaseException:
            self._connection.close()
            raise

    def _select(self, statement: str, *values: Any) -> Iterator[Row]:
        with closing(self._connection.cursor()) as cursor:
            cursor.adapters.register_loader("bytea", StrictText)
            yield from cursor.stream(translate(statement), values or None)

    def ensure_no_daemon(self) -> None:
        live = "extract(epoch FROM clock_timestamp()) * 1000 - ?"
        rows = self._select(
            f"SELECT name FROM node WHERE seen_at_ms > {live}", PEER_TIMEOUT_SECONDS * 1000
        )
        for (node,) in rows:
            raise CannotOpen(
                f"{self.name} is in use by the callme daemon {node}: stop it, or if it was "
                f"killed wait {PEER_TIMEOUT_SECONDS} seconds"
            )

    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        with self._connection.transaction():
            self._copy("task", TASK_ROW, tasks, _PAYLOAD, _DETAIL)
            self._copy("attempt", ATTEMPT_ROW, attempts, _BODY, _ATTEMPT_DETAIL)

    def replace(self, table: str, columns: Columns, rows: Iterable[Row]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table}".encode())
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copying:
                for row in rows:
                    copying.write_row(row)

    def find_damaged(self, after: int, limit: int) -> Examined:
        return find_damaged(PostgresqlCursor(self._connection), after, limit)

    def _copy(
        self, table: str, columns: Columns, rows: Iterable[Row], text: int, detail: int
    ) -> None:
        """Copy rows into a table, with text that may contain NUL as bytes."""
        with self._connection.cursor() as cursor:
            statement = f"COPY {table} ({columns}) FROM STDIN".encode()
            with cursor.copy(statement) as copying:
                for row in rows:
                    values = list(row)
                    values[text] = values[text].encode()
                    values[detail] = values[detail].replace("\0", "\N{REPLACEMENT CHARACTER}")
                    copying.write_row(values)

    def finalize(self) -> None:
        self._connection.execute(
            "SELECT setval(pg_get_serial_sequence('task', 'task_id'), max(task_id)) "
            "FROM task HAVING count(*) > 0"
        )
        self._connection.execute("ANALYZE task, attempt")

    def close(self) -> None:
        self._connection.close()
