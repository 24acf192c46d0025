"""History: steps and percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.reports.history import Bucket, aggregate, bucketize, percentile
from callme.store.interface import MinuteOutcomes
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
    ],
)
def test_percentile_of_counts(counts: dict[int, int], percent: int, value: int | None) -> None:
    assert percentile(counts, percent) == value


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100))
def test_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    counts = {value: values.count(value) for value in values}
    rank = -(-len(values) * percent // 100)
    assert percentile(counts, percent) == sorted(values)[rank - 1]


def test_minutes_are_grouped_into_steps() -> None:
    minutes = [
        MinuteOutcomes(minute=NOON - 60, succeeded=9, failed=9),
        MinuteOutcomes(minute=NOON, succeeded=1, failed=2, lateness_ms={10: 3}),
        MinuteOutcomes(minute=NOON + 240, succeeded=3, failed=0, lateness_ms={20: 2, 10: 1}),
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
