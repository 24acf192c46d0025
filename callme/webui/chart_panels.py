"""Chart panels: the charts of the last and the next hours, each with a table of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from twisted.web.template import Element, Tag, flattenString, renderer, tags

from ..core.times import MINUTE
from ..reports.forecast import Forecast, Forecaster
from ..reports.history import Bucket, HistoryReader, HistorySnapshot, bucketize
from ..reports.single_flight import SingleFlight
from ..store.database import Store
from ..store.interface import StoreUnavailable
from . import charts
from .charts import TimeAxis
from .lists.upcoming import list_of_span
from .widgets import (
    Filled,
    clock_time,
    duration,
    escape_invisible,
    minute,
    pluralize,
    table,
    template,
    time_of_day,
)

log = Logger(namespace="callme")

HOURS = {1: 1, 3: 1, 12: 5, 24: 10}
"""The periods that a viewer can choose, in hours, and the minutes of each step of their charts."""
_TABLE_STEP_MINUTES = {1: 5, 3: 10, 12: 60, 24: 60}
"""The minutes of each row of the tables, by the hours of the period."""
_MAX_OVERLOADS = 10
"""Overloads in the list below the chart."""
MAX_PAST_AGE_SECONDS = 120.0
"""Maximum age in seconds of a stale panel of the last hours."""
MAX_AHEAD_AGE_SECONDS = 60.0
"""Maximum age in seconds of a stale panel of the next hours."""
AHEAD_TTL_SECONDS = 1.0
"""Seconds for which a panel of the next hours stays fresh."""
FAILURE_TTL_SECONDS = 2.0
"""Seconds for which a failed panel is not drawn again."""
_PLACE = b"<!--charts-->"
"""The comment in the dashboard's template that the panels replace."""

Snapshot = TypeVar("Snapshot")


@frozen
class Panel(Generic[Snapshot]):
    """A snapshot, and the markup of its charts."""

    snapshot: Snapshot
    markup: bytes


@define(eq=False, kw_only=True)
class ChartCache:
    """The panels of each period, drawn once for all clients.

    Reading and drawing them takes longer than all other parts of a page.

    :param clock: the monotonic clock.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _forecaster: Forecaster
    _clock: IReactorTime
    _now: Callable[[], float]
    # By hours.
    _past: dict[int, SingleFlight[Panel[HistorySnapshot]]] = field(factory=dict, init=False)
    _ahead: dict[int, SingleFlight[Panel[Forecast]]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for hours in HOURS:
            reader = HistoryReader(store=self._store, now=self._now, hours=hours)
            draw_past = partial(self._draw_past, hours, reader)
            self._past[hours] = self._flight(draw_past, reader.ttl, MAX_PAST_AGE_SECONDS)
            draw_ahead = partial(self._draw_ahead, hours)
            self._ahead[hours] = self._flight(
                draw_ahead, lambda _: AHEAD_TTL_SECONDS, MAX_AHEAD_AGE_SECONDS
            )

    def _flight(
        self,
        draw: Callable[[], Coroutine[Deferred[Any], Any, Panel[Snapshot]]],
        ttl: Callable[[float], float],
        max_age_seconds: float,
    ) -> SingleFlight[Panel[Snapshot]]:
        async def draw_or_log() -> Panel[Snapshot]:
            try:
                return await draw()
            except StoreUnavailable:
                raise
            except Exception:
                log.failure("drawing charts failed")
                raise

        return SingleFlight(
            fetch=draw_or_log,
            ttl=ttl,
            clock=self._clock,
            max_stale_seconds=max_age_seconds,
            failure_ttl_seconds=FAILURE_TTL_SECONDS,
        )

    async def _draw_past(self, hours: int, reader: HistoryReader) -> Panel[HistorySnapshot]:
        snapshot = await reader.read()
        return Panel(snapshot, await flattenString(None, _past_charts(hours, snapshot)))

    async def _draw_ahead(self, hours: int) -> Panel[Forecast]:
        forecast = await self._forecaster.forecast(hours)
        return Panel(forecast, await flattenString(None, AheadChart(hours, forecast)))

    async def panels_within(
        self, hours: int, seconds: float
    ) -> tuple[Panel[HistorySnapshot] | None, Panel[Forecast] | None]:
        """Return the panels of the last and of the next hours.

        Each is the last one drawn if a fresh one takes longer or fails, and ``None`` if that is
        too old.

        :param seconds: the maximum time to wait for fresh panels.
        """
        drawing = Deferred.fromCoroutine(_panel_within(self._past[hours], seconds))
        ahead = await _panel_within(self._ahead[hours], seconds)
        return await drawing, ahead


async def _panel_within(
    flight: SingleFlight[Panel[Snapshot]], seconds: float
) -> Panel[Snapshot] | None:
    try:
        return await flight.get_within(seconds)
    except defer.CancelledError:
        raise
    except Exception:
        return flight.last()


async def insert_panels(
    page: bytes,
    hours: int,
    past: Panel[HistorySnapshot] | None,
    ahead: Panel[Forecast] | None,
) -> bytes:
    """Return the dashboard with the panels in their place, or placeholders for missing panels."""
    panels = [
        panel.markup if panel else await flattenString(None, _placeholder(kind, title, content))
        for panel, kind, title, content in (
            (past, "past", f"Last {in_words(hours)}", "history"),
            (ahead, "ahead", f"Next {in_words(hours)}", "forecast"),
        )
    ]
    # Markup in all other text is escaped, so that no comment but that of the template matches.
    before, _, after = page.partition(_PLACE)
    return b"".join([before, *panels, after])


def _past_charts(hours: int, history: HistorySnapshot) -> Filled:
    """Return the outcomes and the lateness of the last hours."""
    step_minutes, minutes = HOURS[hours], hours * 60
    # The last minute is the current one.
    begin = history.begin - (minutes - 1) * MINUTE
    axis = TimeAxis(begin=begin, steps=minutes // step_minutes, step_minutes=step_minutes)
    buckets = bucketize(history.ended, begin, axis.steps, step_minutes)
    row_minutes = _TABLE_STEP_MINUTES[hours]
    return Filled(
        "past",
        title=f"Last {in_words(hours)}",
        per=axis.unit(),
        ended=charts.past(axis, buckets, _describe_past(history.total, axis)),
        lateness=charts.lateness(axis, buckets, _describe_lateness(history.total)),
        table=_past_table(
            bucketize(history.ended, begin, minutes // row_minutes, row_minutes), row_minutes
        ),
    )


def _past_table(buckets: Sequence[Bucket], minutes: int) -> Tag:
    """Return the numbers of the charts.

    :param minutes: the length of each bucket.
    """
    return table(
        f"Ended tasks, per {minutes} minutes",
        ["From", "#Succeeded", "#Failed", "#p50", "#p99"],
        [
            (
                time_of_day(bucket.begin),
                f"{bucket.succeeded:,}",
                f"{bucket.failed:,}",
                duration(bucket.p50_ms),
                duration(bucket.p99_ms),
            )
            for bucket in buckets
        ],
    )


class AheadChart(Element):
    """The calls of the next hours."""

    loader = template("ahead")

    def __init__(self, hours: int, forecast: Forecast) -> None:
        super().__init__()
        self._hours = hours
        self._forecast = forecast
        step_minutes = HOURS[hours]
        self._axis = TimeAxis(
            begin=forecast.begin, steps=hours * 60 // step_minutes, step_minutes=step_minutes
        )

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        axis, calls = self._axis, self._calls(self._axis.step_minutes)
        overloaded = {
            self._step(overload.load.minute, axis.step_minutes)
            for overload in self._forecast.overloads
        }
        return tag.fillSlots(
            title=f"Next {in_words(self._hours)}",
            per=axis.unit(),
            calls=charts.ahead(axis, calls, overloaded, _describe_ahead(calls, axis), self._list),
            overloaded=self._overload_list(),
            table=self._table(),
        )

    def _list(self, number: int, minutes: int | None = None) -> str:
        """Return the path of the list of the tasks of a step."""
        step = MINUTE * (minutes or self._axis.step_minutes)
        begin = self._axis.begin + number * step
        # The first step includes all tasks due earlier.
        return list_of_span(begin if number else None, begin + step)

    def _step(self, at: int, step_minutes: int) -> int:
        return max(0, at - self._axis.begin) // (MINUTE * step_minutes)

    def _calls(self, step_minutes: int) -> list[int]:
        """Return the number of due calls of each step."""
        calls = [0] * (self._hours * 60 // step_minutes)
        for at, count in self._forecast.minutes.items():
            calls[self._step(at, step_minutes)] += count
        return calls

    def _overload_list(self) -> Tag | str:
        overloads = self._forecast.overloads
        if not overloads:
            return ""
        items = [
            tags.li(
                minute(overload.load.minute),
                f": {pluralize(overload.load.calls, 'call')} to ",
                "all hosts" if overload.load.host is None else escape_invisible(overload.load.host),
                f", up to {overload.too_late:,} too late",
            )
            for overload in overloads[:_MAX_OVERLOADS]
        ]
        if len(overloads) > _MAX_OVERLOADS:
            items.append(tags.li(f"and {len(overloads) - _MAX_OVERLOADS:,} more"))
        title = tags.p("Overload: some calls will start after their max_delay and fail.")
        return tags.div(title, tags.ul(items), class_="flash wrong")

    def _table(self) -> Tag:
        minutes = _TABLE_STEP_MINUTES[self._hours]
        return table(
            f"Due calls, per {minutes} minutes",
            ["From", "#Calls"],
            [
                (self._time(number, minutes, is_link=count > 0), f"{count:,}")
                for number, count in enumerate(self._calls(minutes))
            ],
        )

    def _time(self, number: int, minutes: int, *, is_link: bool) -> Tag:
        time = time_of_day(self._axis.begin + number * minutes * MINUTE)
        return tags.a(time, href=self._list(number, minutes)) if is_link else time


def _placeholder(kind: str, title: str, content: str) -> Filled:
    """Return a panel that has not been drawn yet.

    :param kind: the class and id of the panel that it replaces.
    :param content: the name of its content.
    """
    return Filled("placeholder", kind=kind, title=title, what=content)


def in_words(hours: int) -> str:
    """Return a number of hours in words: ``hour``, ``3 hours``."""
    return "hour" if hours == 1 else f"{hours} hours"


def _describe_past(total: Bucket, axis: TimeAxis) -> str:
    return (
        f"{pluralize(total.succeeded, 'task')} succeeded and {total.failed:,} failed "
        f"since {clock_time(axis.begin)}."
    )


def _describe_lateness(total: Bucket) -> str:
    if total.p50_ms is None:
        return "No attempts were made."
    return (
        f"Lateness of first attempts: median {duration(total.p50_ms)}, "
        f"99th percentile {duration(total.p99_ms)}."
    )


def _describe_ahead(calls: Sequence[int], axis: TimeAxis) -> str:
    if not any(calls):
        return "No calls are due."
    peak = max(calls)
    at = clock_time(axis.at(calls.index(peak)))
    return f"{pluralize(sum(calls), 'call')} due; the peak is {peak:,} {axis.unit()} at {at}."
