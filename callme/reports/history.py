"""What happened: how many tasks succeeded and failed, minute by minute, and how late calls were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from ..core.times import MINUTE
from ..store.interface import MinuteOutcomes


@frozen
class Bucket:
    """Some minutes in a row, taken together.

    :ivar begin: the second that it begins with.
    :ivar p50: the lateness that half of the calls did not exceed, in milliseconds; ``None``
        without any call.
    :ivar p99: ... that 99 of 100 did not exceed.
    """

    begin: int
    succeeded: int
    failed: int
    p50: int | None
    p99: int | None


def bucketize(
    minutes: Iterable[MinuteOutcomes], begin: int, count: int, length: int
) -> list[Bucket]:
    """Return what happened, in steps of equal length.

    :param begin: the second that the first one begins with, a whole minute.
    :param length: how many minutes one has.
    """
    seconds = length * MINUTE
    within: list[list[MinuteOutcomes]] = [[] for _ in range(count)]
    for ended in minutes:
        number = (ended.minute - begin) // seconds
        if 0 <= number < count:
            within[number].append(ended)
    return [aggregate(those, begin + i * seconds) for i, those in enumerate(within)]


def aggregate(minutes: Sequence[MinuteOutcomes], begin: int) -> Bucket:
    """Return what happened in some minutes as one step."""
    lateness: Counter[int] = Counter()
    for ended in minutes:
        lateness.update(ended.lateness)
    return Bucket(
        begin,
        sum(ended.succeeded for ended in minutes),
        sum(ended.failed for ended in minutes),
        percentile(lateness, 50),
        percentile(lateness, 99),
    )


def percentile(counts: Mapping[int, int], percent: int) -> int | None:
    """Return the least value that so many per cent of all do not exceed: the nearest rank.

    :param counts: how often there is each value.
    """
    rank = -(-sum(counts.values()) * percent // 100)
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    return None
