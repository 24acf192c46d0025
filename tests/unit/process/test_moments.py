"""The age of a moment, on two clocks that the test turns."""

from __future__ import annotations

import pytest

from callme.process.moments import LONG_AGO, TwoClocks


@pytest.mark.parametrize(
    ("monotonic", "wall", "age"),
    [(7.0, 7.0, 7.0), (0.0, 60.0, 60.0), (7.0, -3600.0, 7.0), (0.0, -1.0, 0.0)],
    ids=["both go on", "the machine was suspended", "the wall clock was set back", "a little back"],
)
def test_age_is_what_the_clock_says_that_has_advanced_further(
    monotonic: float, wall: float, age: float
) -> None:
    readings = [100.0, 1_800_000_000.0]
    clocks = TwoClocks(lambda: readings[0], lambda: readings[1])
    moment = clocks.now()
    readings[0] += monotonic
    readings[1] += wall
    assert clocks.age(moment) == age


def test_what_was_long_ago_is_older_than_any_age() -> None:
    assert TwoClocks(lambda: 0.0, lambda: 0.0).age(LONG_AGO) == float("inf")
