"""What is ahead, for all who ask: one look at the store at a time, which they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.times import MINUTE, floor_to_minute
from ..store.interface import MAX_LOADS, MinuteLoad, Store
from ..worker.throughput import Capacity
from . import forecast
from .forecast import MAX_OVERLOADS, Forecast, Span

COST_FACTOR = 20
"""For how many times as long as a look took it is the answer to whoever asks."""
MOST_SECONDS = 60.0
"""How old a look may get at most before there is another one."""
CACHE_SIZE = 4
"""Looks that are kept, of different numbers of hours."""


@frozen
class _Look:
    forecast: Forecast
    # By the clock of the timers: until when it is new enough, and until when better than none.
    new_until: float
    good_until: float


@define(eq=False)
class Forecaster:
    """Foresees what the store has scheduled.

    To count a million tasks takes the database from 60 ms to a second. So that many who ask
    cost no more than one does, and leave it and its connections to others, there is one look
    at a time, and that of as many hours as another takes a twentieth of the time at most.

    :param capacity: tells how fast calls can be made.
    :param clock: what measures how long things take.
    :param now: the wall clock: seconds since 1970.
    """

    _store: Store
    _capacity: Callable[[], Capacity]
    _clock: IReactorTime
    _now: Callable[[], float]
    # By hours: the look, and who waits for the next one. The one asked for longest is first.
    _looks: dict[int, _Look] = field(factory=dict, init=False)
    _waiting: dict[int, list[Deferred[Forecast]]] = field(factory=dict, init=False)
    _looking: bool = field(default=False, init=False)

    def forecast(self, hours: int) -> Deferred[Forecast]:
        """Return what is ahead in the next hours; fails as the store does.

        It may have been looked up a moment ago: see ``as_of``.
        """
        look = self._looks.get(hours)
        if look is not None and self._clock.seconds() < look.new_until:
            return defer.succeed(look.forecast)
        asked: Deferred[Forecast] = Deferred()
        self._waiting.setdefault(hours, []).append(asked)
        self._look()
        return asked

    async def forecast_within(self, hours: int, seconds: float) -> Forecast | None:
        """Return what is ahead as far as that is known soon.

        What is not looked up by then will be when somebody asks again; until then this is the
        last look, or ``None`` where there is none of the last minute.

        :param seconds: how long the answer may take.
        """
        asking = self.forecast(hours).addTimeout(seconds, self._clock)
        try:
            return await asking
        except defer.TimeoutError:
            look = self._looks.get(hours)
            known = look is not None and self._clock.seconds() < look.good_until
            return look.forecast if look is not None and known else None

    def _look(self) -> None:
        """Look for those who have waited longest, unless there is a look under way."""
        if self._looking or not self._waiting:
            return
        self._looking = True
        hours = next(iter(self._waiting))
        # Not theirs to end: whoever hangs up does not stop the database.
        looking = Deferred.fromCoroutine(self._foresee(hours))
        looking.addBoth(self._looked, hours, self._clock.seconds())

    def _looked(self, result: Forecast | Failure, hours: int, began: float) -> None:
        self._looking = False
        if isinstance(result, Forecast):
            self._keep(hours, result, began)
        for asked in self._waiting.pop(hours):
            if isinstance(result, Failure):
                asked.errback(result)
            else:
                asked.callback(result)
        self._look()

    def _keep(self, hours: int, result: Forecast, began: float) -> None:
        ended = self._clock.seconds()
        new = ended + min(MOST_SECONDS, COST_FACTOR * (ended - began))
        self._looks.pop(hours, None)
        self._looks[hours] = _Look(result, new, ended + MOST_SECONDS)
        if len(self._looks) > CACHE_SIZE:
            del self._looks[next(iter(self._looks))]

    async def _foresee(self, hours: int) -> Forecast:
        now, capacity = self._now(), self._capacity()
        begin = floor_to_minute(now)
        until = begin + hours * 60 * MINUTE
        minutes = await self._store.calls_ahead(begin, until)
        # Only where there is a crowd does it matter who is in it, and until when. Of a host that
        # is overloaded, minutes with a few calls hardly do.
        few = capacity.sustainable_per_minute // 4
        saturated_span = await self._loads(forecast.saturated_span(capacity, minutes, begin), begin)
        of_hosts = await self._loads(forecast.span_above(minutes, few), begin, few)
        loads = [*forecast.fleet_load(minutes, saturated_span, begin), *of_hosts]
        find_overloads = forecast.find_overloads(capacity, loads, begin)
        return Forecast(
            as_of=now,
            begin=begin,
            until=until,
            capacity=capacity,
            minutes=minutes,
            overloads=find_overloads[:MAX_OVERLOADS],
            complete=len(of_hosts) < MAX_LOADS and len(find_overloads) <= MAX_OVERLOADS,
        )

    async def _loads(
        self, span: Span | None, begin: int, more_than: int | None = None
    ) -> Sequence[MinuteLoad]:
        if span is None:
            return []
        first, last = span
        return await self._store.loads(0 if first == begin else first, last, more_than)
