"""The recent past: tasks that succeeded or failed, by minute, and the lateness of their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field, frozen

from ..core.times import MINUTE, floor_to_minute
from ..store import stats
from ..store.database import Store
from ..store.interface import Histogram, MinuteOutcomes

MIN_TTL_SECONDS = 2.0
"""The shortest time for which a snapshot stays fresh."""
COST_FACTOR = 20
"""How many times as long as its read took a snapshot stays fresh."""
FINAL_AFTER_SECONDS = 3 * MINUTE
"""The time after which a minute hardly changes: a daemon that stalled may store its tasks late."""
READS_PER_CHECK = 30
"""Reads that together read all final minutes again, each of them an equal part."""


@frozen(kw_only=True)
class HistorySnapshot:
    """The tasks that ended in the last hours.

    :ivar as_of: when it was read, seconds since 1970.
    :ivar begin: the minute of ``as_of``, seconds since 1970.
    :ivar ended: the outcomes of each minute that has any, in order.
    :ivar total: those of all these minutes.
    """

    as_of: float
    begin: int
    ended: Sequence[MinuteOutcomes]
    total: Bucket


@define(eq=False, kw_only=True)
class HistoryReader:
    """Reads the outcomes of the last hours from the store.

    To count a million tasks takes the database half a second. Minutes that ended some time ago
    rarely change, so only the first read covers all hours. Each of the others covers the last
    minutes, and a small part of those before.

    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _now: Callable[[], float]
    _hours: int
    _last: HistorySnapshot | None = field(default=None, init=False)
    # The end of the part that was checked last, seconds since 1970.
    _checked_to: int = field(default=0, init=False)
    _was_full: bool = field(default=False, init=False)

    async def read(self) -> HistorySnapshot:
        """Return the outcomes of the last hours; fail as the store does."""
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
        """Return the outcomes from a minute on; most final ones are those of the last snapshot."""
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
        """Return how long the last snapshot stays fresh, in seconds.

        :param cost_seconds: how long the read took.
        """
        # The read after a full one is quick.
        return max(MIN_TTL_SECONDS, cost_seconds * (1 if self._was_full else COST_FACTOR))


@frozen(kw_only=True)
class Bucket:
    """The outcomes of several consecutive minutes.

    :ivar begin: its first second, since 1970.
    :ivar p50_ms: the median lateness of first attempts, in ms; ``None`` without any attempt.
    :ivar p99_ms: the 99th percentile of the same.
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

    :param begin: the first second of the first bucket, a whole minute.
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
