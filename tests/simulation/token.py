"""A definition that a client sent, and the knowledge about its task.

Each has a unique number in the path of its callback, which identifies it wherever it moves. After
a lost response it is unknown whether the write was made. So a token has a set of possible places:
the ``trigger_at`` of its key, or ``None`` for nowhere.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, field

from .endpoints import Seen


@define(eq=False)
class Token:
    """A definition that was put, and the knowledge about its task.

    :ivar places: the places where it may exist now.
    :ivar placed: the number of possible puts and moves to each place.
    :ivar loose: the number of writes that may have moved it to an unknown place.
    :ivar since: the time (monotonic) since which its place is certain, or ``None``.
    :ivar moved_after: if a response said that it was moved there, the time (monotonic) of the
        request: calls before it were made elsewhere.
    :ivar inherited: the requests made for the task that it replaced.
    :ivar moved: whether it was ever moved, or may have been; ``removed``: deleted.
    """

    number: int
    name: str
    body: dict[str, Any]
    places: set[int | None] = field(factory=lambda: {None})
    placed: Counter[int] = field(factory=Counter)
    loose: int = 0
    since: float | None = None
    moved_after: float | None = None
    moved: bool = False
    removed: bool = False
    requests: list[Seen] = field(factory=list)
    inherited: list[Seen] = field(factory=list)

    @property
    def standing(self) -> list[int]:
        """The places where it may exist, in order."""
        return sorted(place for place in self.places if place is not None)

    @property
    def each(self) -> int:
        """The number of calls allowed for one put or move."""
        return 1 + int(self.body["retry"])

    def expires_at(self, trigger_at: int) -> int:
        return trigger_at + 60 * int(self.body["max_delay"])

    def expects(self, status: int) -> bool:
        expected = self.body["expected_http_status"]
        return any(
            one in (status, f"{status // 100}xx")
            for one in (expected if isinstance(expected, list) else [expected])
        )
