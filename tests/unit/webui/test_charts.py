"""Charts: bars, scales and labels."""

from __future__ import annotations

import re

import pytest
from twisted.web.template import Tag, flattenString

from callme.reports.history import Bucket
from callme.webui import charts
from callme.webui.charts import TimeAxis
from tests.helpers.tasks import NOON
from tests.helpers.world import World

AXIS = TimeAxis(begin=NOON, steps=4, step_minutes=1)


def drawn(chart: Tag) -> str:
    text: bytes = World.result(flattenString(None, chart))
    return text.decode()


def bars(text: str) -> list[tuple[float, float, str]]:
    """Return the top, the bottom and the title of each bar."""
    found = re.findall(r'd="M\d+ ([\d.]+)H\d+V([\d.]+)H\d+z"><title>([^<]*)<', text)
    return [(float(top), float(bottom), title) for top, bottom, title in found]


def happened(*ended: tuple[int, int]) -> list[Bucket]:
    return [
        Bucket(begin=NOON + 60 * n, succeeded=good, failed=bad)
        for n, (good, bad) in enumerate(ended)
    ]


def test_failures_are_drawn_below_the_axis() -> None:
    text = drawn(charts.past(AXIS, happened((30, 0), (0, 0), (15, 10), (0, 1)), "said"))
    up, half, down, least = bars(text)
    assert [one[2] for one in (up, half, down, least)] == [
        "12:00: 30 succeeded",
        "12:02: 15 succeeded",
        "12:02: 10 failed",
        "12:03: 1 failed",
    ]
    line = up[1]
    assert up[0] == 0
    assert half == (line / 2, line, half[2])
    assert down[0] == least[0] == line
    assert down[1] == 100
    # All bars have one scale, and a minimum height.
    assert line / 30 == pytest.approx((100 - line) / 10)
    assert least[1] - least[0] >= 2


@pytest.mark.parametrize("ended", [[(0, 0)], [(5, 0)], [(0, 5)], [(10**6, 1)], [(1, 10**6)]])
def test_every_bar_lies_inside_the_chart(ended: list[tuple[int, int]]) -> None:
    for top, bottom, _ in bars(drawn(charts.past(AXIS, happened(*ended), "said"))):
        assert 0 <= top < bottom <= 100
        assert bottom - top >= 2


def path(step: int) -> str:
    """Return the target of the link of a bar."""
    return f"/list?step={step}"


def test_bars_of_due_calls_are_links_outside_the_tab_order() -> None:
    """A screen reader finds them by their names; the keyboard has the table below the chart."""
    text = drawn(charts.ahead(AXIS, [1, 0, 200, 100], (), "said", path))
    assert 'role="group"' in text
    links = re.findall(r'<a href="([^"]*)" tabindex="-1" aria-label="([^"]*)"', text)
    assert links == [
        ("/list?step=0", "12:00: 1 call"),
        ("/list?step=2", "12:02: 200 calls"),
        ("/list?step=3", "12:03: 100 calls"),
    ]
    assert 'role="img"' in drawn(charts.ahead(AXIS, [0] * 4, (), "said", path))


def test_overloaded_minutes_are_marked() -> None:
    text = drawn(charts.ahead(AXIS, [1, 0, 200, 100], {2}, 'a "label"', path))
    assert 'aria-label="a &quot;label&quot;"' in text
    plain, overloaded = text.split('class="overloaded"')
    assert [one[2] for one in bars(plain)] == ["12:00: 1 call", "12:03: 100 calls"]
    assert bars(overloaded) == [(0, 100, "12:02: 200 calls, overloaded")]
    assert ">200</text>" in text
    assert bars(drawn(charts.ahead(AXIS, [0] * 4, (), "", path))) == []


def test_lateness_line_has_gaps_without_calls() -> None:
    late = [
        Bucket(begin=NOON, succeeded=1, failed=0, p50_ms=p50, p99_ms=p99)
        for p50, p99 in ((10, 100), (10, None), (None, 5), (1, 5000))
    ]
    text = drawn(charts.lateness(AXIS, late, "said"))
    p99, p50 = re.findall(r'class="p\d\d" d="([^"]*)"', text)
    assert p99 == "M0 50.00H4M8 82.53H12V7.53H16"
    assert p50 == "M0 75.00H4V75.00H8M12 100.00H16"
    assert re.findall(r'class="mark"[^>]*>([^<]*)<', text) == ["10 ms", "100 ms", "1 s", "10 s"]


def test_span_labels_its_steps() -> None:
    assert (AXIS.minutes, AXIS.at(3), AXIS.unit()) == (4, NOON + 180, "per minute")
    wide = TimeAxis(begin=NOON, steps=144, step_minutes=10)
    assert (wide.minutes, wide.unit()) == (1440, "per 10 minutes")
    text = drawn(charts.ahead(wide, [0] * 144, (), "", path))
    assert re.findall(r'class="hour"[^>]*>([^<]*)<', text) == ["18:00", "00:00", "06:00"]
