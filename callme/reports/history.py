"""The recent history: ended tasks by minute, and the lateness of their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field, frozen

from ..core.times import MINUTE, floor_to_minute
from ..store import stats
from ..store.database import Store
from ..store.interface import Histogram, MinuteOutcomes

MIN_TTL_SECONDS = 2.0
"""Minimum time in seconds for which a snapshot stays fresh."""
COST_FACTOR = 20
"""Multiple of its read's duration for which a snapshot stays fresh."""
FINAL_AFTER_SECONDS = 3 * MINUTE
"""Age in seconds from which a minute rarely changes: a stalled daemon may store results later."""
READS_PER_CHECK = 30
"""Number of refreshes that together read all final minutes again, each an equal part."""


@frozen(kw_only=True)
class HistorySnapshot:
    """Tasks that ended in the last hours.

    :ivar as_of: the time of the query: seconds since 1970.
    :ivar begin: the minute of ``as_of``: seconds since 1970.
    :ivar ended: the outcomes by minute, in order, without empty minutes.
    :ivar total: the outcomes of all these minutes.
    """

    as_of: float
    begin: int
    ended: Sequence[MinuteOutcomes]
    total: Bucket


@define(eq=False, kw_only=True)
class HistoryReader:
    """Reader of the outcomes of the last hours.

    Counting a million tasks takes the database half a second. Older minutes rarely change, so that
    only the first read covers all hours. Each refresh covers the last minutes, and a small part of
    the older ones.

    :param now: returns the wall-clock time: seconds since 1970.
    """

    _store: Store
    _now: Callable[[], float]
    _hours: int
    _last: HistorySnapshot | None = field(default=None, init=False)
    # The end of the part that was checked last: seconds since 1970.
    _checked_to: int = field(default=0, init=False)
    _was_full: bool = field(default=False, init=False)

    async def read(self) -> HistorySnapshot:
        """Return the outcomes of the last hours; raise the store's exceptions."""
        now, last = self._now(), self._last
        begin = floor_to_minute(now)
        since = begin - self._hours * 60 * MINUTE
        self._was_full = last is None
        if last is None:
            ended = await self._store.read(stats.history, since)
        else:
            ended = await self._refresh(last, since)
        total = aggregate(ended, since)
        self._last = HistorySnapshot(as_of=now, begin=begin, ended=ended, total=total)
        return self._last

    async def _refresh(self, last: HistorySnapshot, since: int) -> Sequence[MinuteOutcomes]:
        """Return the outcomes since a minute; reuse most final minutes of the last snapshot."""
        until = max(since, last.begin - FINAL_AFTER_SECONDS)
        begin = self._checked_to if since <= self._checked_to < until else since
        end = min(until, begin + self._hours * 60 * MINUTE // READS_PER_CHECK)
        checked = await self._store.read(stats.history, begin, end)
        latest = await self._store.read(stats.history, until)
        self._checked_to = end
        before = [outcomes for outcomes in last.ended if since <= outcomes.minute < begin]
        after = [outcomes for outcomes in last.ended if end <= outcomes.minute < until]
        return [*before, *checked, *after, *latest]

    def ttl(self, cost_seconds: float) -> float:
        """Return the time for which the last snapshot stays fresh, in seconds.

        :param cost_seconds: the duration of its read.
        """
        # The read after a full read is a quick refresh.
        return max(MIN_TTL_SECONDS, cost_seconds * (1 if self._was_full else COST_FACTOR))


@frozen(kw_only=True)
class Bucket:
    """Outcomes of several consecutive minutes.

    :ivar begin: the start of the first minute: seconds since 1970.
    :ivar p50_ms: the median lateness of first attempts in ms; ``None`` without an attempt.
    :ivar p99_ms: the 99th percentile of the lateness of first attempts in ms.
    """

    begin: int
    succeeded: int
    failed: int
    p50_ms: int | None = None
    p99_ms: int | None = None


def bucketize(
    minutes: Iterable[MinuteOutcomes], begin: int, count: int, length: int
) -> list[Bucket]:
    """Return the outcomes in ``count`` buckets of equal length.

    :param begin: the start of the first bucket, a whole minute: seconds since 1970.
    :param length: the number of minutes in each bucket.
    """
    seconds = length * MINUTE
    grouped: list[list[MinuteOutcomes]] = [[] for _ in range(count)]
    for outcomes in minutes:
        number = (outcomes.minute - begin) // seconds
        if 0 <= number < count:
            grouped[number].append(outcomes)
    return [aggregate(group, begin + i * seconds) for i, group in enumerate(grouped)]


def aggregate(minutes: Sequence[MinuteOutcomes], begin: int) -> Bucket:
    """Return the outcomes of several minutes as one bucket."""
    lateness = Histogram.merge(outcomes.lateness_ms for outcomes in minutes)
    p50_ms, p99_ms = lateness.percentiles(50, 99)
    return Bucket(
        begin=begin,
        succeeded=sum(outcomes.succeeded for outcomes in minutes),
        failed=sum(outcomes.failed for outcomes in minutes),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )
