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
