"""What is kept in memory for clients: bodies that arrive or are answered, answers not yet read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field

C = TypeVar("C")


@define(eq=False)
class Held(Generic[C]):
    """Counts the bytes that are kept for each connection.

    :param most: how many there may be for all of them together.
    """

    most: int
    _sizes: dict[C, int] = field(factory=dict, init=False)
    _total: int = field(default=0, init=False)

    def hold(self, one: C, size: int) -> None:
        """Say how many bytes are kept for one now."""
        self._total += size - self._sizes.pop(one, 0)
        if size:
            self._sizes[one] = size

    @property
    def too_much(self) -> bool:
        """Whether somebody must go."""
        return self._total > self.most

    def largest(self, may_go: Callable[[C], bool]) -> C | None:
        """Return the one that most is kept for, of those that may go."""
        going = [one for one in self._sizes if may_go(one)]
        return max(going, key=self._sizes.__getitem__, default=None)
