"""Filters of tasks as SQL conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from ...core.task import Reason, State

_MAX_CHARACTER = "\U0010ffff"
_HAS_LABEL = (
    "EXISTS (SELECT 1 FROM task_label AS other WHERE other.key = ? AND other.value = ? "
    "AND other.task_name = task.task_name AND other.trigger_at = task.trigger_at)"
)


@frozen
class Sql:
    """Part of a statement, and the values of its placeholders."""

    text: str
    values: tuple[Any, ...] = ()


@frozen(kw_only=True)
class Selection:
    """Filters of tasks. A task must match all of them; an absent filter matches every task.

    :ivar prefix: the beginning of the name; empty for any.
    :ivar host: the ``host:port`` of the callback.
    :ivar labels: keys and values, all of which a task must have.
    :ivar due_from: the minimum of ``trigger_at``: seconds since 1970.
    :ivar due_before: the exclusive maximum of ``trigger_at``: seconds since 1970.
    """

    task_name: str | None = None
    prefix: str = ""
    state: State | None = None
    reason: Reason | None = None
    host: str | None = None
    labels: Sequence[tuple[str, str]] = field(default=(), converter=tuple)
    due_from: int | None = None
    due_before: int | None = None

    def conditions(self) -> dict[object, Sql]:
        """Return the condition of each filter on a row of ``task``, by the name of the filter."""
        found: dict[object, Sql] = {}
        if self.task_name is not None:
            found["name"] = Sql("task.task_name = ?", (self.task_name,))
            if not self.task_name.startswith(self.prefix):
                found["prefix"] = Sql("FALSE")
        elif self.prefix:
            following = successor(self.prefix)
            end = ("", ()) if following is None else (" AND task.task_name < ?", (following,))
            found["name"] = Sql(f"task.task_name >= ?{end[0]}", (self.prefix, *end[1]))
        for name, sign, bound in (("from", ">=", self.due_from), ("before", "<", self.due_before)):
            if bound is not None:
                found[name] = Sql(f"task.trigger_at {sign} ?", (bound,))
        if self.state is not None:
            # SQLite uses a partial index only for a literal, not for a placeholder.
            found["state"] = Sql(f"state = '{self.state.value}'")
        if self.reason is not None:
            found["reason"] = Sql("state = 'failed' AND reason = ?", (self.reason.value,))
        if self.host is not None:
            found["host"] = Sql("host = ?", (self.host,))
        return found | {label: Sql(_HAS_LABEL, label) for label in self.labels}


def successor(prefix: str) -> str | None:
    """Return the least text greater than every text with a prefix; ``None`` if there is none."""
    stem = prefix.rstrip(_MAX_CHARACTER)
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    # Surrogates are not valid characters.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)
