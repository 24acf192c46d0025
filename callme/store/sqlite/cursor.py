"""The cursor for SQLite of the queries and operations that both databases share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from ..codec import decode_text, definition_values

T = TypeVar("T")


class SqliteCursor(sqlite3.Cursor):
    """Implementation of :class:`callme.store.interface.Cursor`."""

    SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    definition_values = staticmethod(definition_values)

    def fleet_place(self, node: str) -> tuple[int, int]:
        # A single daemon owns the file.
        return 1, 0

    def current_time(self, now: float) -> float:
        return now


def run_decoded(connection: sqlite3.Connection, begin: str, run: Callable[[SqliteCursor], T]) -> T:
    """Run work in a transaction; tolerate stored text that is not UTF-8.

    :param begin: the statement that begins the transaction.
    """

    def attempt(decoder: Callable[[bytes], str] | type[str]) -> T:
        connection.text_factory = decoder
        with closing(connection.cursor(SqliteCursor)) as cursor:
            cursor.execute(begin)
            return run(cursor)

    try:
        return attempt(str)
    except sqlite3.OperationalError as error:
        if not str(error).startswith("Could not decode to UTF-8"):
            raise
    # The work is repeated with a tolerant decoder, which is not the default because a decoder in
    # Python is slow.
    connection.rollback()
    return attempt(decode_text)
