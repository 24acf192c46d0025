"""How free room is shared out between the hosts that have tasks due."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Mapping


def allocate_slots(
    free: int,
    per_host: int,
    in_flight: Mapping[str, int],
    waiting: Iterable[str],
    reserve: int = 0,
    answering: Container[str] = (),
    known: Container[str] = (),
) -> dict[str, int]:
    """Return how many tasks to claim for each host, none over its own limit.

    Each place goes to the host with the fewest calls under way, so that one whose calls
    end quickly is not crowded out by others that hang. Of hosts that have as many, the
    first of ``waiting`` comes first.

    :param free: how many calls may start in all.
    :param per_host: how many calls to one host may be under way at once.
    :param in_flight: how many calls to each host are under way now.
    :param waiting: the hosts with tasks due, the longest unserved first.
    :param reserve: how many of the free places are kept for hosts that are ``answering``,
        and for those with few calls under way (4, or an eighth of ``per_host`` where that is
        more): hosts that hang must leave some.
    :param known: the hosts that answered when last called. Half of the reserve is kept for
        these and for those that are answering, as there may be more that hang than there are
        places, each with few calls.
    """
    few = min(per_host, max(4, per_host // 8))
    levels = [(in_flight.get(host, 0), turn, host) for turn, host in enumerate(waiting)]
    heapq.heapify(levels)
    shares: dict[str, int] = {}
    while free and levels:
        level, turn, host = levels[0]
        if free > reserve or host in answering:
            limit = per_host
        else:
            limit = few if free > reserve // 2 or host in known else 0
        if level >= limit:
            heapq.heappop(levels)
        else:
            shares[host] = shares.get(host, 0) + 1
            free -= 1
            heapq.heapreplace(levels, (level + 1, turn, host))
    return shares
