"""Moments on two clocks, whose age is right even if the machine was suspended or a clock was set.

The monotonic clock of Linux stops while the machine is suspended, and the wall clock may be set
back. The age of a moment is measured by the clock that has advanced further.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from attrs import frozen


class Moment(NamedTuple):
    """A reading of both clocks, in seconds.

    :ivar wall: seconds since 1970.
    """

    monotonic: float
    wall: float


LONG_AGO = Moment(-inf, -inf)
"""A moment that is older than any age."""


@frozen
class TwoClocks:
    """The monotonic clock and the wall clock."""

    _monotonic: Callable[[], float]
    _wall: Callable[[], float]

    def now(self) -> Moment:
        """Return the present moment."""
        return Moment(self._monotonic(), self._wall())

    def age(self, moment: Moment) -> float:
        """Return the seconds since a moment, by the clock that has advanced further."""
        return max(self._monotonic() - moment.monotonic, self._wall() - moment.wall)
