"""SQLite's cursor for the queries and operations that all databases share."""

from __future__ import annotations

import sqlite3

from ..codec import definition_values


class SqliteCursor(sqlite3.Cursor):
    """Implements :class:`callme.store.interface.Cursor`."""

    SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    definition_values = staticmethod(definition_values)

    def fleet_place(self, node: str) -> tuple[int, int]:
        # One daemon owns the file.
        return 1, 0

    def current_time(self, now: float) -> float:
        return now


class UndecodableText(str):
    """A stored text that is not UTF-8, with replacement characters.

    Its type differs from that of intact text, so the codec reports the column as damaged.
    """

    __slots__ = ()


def decode_text(stored: bytes) -> str:
    """Return a stored text, or an :class:`UndecodableText`: a ``text_factory`` for sqlite3."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return UndecodableText(stored.decode(errors="replace"))


def is_undecodable(error: sqlite3.Error) -> bool:
    """Return whether a query failed because a stored text is not UTF-8."""
    return str(error).startswith("Could not decode to UTF-8")
