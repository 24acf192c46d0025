"""Charts as SVG: numbers in, tags out.

Bars and lines are drawn in a box of their own that is stretched to whatever width there is;
what is written stands outside of it, placed by percentages, and is never stretched. There is no
style in here, which a strict Content-Security-Policy would not allow: classes say what is what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen
from twisted.web.template import Tag

from ..reports.history import Bucket
from . import widgets

HEIGHT = 100
"""The height of the box that is stretched; its width is 4 for each step."""
_LEAST = 2.0
"""How high a bar is at least: one failure among thousands must not vanish."""
_BELOW = 16.0
"""The least height of what is below the line."""
_FROM_MS, _TO_MS = 1, 1_000
"""What the scale of lateness spans at least, in milliseconds."""
_TICKS = {60: 15, 180: 30, 720: 180, 1440: 360}
"""How many minutes are between two marks, by how many there are."""


@frozen
class Span:
    """A stretch of time along a chart.

    :ivar begin: the second that it begins with.
    :ivar count: how many steps it has.
    :ivar length: how many minutes one has.
    """

    begin: int
    count: int
    length: int

    @property
    def minutes(self) -> int:
        """How long it is."""
        return self.count * self.length

    def at(self, number: int) -> int:
        """Return the second that a step begins with."""
        return self.begin + number * self.length * 60

    def per(self) -> str:
        """Return what one step is."""
        return "per minute" if self.length == 1 else f"per {self.length} minutes"


def past(span: Span, steps: Sequence[Bucket], label: str) -> Tag:
    """Draw what succeeded above a line, and what failed below it."""
    up = max((step.succeeded for step in steps), default=0)
    down = max((step.failed for step in steps), default=0)
    below = min(max(_BELOW, HEIGHT * down / max(1, up + down)), HEIGHT - _BELOW)
    line = HEIGHT - below
    # One scale for both, or a few failures would look like many.
    unit = min(room / most for room, most in ((line, up), (below, down), (HEIGHT, 1)) if most)
    good, bad = Tag("g")(class_="good"), Tag("g")(class_="bad")
    for number, step in enumerate(steps):
        when = widgets.clock_time(step.begin)
        if step.succeeded:
            height = max(_LEAST, unit * step.succeeded)
            good(_bar(number, line - height, line, f"{when}: {step.succeeded:,} succeeded"))
        if step.failed:
            height = max(_LEAST, unit * step.failed)
            bad(_bar(number, line, line + height, f"{when}: {step.failed:,} failed"))
    box = _box(span, good, bad, _rule(span, line))
    return _chart(span, [box, _mark("0", f"{up:,}")], label)


def ahead(span: Span, calls: Sequence[int], overloaded: Iterable[int], label: str) -> Tag:
    """Draw the calls that are to be made.

    :param overloaded: the numbers of the steps that hold more than can be made in time.
    """
    most, over = max(calls, default=0), set(overloaded)
    plain, much = Tag("g")(class_="due"), Tag("g")(class_="overloaded")
    for number, those in enumerate(calls):
        if those:
            says = f"{widgets.clock_time(span.at(number))}: {widgets.pluralize(those, 'call')}"
            if number in over:
                says += ", more than can be made in time"
            height = max(_LEAST, HEIGHT * those / most)
            (much if number in over else plain)(_bar(number, HEIGHT - height, HEIGHT, says))
    box = _box(span, plain, much, _rule(span, HEIGHT))
    return _chart(span, [box, _mark("0", f"{most:,}")], label)


def lateness(span: Span, steps: Sequence[Bucket], label: str) -> Tag:
    """Draw how late calls were, on a scale of which each mark is ten times the last."""
    worst = max((step.p99 or 0 for step in steps), default=0)
    top = max(math.log10(_TO_MS), math.ceil(math.log10(max(_FROM_MS, worst))))

    def height(milliseconds: int) -> float:
        return HEIGHT * (1 - math.log10(max(_FROM_MS, milliseconds)) / top)

    decades = range(1, int(top) + 1)
    grid = [_grid(f"{height(10**one):.3g}%") for one in decades]
    marks = [_mark(f"{height(10**one):.3g}%", _power(one)) for one in decades]
    lines = [
        _line("p99", _steps([step.p99 for step in steps], height)),
        _line("p50", _steps([step.p50 for step in steps], height)),
    ]
    return _chart(span, [*grid, _box(span, *lines), *marks], label)


def _bar(number: int, top: float, bottom: float, says: str) -> Tag:
    x = 4 * number
    return Tag("path")(d=f"M{x} {top:.2f}H{x + 3}V{bottom:.2f}H{x}z")(Tag("title")(says))


def _line(kind: str, path: str) -> Tag:
    line = Tag("path")(class_=kind, d=path)
    line.attributes["vector-effect"] = "non-scaling-stroke"
    return line


def _rule(span: Span, y: float) -> Tag:
    return _line("rule", f"M0 {y:.2f}H{4 * span.count}")


def _steps(values: Sequence[int | None], height: Callable[[int], float]) -> str:
    """Return the path of a line that keeps its height through each step, and has gaps."""
    parts: list[str] = []
    drawing = False
    for number, value in enumerate(values):
        if value is not None:
            y = f"{height(value):.2f}"
            parts.append(f"{'V' if drawing else f'M{4 * number} '}{y}H{4 * number + 4}")
        drawing = value is not None
    return "".join(parts)


def _box(span: Span, *drawn: Tag) -> Tag:
    box = Tag("svg")(class_="box", width="100%", height="100%")
    box.attributes["viewBox"] = f"0 0 {4 * span.count} {HEIGHT}"
    box.attributes["preserveAspectRatio"] = "none"
    return box(*drawn)


def _grid(y: str) -> Tag:
    return Tag("line")(class_="grid", x1="0", x2="100%", y1=y, y2=y)


def _mark(y: str, says: str) -> Tag:
    return Tag("text")(says, class_="mark", x="0", y=y, dy="1.1em")


def _power(decade: int) -> str:
    """Return ten to a power of milliseconds, as a person says it."""
    return f"{10**decade} ms" if decade < 3 else f"{10 ** (decade - 3):,} s"


def _chart(span: Span, inside: Sequence[Tag], label: str) -> Tag:
    """Put what is drawn over marks of time."""
    chart = Tag("svg")(class_="chart", role="img")
    chart.attributes["aria-label"] = label
    return chart(*_hours(span), *inside)


def _hours(span: Span) -> list[Tag]:
    every = _TICKS.get(span.minutes, max(1, span.minutes // 6)) * 60
    first = -(-span.begin // every) * every
    marks = []
    for second in range(first, span.at(span.count) + 1, every):
        share = (second - span.begin) / (span.minutes * 60)
        if 0.06 <= share <= 0.94:
            x = f"{share * 100:.2f}%"
            marks.append(Tag("line")(class_="grid", x1=x, x2=x, y1="0", y2="100%"))
            says = Tag("text")(
                widgets.clock_time(second), class_="hour", x=x, y="100%", dy="1.25em"
            )
            marks.append(says)
    return marks
