"""How free room is shared out between the hosts that have tasks due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def share_out(
    free: int, per_host: int, under_way: Mapping[str, int], waiting: Iterable[str]
) -> dict[str, int]:
    """Return how many tasks to claim for each host, none over its own limit.

    Every host that waits gets the same share of what is free; what one cannot
    use goes to the others. The first of ``waiting`` are served first where there
    is less than one each.

    :param free: how many calls may start in all.
    :param per_host: how many calls to one host may be under way at once.
    :param under_way: how many calls to each host are under way now.
    :param waiting: the hosts with tasks due, the longest unserved first.
    """
    room = {}
    for host in waiting:
        if (left := per_host - under_way.get(host, 0)) > 0:
            room[host] = left
        if len(room) == free:
            break
    shares: dict[str, int] = {}
    # The hosts with the least room first: what they leave raises the others' share.
    for served, host in enumerate(sorted(room, key=room.__getitem__)):
        shares[host] = min(room[host], -(-free // (len(room) - served)))
        free -= shares[host]
    return {host: share for host, share in shares.items() if share > 0}
