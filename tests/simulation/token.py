"""A definition that a client sent, and what is known of what became of it.

Each carries a number of its own in its callback's path, and so can be told from others
wherever it moves. An answer that was lost leaves a doubt: the write may have been made, or not.
So the places are kept where it may stand: the ``trigger_at`` of its key; ``None`` is nowhere.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, field

from .endpoints import Seen


@define(eq=False)
class Token:
    """A definition that was sent to be put, and what is known of it.

    :ivar places: where it may stand now.
    :ivar placed: how often it may have been put, or moved, to each place.
    :ivar loose: writes that may have moved it to a place that nobody was told.
    :ivar since: when it was certain to stand where it does (monotonic); ``None``: it is not.
    :ivar inherited: the requests made for what it replaced.
    :ivar moved: whether it was ever moved, or may have been; ``removed``: taken away.
    """

    number: int
    name: str
    body: dict[str, Any]
    places: set[int | None] = field(factory=lambda: {None})
    placed: Counter[int] = field(factory=Counter)
    loose: int = 0
    since: float | None = None
    moved: bool = False
    removed: bool = False
    requests: list[Seen] = field(factory=list)
    inherited: list[Seen] = field(factory=list)

    @property
    def standing(self) -> list[int]:
        """The places where it may stand, in order."""
        return sorted(place for place in self.places if place is not None)

    @property
    def each(self) -> int:
        """How many calls are allowed for one put or move."""
        return 1 + int(self.body["retry"])

    def expires_at(self, trigger_at: int) -> int:
        return trigger_at + 60 * int(self.body["max_delay"])

    def expects(self, status: int) -> bool:
        expected = self.body["expected_http_status"]
        return any(
            one in (status, f"{status // 100}xx")
            for one in (expected if isinstance(expected, list) else [expected])
        )
