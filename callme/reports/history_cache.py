"""What happened, for all who ask: counted now and then, and never waited for.

To count a million tasks takes the database a second or two. What ended some minutes ago changes
no more, unless it is moved or deleted: so most counts are of the last minutes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.times import MINUTE, floor_to_minute
from ..store.interface import MinuteOutcomes, Store, StoreUnavailable

log = Logger(namespace="callme")

OLDEST_SECONDS = 120
"""How old a count may be to be shown."""
MIN_TTL_SECONDS = 2.0
"""How old a count may be before there is another one."""
COST_FACTOR = 20
"""How many times as long as a count took there is none after it."""
FINAL_AFTER_SECONDS = 3 * MINUTE
"""How long after its end a minute may still change, but for what is moved or deleted."""
FULL_COUNT_SECONDS = 60.0
"""How long what has settled is not counted again."""


@frozen
class HistorySnapshot:
    """What ended in the hours before now.

    :ivar as_of: when that was looked up, seconds since 1970.
    :ivar begin: the minute that this was in.
    :ivar ended: what ended, minute by minute, without minutes in which nothing did.
    """

    as_of: float
    begin: int
    ended: Sequence[MinuteOutcomes]


@define(eq=False)
class HistoryCache:
    """Counts what ended within so many hours.

    :param clock: what measures how long things take.
    :param now: the wall clock: seconds since 1970.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _hours: int
    _last: HistorySnapshot | None = field(default=None, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    # By the clock of the timers: from when on there may be another count, and a whole one.
    _counting: bool = field(default=False, init=False)
    _again_at: float = field(default=0.0, init=False)
    _whole_at: float = field(default=0.0, init=False)

    async def within(self, seconds: float) -> HistorySnapshot | None:
        """Return what happened, as far as that is counted soon.

        What is not counted by then will be when somebody asks again; until then this is the
        last count, or ``None`` where there is none of the last minutes.

        :param seconds: how long the answer may take.
        """
        if not self._counting and self._clock.seconds() >= self._again_at:
            self._counting = True
            # Not theirs to end: whoever hangs up does not stop the database.
            counting = Deferred.fromCoroutine(self._count())
            counting.addErrback(self._failed).addCallback(self._counted)
        if self._counting:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            waiting.addTimeout(seconds, self._clock)
            await waiting.addErrback(lambda failure: failure.trap(defer.TimeoutError) and None)
        last = self._last
        return None if last is None or self._now() - last.as_of > OLDEST_SECONDS else last

    async def _count(self) -> None:
        began, now = self._clock.seconds(), self._now()
        begin = floor_to_minute(now)
        since = begin - self._hours * 60 * MINUTE
        last = self._last
        if last is not None and began < self._whole_at:
            until = max(since, last.begin - FINAL_AFTER_SECONDS)
            settled = [one for one in last.ended if since <= one.minute < until]
            ended = [*settled, *await self._store.history(until)]
            rest = COST_FACTOR * (self._clock.seconds() - began)
        else:
            ended = list(await self._store.history(since))
            # It is rare: what comes next is of the last minutes, and quick.
            rest = self._clock.seconds() - began
            self._whole_at = self._clock.seconds() + max(FULL_COUNT_SECONDS, COST_FACTOR * rest)
        self._last = HistorySnapshot(now, begin, ended)
        self._again_at = self._clock.seconds() + max(MIN_TTL_SECONDS, rest)

    def _failed(self, failure: Failure) -> None:
        self._again_at = self._clock.seconds() + MIN_TTL_SECONDS
        if not failure.check(StoreUnavailable):
            log.failure("what happened could not be counted", failure)

    def _counted(self, _: None) -> None:
        self._counting = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            # Whoever hung up, or waited long enough, is told already.
            if not one.called:
                one.callback(None)
