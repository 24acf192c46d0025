"""What happened and what lies ahead: drawn, and told as tables."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from twisted.web.server import Request
from twisted.web.template import Element, Tag, flattenString, renderer, tags

from ..core.times import MINUTE
from ..reports.forecast import Forecast
from ..reports.history import Bucket, aggregate, bucketize
from ..reports.history_cache import HistorySnapshot
from . import charts
from .charts import Span
from .widgets import (
    clock,
    clock_time,
    duration,
    escape_invisible,
    minute,
    pluralize,
    table,
    template,
)

KEPT_SECONDS = 1
"""How much older than the last count what is drawn may be: no page says less than that."""
# Only a template has comments: whatever else is in a page, markup in it is escaped.
_PLACE = b"<!--charts-->"


@define(eq=False)
class ChartCache:
    """Keeps the last charts of each kind and length, and what they were drawn of."""

    _kept: dict[tuple[str, int], tuple[HistorySnapshot | Forecast, bytes]] = field(
        factory=dict, init=False
    )

    async def past(self, hours: int, happened: HistorySnapshot | None) -> bytes:
        """Return the charts of what happened; ``None`` is what was not counted yet."""
        if happened is None:
            title = f"The last {in_words(hours)}"
            return await flattenString(None, ChartPlaceholder("past", title, "What happened"))
        return await self._drawn("past", hours, happened, PastCharts(hours, happened))

    async def ahead(self, hours: int, forecast: Forecast | None) -> bytes:
        """Return the chart of what is ahead; ``None`` is what was not counted yet."""
        if forecast is None:
            title = f"The next {in_words(hours)}"
            return await flattenString(None, ChartPlaceholder("ahead", title, "What is ahead"))
        return await self._drawn("ahead", hours, forecast, AheadChart(hours, forecast))

    async def _drawn(
        self, kind: str, hours: int, source: HistorySnapshot | Forecast, chart: Element
    ) -> bytes:
        last = self._kept.get((kind, hours))
        if last is not None:
            since, drawn = last
            new = source.as_of - since.as_of
            if 0 <= new < KEPT_SECONDS and source.begin == since.begin:
                return drawn
        drawn = await flattenString(None, chart)
        self._kept[kind, hours] = (source, drawn)
        return drawn


def insert(page: bytes, charts: bytes) -> bytes:
    """Return a page with its charts in their place."""
    before, _, after = page.partition(_PLACE)
    return b"<!DOCTYPE html>" + before + charts + after


HOURS = {1: 1, 3: 1, 12: 5, 24: 10}
"""How many hours may be looked at, and how many minutes each step of the charts then has."""
_IN_TABLE = {1: 5, 3: 10, 12: 60, 24: 60}
"""How many minutes a row has where a chart is told as a table."""
_CROWDED_LISTED = 10


class PastCharts(Element):
    """What happened, drawn, and told as a table."""

    loader = template("past")

    def __init__(self, hours: int, happened: HistorySnapshot) -> None:
        super().__init__()
        self._hours = hours
        self._ended = happened.ended
        length, total = HOURS[hours], hours * 60
        # The minute that is not over is the last one.
        begin = happened.begin - (total - 1) * MINUTE
        self._span = Span(begin, total // length, length)

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        span = self._span
        happened = bucketize(self._ended, span.begin, span.count, span.length)
        whole = aggregate(self._ended, span.begin)
        return tag.fillSlots(
            title=f"The last {in_words(self._hours)}",
            per=span.per(),
            ended=charts.past(span, happened, _said_of_past(whole, span)),
            lateness=charts.lateness(span, happened, _said_of_lateness(whole)),
            table=self._table(),
        )

    def _table(self) -> Tag:
        length = _IN_TABLE[self._hours]
        rows = bucketize(self._ended, self._span.begin, self._hours * 60 // length, length)
        return table(
            f"What ended, in {length} minutes from each time",
            ["From", "#Succeeded", "#Failed", "#p50", "#p99"],
            [
                (
                    clock(step.begin),
                    f"{step.succeeded:,}",
                    f"{step.failed:,}",
                    duration(step.p50),
                    duration(step.p99),
                )
                for step in rows
            ],
        )


class AheadChart(Element):
    """What lies ahead, drawn, and told as a table."""

    loader = template("ahead")

    def __init__(self, hours: int, forecast: Forecast) -> None:
        super().__init__()
        self._hours = hours
        self._forecast = forecast
        self._span = Span(forecast.begin, hours * 60 // HOURS[hours], HOURS[hours])

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        span, calls = self._span, self._calls(self._span.length)
        over = {self._step(one.load.minute, span.length) for one in self._forecast.overloads}
        return tag.fillSlots(
            title=f"The next {in_words(self._hours)}",
            per=span.per(),
            calls=charts.ahead(span, calls, over, _said_of_ahead(calls, span)),
            overloaded=self._overload_text(),
            table=self._table(),
        )

    def _step(self, minute_of_load: int, length: int) -> int:
        return max(0, minute_of_load - self._span.begin) // (MINUTE * length)

    def _calls(self, length: int) -> list[int]:
        """Return how many calls are due, in steps of so many minutes."""
        calls = [0] * (self._hours * 60 // length)
        for at, count_of in self._forecast.minutes.items():
            calls[self._step(at, length)] += count_of
        return calls

    def _overload_text(self) -> Tag | str:
        found = self._forecast.overloads
        if not found:
            return ""
        items = [
            tags.li(
                minute(one.load.minute),
                f": {pluralize(one.load.calls, 'call')} to ",
                "all hosts together" if one.load.host is None else escape_invisible(one.load.host),
                f", {one.too_late:,} of them at most start too late",
            )
            for one in found[:_CROWDED_LISTED]
        ]
        if len(found) > _CROWDED_LISTED:
            items.append(tags.li(f"and {len(found) - _CROWDED_LISTED:,} more"))
        said = tags.p("More is due than can be called in time:")
        return tags.div(said, tags.ul(items), class_="notice wrong")

    def _table(self) -> Tag:
        length = _IN_TABLE[self._hours]
        return table(
            f"Calls that are due, in {length} minutes from each time",
            ["From", "#Calls"],
            [
                (clock(self._span.begin + number * length * MINUTE), f"{those:,}")
                for number, those in enumerate(self._calls(length))
            ],
        )


class ChartPlaceholder(Element):
    """What stands in the place of charts while they are counted.

    :param kind: which they are, as the charts themselves say it.
    """

    loader = template("uncounted")

    def __init__(self, kind: str, title: str, what: str) -> None:
        super().__init__()
        self._slots = {"kind": kind, "title": title, "what": what}

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        return tag.fillSlots(**self._slots)


def in_words(hours: int) -> str:
    """Return how many hours these are."""
    return "hour" if hours == 1 else f"{hours} hours"


def _said_of_past(whole: Bucket, span: Span) -> str:
    return (
        f"{pluralize(whole.succeeded, 'task')} succeeded and {whole.failed:,} failed "
        f"since {clock_time(span.begin)}."
    )


def _said_of_lateness(whole: Bucket) -> str:
    if whole.p50 is None:
        return "No call was made."
    return (
        f"Half of the first attempts were at most {duration(whole.p50)} late, "
        f"99 of 100 at most {duration(whole.p99)}."
    )


def _said_of_ahead(calls: Sequence[int], span: Span) -> str:
    if not any(calls):
        return "No call is due."
    most = max(calls)
    at = clock_time(span.at(calls.index(most)))
    return f"{pluralize(sum(calls), 'call')} due, most of them at {at}: {most:,} {span.per()}."
