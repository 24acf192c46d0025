"""The interface of one end of a move: a store that no daemon uses, in the order of task_id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from .codec import ATTEMPT, STORED_DEFINITION, Columns, Row
from .listing.damaged import Examined

TASK_ROW = Columns(
    (
        "task_id",
        *STORED_DEFINITION,
        "state",
        "reason",
        "detail",
        "due_at",
        "attempts_used",
        "last_attempt",
        "claimed_at_ms",
        "lease_until",
        "node",
        "created_at_ms",
        "rescheduled_from",
        "rescheduled_at_ms",
        "finished_at_ms",
        "first_lateness_ms",
    )
)
ATTEMPT_ROW = Columns(("task_id", *ATTEMPT))
OTHER_TABLES: Mapping[str, Columns] = {
    "host_setting": Columns(
        ("host", "max_concurrent", "max_per_minute", "paused_at", "paused_until")
    ),
    "acknowledgement": Columns(("subject", "until_ms")),
    "removed_outcome": Columns(("finished_at_ms", "state", "lateness_ms")),
}
"""Further tables, besides tasks and attempts, with the columns that are copied."""


@frozen
class Counts:
    """Numbers of rows in a store.

    :ivar states: the number of tasks by state, without zeros.
    """

    states: dict[str, int]
    attempts: int

    @property
    def tasks(self) -> int:
        """Number of all tasks."""
        return sum(self.states.values())


class TransferEndpoint(ABC):
    """Store that daemons cannot use until it is closed.

    :ivar name: the name for people, without secrets.
    """

    name: str

    @abstractmethod
    def _select(self, statement: str, *values: Any) -> Iterator[Row]:
        """Return the rows of a query, fetched on demand."""

    @abstractmethod
    def ensure_no_daemon(self) -> None:
        """Raise :exc:`callme.store.interface.CannotOpen` if a daemon uses the store."""

    @abstractmethod
    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        """Add tasks and their attempts in one transaction."""

    @abstractmethod
    def replace(self, table: str, columns: Columns, rows: Iterable[Row]) -> None:
        """Replace all rows of a table in one transaction."""

    @abstractmethod
    def find_damaged(self, after: int, limit: int) -> Examined:
        """Search for damaged tasks: see :func:`callme.store.listing.damaged.find_damaged`."""

    @abstractmethod
    def finalize(self) -> None:
        """Make the store ready for daemons."""

    @abstractmethod
    def close(self) -> None:
        """Release the store."""

    def count_rows(self) -> Counts:
        """Return the numbers of tasks and attempts."""
        rows = self._select("SELECT state, count(*) FROM task GROUP BY state")
        states = {str(state): int(count) for state, count in rows}
        return Counts(states, self._number("SELECT count(*) FROM attempt"))

    def count_to(self, task_id: int) -> int:
        """Return the number of tasks up to a task_id."""
        return self._number("SELECT count(*) FROM task WHERE task_id <= ?", task_id)

    def last(self) -> int:
        """Return the largest task_id; 0 if there is no task."""
        return self._number("SELECT max(task_id) FROM task")

    def next_chunk_end(self, after: int, count: int) -> int | None:
        """Return the last task_id of the next ``count`` tasks; ``None`` after the last task."""
        ids = "SELECT task_id FROM task WHERE task_id > ? ORDER BY task_id LIMIT ?"
        return self._number(f"SELECT max(task_id) FROM ({ids}) AS chunk", after, count) or None

    def tasks(self, after: int, to: int) -> Iterator[Row]:
        """Yield the tasks whose task_id is greater than ``after``, and at most ``to``."""
        return self._between(f"SELECT {TASK_ROW} FROM task", after, to)

    def attempts(self, after: int, to: int) -> Iterator[Row]:
        """Yield the attempts of the tasks in such a range."""
        return self._between(f"SELECT {ATTEMPT_ROW} FROM attempt", after, to)

    def rows_of(self, table: str, columns: Columns) -> Iterator[Row]:
        """Yield the rows of one of :data:`OTHER_TABLES`."""
        return self._select(f"SELECT {columns} FROM {table}")

    def _between(self, select: str, after: int, to: int) -> Iterator[Row]:
        where = "WHERE task_id > ? AND task_id <= ? ORDER BY task_id"
        return self._select(f"{select} {where}", after, to)

    def _number(self, statement: str, *values: Any) -> int:
        (row,) = self._select(statement, *values)
        return int(row[0] or 0)
