"""The plans of a database for the statements of queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from callme.store.sqlite.cursor import SqliteCursor


class Recorder:
    """A cursor that records its statements."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor
        self.statements: list[tuple[str, Any]] = []

    def execute(self, statement: str, values: Any = ()) -> Any:
        self.statements.append((statement, values))
        return self.cursor.execute(statement, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


def explain(cursor: Any, query: Callable[[Any], object]) -> list[str]:
    """Return the steps of the database for the statements of a query."""
    recorder = Recorder(cursor)
    query(recorder)
    is_sqlite = isinstance(cursor, SqliteCursor)
    explaining = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    return [
        str(row[3] if is_sqlite else row[0])
        for statement, values in recorder.statements
        for row in cursor.execute(f"{explaining} {statement}", values).fetchall()
    ]
