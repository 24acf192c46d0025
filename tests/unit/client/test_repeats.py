"""Repetition of requests: when it is safe, and after which delay."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from callme.client import Repeats
from callme.client.repeats import seconds_of

NOW = datetime(2026, 11, 24, 10, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("status", "is_repeatable", "expected"),
    [
        (503, True, 0.5),
        (503, False, None),
        (502, True, 0.5),
        (None, True, 0.5),
        (None, False, None),
        (429, False, 0.5),
        (500, True, None),
        (409, True, None),
        (200, True, None),
    ],
)
def test_request_is_repeated_where_it_is_safe(
    status: int | None, is_repeatable: bool, expected: float | None
) -> None:
    assert Repeats().delay(0, status=status, is_repeatable=is_repeatable) == expected


def test_delay_doubles_until_the_limit() -> None:
    repeats = Repeats(limit=3, first_delay_seconds=1)
    delays = [repeats.delay(made, status=503, is_repeatable=True) for made in range(4)]
    assert delays == [1, 2, 4, None]


@pytest.mark.parametrize(("retry_after", "expected"), [("7", 7), ("3600", 60), ("soon", 0.5)])
def test_delay_follows_retry_after_within_a_bound(retry_after: str, expected: float) -> None:
    delay = Repeats().delay(0, status=503, is_repeatable=True, retry_after=retry_after)
    assert delay == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tue, 24 Nov 2026 10:00:05 GMT", 5),
        ("Tue, 24 Nov 2026 10:00:05 -0000", 5),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0),
        ("12", 12),
        ("-1", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str | None, expected: float) -> None:
    assert seconds_of(text, NOW) == expected
