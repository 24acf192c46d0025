"""Sources of tasks for filters: indexes, each of which covers some filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from ...core.task import State
from ..interface import Cursor
from .selection import Selection, Sql

MAX_EXAMINED = 20_000
"""Maximum number of keys that a page sorts or scans, in a few milliseconds."""
# SQLite's automatic name for the index of the keys; statements for PostgreSQL name no index.
KEYS = "task INDEXED BY sqlite_autoindex_task_1"
NAME_ORDER = ("task.task_name", "task.trigger_at")
DUE_ORDER = ("task.trigger_at", "task.task_name")
_LABELLED_TASKS = (
    f"task_label AS label JOIN {KEYS} "
    "ON task.task_name = label.task_name AND task.trigger_at = label.trigger_at"
)


@frozen(kw_only=True)
class Source:
    """Rows that an index finds for some filters of a selection.

    :ivar arms: tables and conditions, whose union is the source.
    :ivar filters: names of the filters that all of these rows match.
    :ivar orders: the orders in which the index contains the rows.
    :ivar key_table: the table whose columns are in these orders.
    :ivar may_have_orphans: whether the index may contain keys of tasks that do not exist, because
        another program has changed their names.
    :ivar counted: the table and the condition for counting, which need only the index and may count
        more rows; ``None`` to count the arms.
    """

    arms: Sequence[tuple[str, Sql]]
    filters: frozenset[object]
    orders: Sequence[tuple[str, str]] = ()
    key_table: str = "task"
    may_have_orphans: bool = False
    counted: tuple[str, Sql] | None = None

    def select(self, columns: str, where: Iterable[Sql] = (), bounds: Iterable[Sql] = ()) -> Sql:
        """Return the query of the rows that also match other conditions.

        :param bounds: conditions on the key.
        """
        texts, values, before, after = list[str](), list[Any](), list(bounds), list(where)
        for table, condition in self.arms:
            # SQLite searches the index with the first bound of a column, so the tightest is first.
            parts = [*before, condition, *after]
            conditions = " AND ".join(part.text for part in parts)
            texts.append(f"SELECT {columns} FROM {table} WHERE {conditions}")
            values += [value for part in parts for value in part.values]
        return Sql(" UNION ALL ".join(texts), tuple(values))

    def size(self, cursor: Cursor) -> int:
        """Return the approximate number of rows, or any number above :data:`MAX_EXAMINED`."""
        arms = self.arms if self.counted is None else [self.counted]
        query = evolve(self, arms=arms).select("1")
        row = cursor.execute(
            f"SELECT count(*) FROM (SELECT * FROM ({query.text}) AS matching LIMIT ?) AS counted",
            (*query.values, MAX_EXAMINED + 1),
        ).fetchone()
        return int(row[0])


_STATES = {
    State.SCHEDULED: ("task_due", "state = 'scheduled'"),
    State.RUNNING: ("task_running", "state = 'running'"),
    State.SUCCEEDED: ("task_finished", "finished_at_ms IS NOT NULL"),
    State.FAILED: ("task_failed", "state = 'failed'"),
}
"""The index of the tasks of each state, and the condition of that partial index."""
_HOSTS = {
    "task_host": ("state = 'scheduled'", {State.SCHEDULED}),
    "task_running": ("state = 'running'", {State.RUNNING}),
    "task_host_ended": ("finished_at_ms IS NOT NULL", {State.SUCCEEDED, State.FAILED}),
}
"""The indexes by host, each with its condition and the states that it covers."""


def narrow_sources(selection: Selection, *, without_orphans: bool = False) -> list[Source]:
    """Return the sources of all filters except name and time.

    :param without_orphans: whether to exclude sources with orphaned keys.
    """
    conditions = selection.conditions()
    found = []
    if selection.state is not None and selection.reason is None:
        index, partial = _STATES[selection.state]
        table = f"task INDEXED BY {index}"
        found.append(
            Source(
                arms=[(table, _all([Sql(partial), conditions["state"]]))],
                filters=frozenset({"state"}),
                orders=[NAME_ORDER] if selection.state is State.FAILED else [],
                counted=(table, Sql(partial)),
            )
        )
    if selection.reason is not None:
        found.append(
            Source(
                arms=[("task INDEXED BY task_reason", conditions["reason"])],
                filters=frozenset({"reason"}),
                orders=[NAME_ORDER],
            )
        )
    if selection.host is not None:
        found.append(
            Source(
                arms=[
                    (f"task INDEXED BY {index}", Sql(f"{partial} AND host = ?", (selection.host,)))
                    for index, (partial, states) in _HOSTS.items()
                    if selection.state is None or selection.state in states
                ],
                filters=frozenset({"host"}),
            )
        )
    # The table of labels suffices for filters by label, name and time.
    joins = without_orphans or {"state", "reason", "host"} & conditions.keys()
    table, name = (_LABELLED_TASKS, "label") if joins else ("task_label AS task", "task")
    for label in selection.labels:
        condition = Sql(f"{name}.key = ? AND {name}.value = ?", label)
        found.append(
            Source(
                arms=[(table, condition)],
                filters=frozenset({label}),
                orders=[NAME_ORDER],
                key_table=name,
                may_have_orphans=not joins,
                counted=(f"task_label AS {name}", condition),
            )
        )
    return found


def wide_sources(selection: Selection) -> Mapping[tuple[str, str], Source]:
    """Return the sources of all tasks by their order, narrowed by filters of name and time."""
    conditions = selection.conditions()
    name, due = (
        conditions.get("name"),
        [conditions[bound] for bound in ("from", "before") if bound in conditions],
    )
    tables = {NAME_ORDER: KEYS, DUE_ORDER: "task INDEXED BY task_time"}
    parts = {NAME_ORDER: [] if name is None else [name], DUE_ORDER: due}
    filters = {NAME_ORDER: {"name"}, DUE_ORDER: {"from", "before"}}
    if selection.task_name is not None:
        # The keys of one name are ordered by time.
        parts[NAME_ORDER] += due
        filters[NAME_ORDER] |= filters[DUE_ORDER]
    return {
        order: Source(
            arms=[(table, _all(parts[order]))], filters=frozenset(filters[order]), orders=[order]
        )
        for order, table in tables.items()
    }


def _all(conditions: Sequence[Sql]) -> Sql:
    if not conditions:
        return Sql("TRUE")
    return Sql(
        " AND ".join(condition.text for condition in conditions),
        tuple(value for condition in conditions for value in condition.values),
    )
