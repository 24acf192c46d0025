from __future__ import annotations

import pytest

from callme.core.text.durations import rough_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (59, "less than a minute"),
        (60, "1 minute"),
        (7_300, "2 hours"),
        (3 * 86_400, "3 days"),
        (40 * 31_557_600, "40 years"),
    ],
)
def test_rough_duration_has_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
