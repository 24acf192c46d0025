"""History: steps and percentiles."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.defer import Deferred

from callme.reports.history import (
    READS_PER_CHECK,
    Bucket,
    HistoryReader,
    aggregate,
    bucketize,
)
from callme.store.database import Store
from callme.store.interface import Histogram, MinuteOutcomes
from tests.helpers.tasks import NOON


@pytest.mark.parametrize(
    ("counts", "percent", "value"),
    [
        ({}, 50, None),
        ({7: 1}, 50, 7),
        ({7: 1}, 99, 7),
        ({1: 1, 2: 1}, 50, 1),
        ({1: 1, 2: 1}, 51, 2),
        ({5: 99, 900: 1}, 99, 5),
        ({5: 98, 900: 2}, 99, 900),
        ({900: 2, 5: 98}, 99, 900),
        ({-5: 1}, 50, 0),
        ({10: 2**31, 20: 2**31}, 50, 10),
    ],
)
def test_percentile_of_counts(counts: dict[int, int], percent: int, value: int | None) -> None:
    assert Histogram.of(counts).percentiles(percent) == [value]


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100))
def test_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    counts = {value: values.count(value) for value in values}
    rank = -(-len(values) * percent // 100)
    assert Histogram.of(counts).percentiles(percent) == [sorted(values)[rank - 1]]


@given(st.integers(0, 10**15))
def test_value_of_a_histogram_has_its_first_two_digits(value: int) -> None:
    digits = str(value)
    rounded = int(digits[:2] + "0" * len(digits[2:]))
    assert Histogram.of({value: 3}).percentiles(50) == [rounded]


def test_histogram_of_a_busy_minute_is_small() -> None:
    """A day has 1,440 minutes, of which each may have a value for every two digits."""
    histogram = Histogram.of(dict.fromkeys(range(100_000), 3))
    assert sys.getsizeof(histogram._packed) < 2048


def test_minutes_are_grouped_into_steps() -> None:
    minutes = [
        MinuteOutcomes(minute=NOON - 60, succeeded=9, failed=9),
        MinuteOutcomes(minute=NOON, succeeded=1, failed=2, lateness_ms=Histogram.of({10: 3})),
        MinuteOutcomes(
            minute=NOON + 240, succeeded=3, failed=0, lateness_ms=Histogram.of({20: 2, 10: 1})
        ),
        MinuteOutcomes(minute=NOON + 300, succeeded=0, failed=1),
        MinuteOutcomes(minute=NOON + 600, succeeded=9, failed=9),
    ]
    assert bucketize(minutes, NOON, 2, 5) == [
        Bucket(begin=NOON, succeeded=4, failed=2, p50_ms=10, p99_ms=20),
        Bucket(begin=NOON + 300, succeeded=0, failed=1),
    ]
    assert aggregate(minutes, NOON) == Bucket(
        begin=NOON, succeeded=22, failed=21, p50_ms=10, p99_ms=20
    )


class Outcomes:
    """Store that contains only successes by minute."""

    def __init__(self) -> None:
        self.succeeded: dict[int, int] = {}
        self.minutes_read = 0

    def read(self, query: Any, since: int, until: int = 10**10) -> Deferred[Sequence[Any]]:
        found = [
            MinuteOutcomes(minute=minute, succeeded=count, failed=0)
            for minute, count in sorted(self.succeeded.items())
            if since <= minute < until
        ]
        self.minutes_read += len(found)
        return defer.succeed(found)


async def test_history_is_exact_and_reads_few_minutes_again() -> None:
    outcomes, now = Outcomes(), NOON
    outcomes.succeeded = {NOON - 60 * number: 1 for number in range(400)}
    reader = HistoryReader(store=cast(Store, outcomes), now=lambda: now, hours=3)
    assert sum(one.succeeded for one in (await reader.read()).ended) == 181
    for _ in range(2 * READS_PER_CHECK):
        now += 60
        outcomes.succeeded[now] = 2
        outcomes.minutes_read = 0
        ended = (await reader.read()).ended
        since = now - 3 * 3600
        expected = {at: n for at, n in outcomes.succeeded.items() if since <= at}
        assert {one.minute: one.succeeded for one in ended} == expected
        assert [one.minute for one in ended] == sorted(expected)
        assert outcomes.minutes_read <= 6 + 5


async def test_outcome_that_was_stored_late_is_found_by_a_check() -> None:
    outcomes, now = Outcomes(), NOON
    reader = HistoryReader(store=cast(Store, outcomes), now=lambda: now, hours=3)
    await reader.read()
    outcomes.succeeded[NOON - 3600] = 1
    counts = []
    for _ in range(READS_PER_CHECK):
        now += 2
        counts.append(sum(one.succeeded for one in (await reader.read()).ended))
    assert (counts[0], counts[-1]) == (0, 1)


async def test_history_is_complete_after_a_pause() -> None:
    outcomes, now = Outcomes(), NOON
    outcomes.succeeded = {NOON + 60 * number: 1 for number in range(-180, 400)}
    reader = HistoryReader(store=cast(Store, outcomes), now=lambda: now, hours=3)
    await reader.read()
    for pause in (7200, 14_400):
        now += pause
        ended = (await reader.read()).ended
        assert [one.minute for one in ended if one.minute <= now] == list(
            range(now - 3 * 3600, now + 60, 60)
        )
