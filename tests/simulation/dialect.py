"""Statements for PostgreSQL, executed by SQLite: one transaction at a time needs no more.

The statements of :mod:`callme.store.postgresql` are executed as they are, apart from their syntax.
A statement whose parts write (``WITH one AS (UPDATE ... RETURNING ...)``) is executed part by part:
none of callme's parts reads what another one has written.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from attrs import frozen

_CASTS = re.compile(r"::(bigint|int|text|json)\b(\[\])?")
_DATABASE_TIME = re.compile(r"extract\(epoch FROM (statement|clock)_timestamp\(\)\)")
_UNNEST = re.compile(r"unnest\(([^()]*)\)(?:\s+AS (\w+) \(([^()]*)\))?")
_RECORDSET = re.compile(r"json_to_recordset\((:\w+)\)\s+AS (\w+) \(([^()]*)\)")
_DELETE = re.compile(r"DELETE FROM (\w+) USING ([\w, ]+?)\s+WHERE (.*?)\s+RETURNING", re.DOTALL)
_LATERAL = re.compile(
    r"(SELECT .*? FROM (.*) AS (\w+))\s+CROSS JOIN LATERAL \((.*)\) AS \w+"
    r"(?:\s+ORDER BY (\w+))?\s*",
    re.DOTALL,
)
_REPLACED = (
    (re.compile(r"FOR UPDATE( SKIP LOCKED)?"), ""),
    (re.compile(r"to_timestamp\((:\w+)\)"), r"\1"),
    (re.compile(r"clock_timestamp\(\)"), "database_time()"),
    (re.compile(r"= ANY\((:\w+)\)"), r"IN (SELECT value FROM json_each(\1))"),
    (re.compile(r"IS DISTINCT FROM"), "IS NOT"),
    (re.compile(r"SELECT FROM"), "SELECT 1 FROM"),
    (re.compile(r'COLLATE "C"'), ""),
    (re.compile(r"(FROM\s[^;]*)\sON CONFLICT"), r"\1 WHERE true ON CONFLICT"),
    (re.compile(r"BEGIN .*"), "BEGIN"),
)


@frozen
class Part:
    """A part of a statement.

    :ivar name: its name in the parts that follow.
    :ivar uses: the names of the parts before it whose rows it uses.
    """

    name: str
    sql: str
    uses: Sequence[str] = ()


class Rows(NamedTuple):
    """The result of a statement.

    :ivar changed: the number of rows that it changed.
    """

    rows: list[Any]
    columns: Sequence[str] = ()
    changed: int = 0


def execute(connection: sqlite3.Connection, statement: str, values: Any) -> Rows:
    """Execute a statement with psycopg's placeholders."""
    given = dict(values) if isinstance(values, Mapping) else _numbered(values or ())
    parameters = {name: _bound(value) for name, value in given.items()}
    results: dict[str, Rows] = {}
    last = Rows([])
    for part in parts(statement):
        sql = part.sql
        for name in part.uses:
            parameters[f"part_{name}"] = json.dumps(results[name].rows)
            sql = _with(name, results[name].columns, sql)
        last = results[part.name] = _execute(connection, sql, parameters)
    return last


def _with(name: str, columns: Sequence[str], sql: str) -> str:
    """Return a statement to which the rows of a part are known."""
    values = ", ".join(
        f"json_extract(value, '$[{number}]') AS {column}" for number, column in enumerate(columns)
    )
    rows = f"{name} AS (SELECT {values} FROM json_each(:part_{name}))"
    return f"WITH {rows}, {sql[5:]}" if sql.startswith("WITH ") else f"WITH {rows} {sql}"


def _numbered(values: Sequence[Any]) -> dict[str, Any]:
    return {f"v{number}": value for number, value in enumerate(values)}


def _bound(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return json.dumps(value)
    return value.decode() if isinstance(value, bytes) else value


def _execute(connection: sqlite3.Connection, sql: str, parameters: Mapping[str, Any]) -> Rows:
    lateral = _LATERAL.fullmatch(sql) if "LATERAL" in sql else None
    if lateral is not None:
        return _execute_lateral(connection, lateral, parameters)
    cursor = connection.execute(sql, parameters)
    if not cursor.description:
        return Rows([], (), cursor.rowcount)
    return Rows(cursor.fetchall(), [column[0] for column in cursor.description], cursor.rowcount)


def _execute_lateral(
    connection: sqlite3.Connection, lateral: re.Match[str], parameters: Mapping[str, Any]
) -> Rows:
    """Execute a query for each row of another one."""
    _, outer, alias, inner, order = lateral.groups()
    found = _execute(connection, f"SELECT * FROM {outer} AS {alias}", parameters)
    query = re.sub(rf"\b{alias}\.(\w+)", r":outer_\1", inner)
    rows: list[Any] = []
    columns: Sequence[str] = ()
    for row in found.rows:
        own = {f"outer_{name}": value for name, value in zip(found.columns, row, strict=True)}
        one = _execute(connection, query, {**parameters, **own})
        rows, columns = rows + one.rows, one.columns
    if order is not None and rows:
        rows.sort(key=lambda row: row[list(columns).index(order)])
    return Rows(rows, columns, len(rows))


@lru_cache(maxsize=1000)
def parts(statement: str) -> Sequence[Part]:
    """Return the parts of a statement in SQLite's dialect, in order."""
    sql = translate(statement)
    if not (sql.startswith("WITH ") and "RETURNING" in sql):
        return [Part("", sql)]
    found: list[Part] = []
    rest = sql[5:]
    while (beginning := re.match(r"\s*(\w+) AS (?:MATERIALIZED )?\(", rest)) is not None:
        end = _closing(rest, beginning.end())
        found.append(_part(beginning[1], rest[beginning.end() : end], found))
        rest = rest[end + 1 :].lstrip()
        if not rest.startswith(","):
            break
        rest = rest[1:]
    return [*found, _part("", rest, found)]


def _part(name: str, sql: str, before: Sequence[Part]) -> Part:
    uses = [one.name for one in before if re.search(rf"\b{one.name}\b", sql)]
    return Part(name, sql.strip(), uses)


def _closing(text: str, position: int) -> int:
    """Return the position of the parenthesis that closes one before a position."""
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        position += 1
    return position - 1


def translate(statement: str) -> str:
    """Return a statement in SQLite's dialect, with named placeholders."""
    count = iter(range(10_000))
    sql = re.sub(r"%\((\w+)\)s", r":\1", statement.strip())
    sql = re.sub(r"%s", lambda _: f":v{next(count)}", sql)
    sql = _DATABASE_TIME.sub("database_time()", _CASTS.sub("", sql))
    sql = _RECORDSET.sub(_recordset, _UNNEST.sub(_unnest, sql))
    for pattern, replacement in _REPLACED:
        sql = pattern.sub(replacement, sql)
    return _DELETE.sub(r"DELETE FROM \1 WHERE EXISTS (SELECT 1 FROM \2 WHERE \3) RETURNING", sql)


def _unnest(found: re.Match[str]) -> str:
    arrays = [array.strip() for array in found[1].split(",")]
    names = [f"c{number}" for number in range(len(arrays))]
    if found[3]:
        names = [name.strip() for name in found[3].split(",")]
    columns = ", ".join(f"a{number}.value AS {name}" for number, name in enumerate(names))
    tables = [f"json_each({array}) AS a{number}" for number, array in enumerate(arrays)]
    joined = " ".join(
        table if number == 0 else f"JOIN {table} ON a{number}.key = a0.key"
        for number, table in enumerate(tables)
    )
    alias = f" AS {found[2]}" if found[2] else ""
    return f"(SELECT {columns} FROM {joined}){alias}"


def _recordset(found: re.Match[str]) -> str:
    names = [column.split()[0] for column in found[3].split(",")]
    columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in names)
    return f"(SELECT {columns} FROM json_each({found[1]})) AS {found[2]}"
