"""SVG charts: bars and lines drawn from numbers.

Bars and lines are in an inner box that is stretched to the available width. Text is outside of
it, placed by percentages, so that it is never stretched. There are no inline styles, as the
Content-Security-Policy forbids them; the style sheet refers to classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen
from twisted.web.template import Tag

from ..reports.history import Bucket
from . import widgets

HEIGHT = 100
"""The height of the inner box, in its own units; its width is 4 for each step."""
_MIN_BAR = 2.0
"""The least height of a bar, so that one failure among thousands is visible."""
_MIN_BELOW = 16.0
"""The least height of the part below the line."""
_MIN_LATENESS_MS, _MIN_TOP_MS = 1, 1_000
"""The bottom and the lowest top of the scale of lateness, in ms."""
_TICK_MINUTES = {60: 15, 180: 30, 720: 180, 1440: 360}
"""The minutes between two ticks, by the minutes of the axis."""


@frozen(kw_only=True)
class TimeAxis:
    """The time axis of a chart.

    :ivar begin: its first second, since 1970.
    :ivar steps: the number of its steps.
    :ivar step_minutes: the length of each step.
    """

    begin: int
    steps: int
    step_minutes: int

    @property
    def minutes(self) -> int:
        """The length of the axis, in minutes."""
        return self.steps * self.step_minutes

    def at(self, number: int) -> int:
        """Return the first second of a step, since 1970."""
        return self.begin + number * self.step_minutes * 60

    def unit(self) -> str:
        """Return the unit of the bars: ``per minute``, ``per 5 minutes``."""
        return "per minute" if self.step_minutes == 1 else f"per {self.step_minutes} minutes"


def past(axis: TimeAxis, buckets: Sequence[Bucket], label: str) -> Tag:
    """Draw successes above a line, and failures below it."""
    up = max((bucket.succeeded for bucket in buckets), default=0)
    down = max((bucket.failed for bucket in buckets), default=0)
    below = min(max(_MIN_BELOW, HEIGHT * down / max(1, up + down)), HEIGHT - _MIN_BELOW)
    line = HEIGHT - below
    # Both parts have one scale, or few failures would look like many.
    unit = min(room / peak for room, peak in ((line, up), (below, down), (HEIGHT, 1)) if peak)
    good, bad = Tag("g")(class_="good"), Tag("g")(class_="bad")
    for number, bucket in enumerate(buckets):
        when = widgets.clock_time(bucket.begin)
        if bucket.succeeded:
            height = max(_MIN_BAR, unit * bucket.succeeded)
            good(_bar(number, line - height, line, f"{when}: {bucket.succeeded:,} succeeded"))
        if bucket.failed:
            height = max(_MIN_BAR, unit * bucket.failed)
            bad(_bar(number, line, line + height, f"{when}: {bucket.failed:,} failed"))
    box = _box(axis, good, bad, _rule(axis, line))
    return _chart(axis, [box, _mark("0", f"{up:,}")], label)


def ahead(
    axis: TimeAxis,
    calls: Sequence[int],
    overloaded: Iterable[int],
    label: str,
    href: Callable[[int], str],
) -> Tag:
    """Draw the due calls; each bar is a link.

    :param overloaded: the numbers of the steps with calls that would start too late.
    :param href: returns the target of a bar, given the number of its step.
    """
    peak, over = max(calls, default=0), set(overloaded)
    normal_bars, overloaded_bars = list[Tag](), list[Tag]()
    for number, count in enumerate(calls):
        if count:
            title = f"{widgets.clock_time(axis.at(number))}: {widgets.pluralize(count, 'call')}"
            if number in over:
                title += ", overloaded"
            height = max(_MIN_BAR, HEIGHT * count / peak)
            kind, bars = ("overloaded", overloaded_bars) if number in over else ("due", normal_bars)
            bar = Tag("g")(_bar(number, HEIGHT - height, HEIGHT, title), class_=kind)
            bars.append(_link(bar, href(number), title))
    bars = normal_bars + overloaded_bars
    box = _box(axis, *bars, _rule(axis, HEIGHT))
    chart = _chart(axis, [box, _mark("0", f"{peak:,}")], label)
    # Assistive technologies ignore the links in an image.
    return chart(role="group" if bars else "img")


def _link(content: Tag, href: str, label: str) -> Tag:
    # The many links are not tab stops, because the table below the chart has links for the
    # keyboard.
    link = Tag("a")(content, href=href, tabindex="-1")
    link.attributes["aria-label"] = label
    return link


def lateness(axis: TimeAxis, buckets: Sequence[Bucket], label: str) -> Tag:
    """Draw the lateness of first attempts on a logarithmic scale."""
    worst = max((bucket.p99_ms or 0 for bucket in buckets), default=0)
    top = max(math.log10(_MIN_TOP_MS), math.ceil(math.log10(max(_MIN_LATENESS_MS, worst))))

    def y(lateness_ms: int) -> float:
        return HEIGHT * (1 - math.log10(max(_MIN_LATENESS_MS, lateness_ms)) / top)

    decades = range(1, int(top) + 1)
    grid = [_grid(f"{y(10**decade):.3g}%") for decade in decades]
    marks = [_mark(f"{y(10**decade):.3g}%", _power_of_ten(decade)) for decade in decades]
    lines = [
        _line("p99", _step_path([bucket.p99_ms for bucket in buckets], y)),
        _line("p50", _step_path([bucket.p50_ms for bucket in buckets], y)),
    ]
    return _chart(axis, [*grid, _box(axis, *lines), *marks], label)


def _bar(number: int, top: float, bottom: float, title: str) -> Tag:
    x = 4 * number
    return Tag("path")(d=f"M{x} {top:.2f}H{x + 3}V{bottom:.2f}H{x}z")(Tag("title")(title))


def _line(kind: str, path: str) -> Tag:
    line = Tag("path")(class_=kind, d=path)
    line.attributes["vector-effect"] = "non-scaling-stroke"
    return line


def _rule(axis: TimeAxis, y: float) -> Tag:
    return _line("rule", f"M0 {y:.2f}H{4 * axis.steps}")


def _step_path(values: Sequence[int | None], y: Callable[[int], float]) -> str:
    """Return the path of a step line, with a gap for each ``None``."""
    parts: list[str] = []
    drawing = False
    for number, value in enumerate(values):
        if value is not None:
            height = f"{y(value):.2f}"
            parts.append(f"{'V' if drawing else f'M{4 * number} '}{height}H{4 * number + 4}")
        drawing = value is not None
    return "".join(parts)


def _box(axis: TimeAxis, *content: Tag) -> Tag:
    box = Tag("svg")(class_="box", width="100%", height="100%")
    box.attributes["viewBox"] = f"0 0 {4 * axis.steps} {HEIGHT}"
    box.attributes["preserveAspectRatio"] = "none"
    return box(*content)


def _grid(y: str) -> Tag:
    return Tag("line")(class_="grid", x1="0", x2="100%", y1=y, y2=y)


def _mark(y: str, text: str) -> Tag:
    return Tag("text")(text, class_="mark", x="0", y=y, dy="1.1em")


def _power_of_ten(decade: int) -> str:
    """Return ten to a power, in ms, with its unit: ``100 ms``, ``10 s``."""
    return f"{10**decade} ms" if decade < 3 else f"{10 ** (decade - 3):,} s"


def _chart(axis: TimeAxis, content: Sequence[Tag], label: str) -> Tag:
    chart = Tag("svg")(class_="chart", role="img")
    chart.attributes["aria-label"] = label
    return chart(*_ticks(axis), *content)


def _ticks(axis: TimeAxis) -> list[Tag]:
    interval = _TICK_MINUTES.get(axis.minutes, max(1, axis.minutes // 6)) * 60
    first = -(-axis.begin // interval) * interval
    ticks = []
    for second in range(first, axis.at(axis.steps) + 1, interval):
        share = (second - axis.begin) / (axis.minutes * 60)
        # A label closer to an edge would be cut off.
        if 0.06 <= share <= 0.94:
            x = f"{share * 100:.2f}%"
            ticks.append(Tag("line")(class_="grid", x1=x, x2=x, y1="0", y2="100%"))
            time = widgets.clock_time(second)
            ticks.append(Tag("text")(time, class_="hour", x=x, y="100%", dy="1.25em"))
    return ticks
