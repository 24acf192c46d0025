"""The comparison of a database's schema with the schema that the migrations create.

Triggers, views and indexes that another program added could change what callme reads and writes.
"""

from __future__ import annotations

import re
import sqlite3

_OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_INSIGNIFICANT = re.compile(r"""[\s"'`\[\]]+""")
"""White space and quotes, which are all that differs in an index after a column was renamed."""

Schema = dict[tuple[str, str], object]
"""Shape of each object by its type and its name."""


def read_schema(connection: sqlite3.Connection) -> Schema:
    """Return the objects of a database and their shapes, without SQLite's internal objects."""
    return {
        (kind, name): _shape(connection, kind, name, sql or "")
        for kind, name, sql in connection.execute(_OBJECTS).fetchall()
    }


def _shape(connection: sqlite3.Connection, kind: str, name: str, sql: str) -> object:
    if kind != "table":
        return _INSIGNIFICANT.sub("", sql)
    # The columns are compared instead of the statement, which depends on the table's migrations.
    columns = connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()
    keys = connection.execute("SELECT * FROM pragma_foreign_key_list(?)", (name,)).fetchall()
    return sorted(column[1:] for column in columns), sorted(keys)


def difference(found: Schema, expected: Schema) -> str | None:
    """Return the first difference between two schemas as text; ``None`` if they are equal."""
    for kind, name in sorted(found.keys() | expected.keys()):
        if (kind, name) not in expected:
            return f"the {kind} {name!a} is not callme's"
        if (kind, name) not in found:
            return f"the {kind} {name!a} is missing"
        if found[kind, name] != expected[kind, name]:
            return f"the {kind} {name!a} was changed"
    return None
