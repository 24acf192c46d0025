"""The allocation of free slots to the hosts that have due tasks."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Mapping


def allocate_slots(
    free_slots: int,
    *,
    per_host: int,
    in_flight: Mapping[str, int],
    due_hosts: Iterable[str],
    reserve: int = 0,
    responsive: Container[str] = (),
    recently_responsive: Container[str] = (),
) -> dict[str, int]:
    """Return how many tasks to claim for each host, so that no host exceeds its limit.

    Each slot goes to the host with the fewest calls in flight, so that hosts whose calls hang do
    not crowd out a host whose calls end quickly. Of hosts with equally many, the first of
    ``due_hosts`` comes first.

    :param free_slots: the number of calls that may start.
    :param per_host: the maximum number of calls in flight to one host.
    :param in_flight: the number of calls in flight by host.
    :param due_hosts: the hosts with due tasks, the one served longest ago first.
    :param reserve: the number of free slots that hosts which may hang must leave. They are only
        for ``responsive`` hosts, and for hosts with few calls in flight (4, or an eighth of
        ``per_host`` if that is more).
    :param responsive: the hosts that have responded since the last tick.
    :param recently_responsive: the hosts that responded to their last call. Half of the reserve
        is only for these and for responsive ones: there may be more hosts that hang than slots,
        each with few calls in flight.
    """
    small_host_limit = min(per_host, max(4, per_host // 8))
    levels = [(in_flight.get(host, 0), turn, host) for turn, host in enumerate(due_hosts)]
    heapq.heapify(levels)
    shares: dict[str, int] = {}
    while free_slots > 0 and levels:
        level, turn, host = levels[0]
        if free_slots > reserve or host in responsive:
            limit = per_host
        elif free_slots > reserve // 2 or host in recently_responsive:
            limit = small_host_limit
        else:
            limit = 0
        if level >= limit:
            heapq.heappop(levels)
        else:
            shares[host] = shares.get(host, 0) + 1
            free_slots -= 1
            heapq.heapreplace(levels, (level + 1, turn, host))
    return shares
