"""One side of a move: a store that no daemon uses, read or written in the order of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from attrs import frozen

from .codec import ATTEMPT, STORED_DEFINITION, Columns, Row

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
        "claimed_at",
        "lease_until",
        "node",
        "created_at",
        "finished_at",
    )
)
ATTEMPT_ROW = Columns(("task_id", *ATTEMPT))


@frozen
class Counts:
    """What a store holds.

    :ivar states: how many tasks there are in each state that there are any in.
    """

    states: dict[str, int]
    attempts: int

    @property
    def tasks(self) -> int:
        """How many tasks there are in all."""
        return sum(self.states.values())


class TransferEndpoint(Protocol):
    """A store, closed to daemons until it is let go.

    :ivar shown: what people call it.
    """

    shown: str

    def refuse_daemons(self) -> None:
        """See to it that no daemon uses it.

        :raises CannotOpen: when one lives on it.
        """

    def counts(self) -> Counts:
        """Count what it holds."""

    def count_to(self, task_id: int) -> int:
        """Count the tasks up to a number."""

    def last(self) -> int:
        """Return the greatest number of a task; 0 where there is none."""

    def boundary(self, after: int, count: int) -> int | None:
        """Return the number of the last of the next so many tasks; ``None`` after the last."""

    def tasks(self, after: int, to: int) -> Iterator[Row]:
        """Yield the tasks with numbers after one and up to another."""

    def attempts(self, after: int, to: int) -> Iterator[Row]:
        """Yield the attempts of those."""

    def write(self, tasks: Iterable[Row], attempts: Iterable[Row]) -> None:
        """Add tasks and their attempts, all in one transaction."""

    def finish(self) -> None:
        """Make it ready for daemons."""

    def close(self) -> None:
        """Let it go."""
