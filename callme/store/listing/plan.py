"""Queries of pages: the choice of an index, and the statement that uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, frozen

from ...core.times import MAX_TIMESTAMP, MINUTE, Key, is_key
from ..codec import KEY, SUMMARY, Row, to_key
from ..interface import Cursor, StartGone
from . import sources
from .selection import Selection, Sql
from .sources import DUE_ORDER, KEYS, NAME_ORDER, Source, narrow_sources, wide_sources

_ROWS = SUMMARY.replace("task_name, trigger_at", ", ".join(NAME_ORDER), 1)


@frozen(kw_only=True)
class Plan:
    """Plan of the query for a page of a selection.

    :ivar order: the columns that the page is ordered by.
    :ivar where: the conditions that the source does not cover.
    """

    source: Source
    order: tuple[str, str]
    where: Sequence[Sql]

    def _at(self, column: str) -> str:
        return f"{self.source.key_table}.{column}"

    def _keys(self) -> list[str]:
        return [self._at(column.removeprefix("task.")) for column in self.order]

    def _key_columns(self) -> str:
        return f"{self._at('task_name')}, {self._at('trigger_at')}"

    def keys(self, *bounds: Sql, backwards: bool = False, is_ordered: bool = True) -> Sql:
        """Return the query for the keys of the page; the last placeholder is their maximum number.

        :param bounds: conditions on the key.
        :param backwards: whether the keys are in the reverse order.
        :param is_ordered: whether the keys must be ordered at all.
        """
        query = self.source.select(self._key_columns(), self.where, bounds)
        if not is_ordered:
            return Sql(f"SELECT * FROM ({query.text}) AS matching LIMIT ?", query.values)
        if self.order in self.source.orders:
            return Sql(
                f"{query.text} ORDER BY {_by(self._keys(), backwards)} LIMIT ?", query.values
            )
        # Without MATERIALIZED, PostgreSQL would scan a whole index that has this order.
        order = _by([column.removeprefix("task.") for column in self.order], backwards)
        statement = (
            f"WITH found (task_name, trigger_at) AS MATERIALIZED ({query.text}) SELECT "
            f"task_name, trigger_at FROM found ORDER BY {order} LIMIT ?"
        )
        return Sql(statement, query.values)

    def rows(self, *bounds: Sql) -> Sql:
        """Return the query for the rows of the page; the last placeholder is their maximum number.

        :param bounds: conditions on the key.
        """
        keys = self.keys(*bounds)
        statement = (
            f"SELECT {_ROWS} FROM ({keys.text}) AS page JOIN {KEYS} "
            "ON task.task_name = page.task_name AND task.trigger_at = page.trigger_at "
            f"ORDER BY {', '.join(self.order)}"
        )
        return Sql(statement, keys.values)

    def read_keys(
        self, cursor: Cursor, *bounds: Sql, limit: int, backwards: bool = False
    ) -> list[Key]:
        """Return the keys of the page.

        :param bounds: conditions on the key; ``backwards`` is as for :meth:`keys`.
        :param limit: the maximum number of keys.
        """
        query = self.keys(*bounds, backwards=backwards)
        return _read_keys(cursor, query, limit, _by(self.order, backwards))

    def bound(self, sign: str, key: Key) -> Sql:
        """Return the condition that a key is on one side of another in the order."""
        if (number := key.row_number) is not None:
            row = f"SELECT {', '.join(self.order)} FROM task WHERE task.task_id = ?"
            return Sql(f"({', '.join(self._keys())}) {sign} ({row})", (number,))
        values: tuple[Any, ...] = (key.task_name, key.trigger_at)
        if self.order == DUE_ORDER:
            values = values[::-1]
        return Sql(f"({', '.join(self._keys())}) {sign} (?, ?)", values)

    def end(
        self, cursor: Cursor, *bounds: Sql, backwards: bool = False, examined: int | None = None
    ) -> Key | None:
        """Return the key at which the examination of the source ends; ``None`` if it is complete.

        :param bounds: conditions on the key.
        :param backwards: whether the source is examined in the reverse order.
        :param examined: the number of keys to examine; :data:`sources.MAX_EXAMINED` by default.
        """
        if not self.where or self.order not in self.source.orders:
            return None
        query = self.source.select(self._key_columns(), bounds=bounds)
        statement = f"{query.text} ORDER BY {_by(self._keys(), backwards)} LIMIT ? OFFSET ?"
        offset = examined or sources.MAX_EXAMINED
        found = _read_keys(cursor, Sql(statement, query.values), 1, "1", offset)
        return found[0] if found else None


def _read_keys(cursor: Cursor, query: Sql, limit: int, order: str, *offset: int) -> list[Key]:
    """Return the keys that a query finds.

    :param query: its last placeholders are the limit and, if given, the offset.
    :param order: the order of the keys, in terms of the table of tasks.
    """
    values = (*query.values, limit, *offset)
    rows = cursor.execute(query.text, values).fetchall()
    if not all(is_key(*row) for row in rows):
        # Rows are read last, because no index contains task_id.
        statement = (
            f"SELECT {KEY.of('task')} FROM ({query.text}) AS found JOIN {KEYS} "
            "ON task.task_name = found.task_name AND task.trigger_at = found.trigger_at "
            f"ORDER BY {order}"
        )
        rows = cursor.execute(statement, values).fetchall()
        return [to_key(KEY.name(row)) for row in rows]
    return [Key(*row) for row in rows]


def _by(columns: Iterable[str], backwards: bool) -> str:
    """Return the text after ORDER BY."""
    return ", ".join(f"{column} DESC" if backwards else column for column in columns)


def choose_plan(
    cursor: Cursor, selection: Selection, order: tuple[str, str], *, without_orphans: bool = False
) -> Plan:
    """Choose the source with the fewest rows or, if all have very many, an ordered source.

    :param without_orphans: as for :func:`narrow_sources`.
    """
    conditions = selection.conditions()
    wide = wide_sources(selection)
    source = wide[order]
    # A wide source that no filter narrows cannot be the smallest.
    candidates = [one for one in wide.values() if one.filters & conditions.keys()]
    candidates += narrow_sources(selection, without_orphans=without_orphans)
    ordered = [one for one in candidates if order in one.orders]
    if len(candidates) == 1 and ordered:
        source = ordered[0]
    elif candidates:
        sizes = [one.size(cursor) for one in candidates]
        smallest = candidates[sizes.index(min(sizes))]
        source = smallest if min(sizes) <= sources.MAX_EXAMINED else [*ordered, source][0]
    where = [condition for name, condition in conditions.items() if name not in source.filters]
    return Plan(source=source, order=order, where=where)


def select_page(
    cursor: Cursor, selection: Selection, start_from: Key | None, limit: int, *, by_due: bool
) -> tuple[Iterable[Row], Key | None]:
    """Return the rows of a page, and the first key that was not examined, if any.

    :param start_from: the first key of the page, inclusive.
    :param by_due: whether to order by time, then name, instead of by name, then time.
    """
    order = DUE_ORDER if by_due and selection.task_name is None else NAME_ORDER
    is_of_name = selection.task_name is not None
    if is_of_name and start_from is not None and start_from.row_number is None:
        due_from = max(start_from.trigger_at, selection.due_from or 0)
        selection, start_from = evolve(selection, due_from=due_from), None
    plan = choose_plan(cursor, selection, order)
    bounds, end = _bounds(cursor, plan, start_from)
    rows: Iterable[Row] = _run(cursor, plan.rows(*bounds), limit)
    if plan.source.may_have_orphans:
        found = rows = list(rows)
        keys = plan.keys(*bounds, is_ordered=False)
        if len(found) < min(limit, len(_run(cursor, keys, limit).fetchall())):
            # Orphaned keys in the index have reduced the number of tasks on the page.
            plan = choose_plan(cursor, selection, order, without_orphans=True)
            bounds, end = _bounds(cursor, plan, start_from)
            rows = _run(cursor, plan.rows(*bounds), limit)
    return rows, None if end is None else _within(selection.prefix, end, plan.order)


def _run(cursor: Cursor, statement: Sql, limit: int) -> Cursor:
    """Run a statement whose last value is the maximum number of rows."""
    return cursor.execute(statement.text, (*statement.values, limit))


def select_keys(
    cursor: Cursor, selection: Selection, start_from: Key | None, limit: int
) -> tuple[Sequence[Key], Key | None]:
    """Return the keys of a page ordered by name, then time, and the first key after them.

    :param start_from: the first key of the page, inclusive.
    :return: the second is ``None`` if no task is left.
    """
    plan = choose_plan(cursor, selection, NAME_ORDER)
    bounds, end = _bounds(cursor, plan, start_from)
    keys = plan.read_keys(cursor, *bounds, limit=limit + 1)
    if len(keys) > limit:
        return keys[:limit], keys[limit]
    return keys, None if end is None else _within(selection.prefix, end, NAME_ORDER)


def _bounds(cursor: Cursor, plan: Plan, start_from: Key | None) -> tuple[Sequence[Sql], Key | None]:
    """Return the conditions on the keys of a page, and the key at which its examination ends."""
    if start_from is not None:
        _check_start(cursor, start_from)
    bounds = [] if start_from is None else [plan.bound(">=", start_from)]
    end = plan.end(cursor, *bounds)
    return bounds if end is None else [*bounds, plan.bound("<", end)], end


def _check_start(cursor: Cursor, key: Key) -> None:
    """Check that a page can begin at a key.

    The position of a damaged name is known only from its row.

    :raises StartGone: if that row no longer exists.
    """
    if (number := key.row_number) is not None:
        row = cursor.execute("SELECT 1 FROM task WHERE task_id = ?", (number,)).fetchone()
        if row is None:
            raise StartGone(str(key))


def select_previous(
    cursor: Cursor, selection: Selection, before: Key, limit: int, *, by_due: bool
) -> Key | None:
    """Return the start of the page before another page; ``None`` if that is the first page.

    If too many tasks were examined without a match, the key may be of a task that does not match.

    :param before: the first key of the other page.
    :param limit: the number of tasks on a page.
    :param by_due: as for :func:`select_page`.
    """
    order = DUE_ORDER if by_due and selection.task_name is None else NAME_ORDER
    plan = choose_plan(cursor, selection, order)
    _check_start(cursor, before)
    bounds = [plan.bound("<", before)]
    # A page that starts at this key examines the same number of keys, and therefore all of them.
    end = plan.end(cursor, *bounds, backwards=True, examined=sources.MAX_EXAMINED - 1)
    if end is not None:
        bounds.append(plan.bound(">", end))
    keys = plan.read_keys(cursor, *bounds, limit=limit, backwards=True)
    if end is not None and len(keys) < limit:
        return end
    return keys[-1] if keys else None


def _within(prefix: str, end: Key, order: tuple[str, str]) -> Key | None:
    """Return the first key at or after ``end`` whose name begins with a prefix.

    A list must not reveal the names of other tasks.
    """
    # The number of a row reveals no name.
    if end.row_number is not None or end.task_name.startswith(prefix):
        return end
    if end.task_name < prefix:
        return Key(prefix, end.trigger_at if order == DUE_ORDER else 0)
    at = end.trigger_at + MINUTE
    return Key(prefix, at) if order == DUE_ORDER and at <= MAX_TIMESTAMP else None
