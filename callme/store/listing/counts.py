"""Bounded counts of the tasks that match filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from ...core.task import State
from ..interface import Cursor
from .plan import choose_plan
from .selection import Selection
from .sources import KEYS, NAME_ORDER

MAX_COUNTED = 10_000
"""Maximum number of tasks that are counted, which takes up to 50 ms."""
MAX_COUNTED_BY_STATE = 2_000
"""Maximum number of tasks that are counted for each state, up to 40 ms for all states."""
MAX_EXAMINED = 1_000
"""Maximum number of tasks for which a count of many tasks reads more than an index."""


@frozen
class Count:
    """Number of tasks, up to a limit.

    :ivar is_exact: whether there are no more tasks than ``number``.
    """

    number: int
    is_exact: bool = True

    def __add__(self, other: Count) -> Count:
        """Return the sum of two counts."""
        return Count(self.number + other.number, self.is_exact and other.is_exact)


def count_tasks(cursor: Cursor, /, **filters: Any) -> Count:
    """Return the number of tasks that match filters, up to :data:`MAX_COUNTED`.

    :param filters: those of :class:`callme.store.listing.selection.Selection`.
    """
    return _count(cursor, Selection(**filters), MAX_COUNTED)


def count_states(cursor: Cursor, /, **filters: Any) -> Mapping[State, Count]:
    """Return the number of matching tasks by state, each up to :data:`MAX_COUNTED_BY_STATE`.

    :param filters: those of :func:`count_tasks`; a state among them is ignored.
    """
    selection, most = Selection(**{**filters, "state": None}), MAX_COUNTED_BY_STATE
    if selection.reason is not None:
        # Only failed tasks have a reason.
        return {**dict.fromkeys(State, Count(0)), State.FAILED: _count(cursor, selection, most)}
    plan = choose_plan(cursor, selection, NAME_ORDER)
    if plan.end(cursor) is None:
        keys = plan.keys(is_ordered=False)
        statement = (
            f"SELECT state, count(*) FROM ({keys.text}) AS matching JOIN {KEYS} "
            "ON task.task_name = matching.task_name AND task.trigger_at = matching.trigger_at "
            "GROUP BY state"
        )
        found = dict(cursor.execute(statement, (*keys.values, most + 1)).fetchall())
        if sum(found.values()) <= most:
            return {state: Count(found.get(state.value, 0)) for state in State}
    return {state: _count(cursor, evolve(selection, state=state), most) for state in State}


def _count(cursor: Cursor, selection: Selection, most: int) -> Count:
    plan = choose_plan(cursor, selection, NAME_ORDER)
    end = plan.end(cursor, examined=MAX_EXAMINED)
    keys = plan.keys(*([] if end is None else [plan.bound("<", end)]), is_ordered=False)
    (number,) = cursor.execute(
        f"SELECT count(*) FROM ({keys.text}) AS counted", (*keys.values, most + 1)
    ).fetchone()
    return Count(min(number, most), end is None and number <= most)
