"""The allocation of free slots to the hosts that have due tasks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping

from attrs import define

from .host_memory import Trust
from .slots import Slots

LAST_PLACES_LIMIT = 2
"""Number of calls in flight from which a host gets none of the last free slots."""

_NO_LIMIT = 2**31


def allocate_slots(
    slots: Slots,
    *,
    due_hosts: Iterable[str],
    max_in_flight: Callable[[str], int] | None = None,
    trust: Callable[[str], Trust],
    responses: Callable[[str], int],
    newcomers: int = 0,
) -> dict[str, int]:
    """Return the number of tasks to claim for each host.

    No host exceeds its limit. Each slot goes to the host with the fewest calls in flight, so that
    hosts whose calls hang do not crowd out a host whose calls end quickly; of hosts with equally
    many calls, the first one in ``due_hosts`` has priority. As free slots run out, fewer hosts
    qualify:

    - Of the reserve, a host gets only a few slots (4, or an eighth of ``per_host`` if that is more)
      until it responds promptly; then it gets twice as many slots as it has sent responses.
    - Of the second half of the reserve, only hosts that responded to their last call get slots.
    - Of the last slots, hosts with :data:`LAST_PLACES_LIMIT` calls in flight get none, even if
      they respond: if several hosts stop responding at once, slots remain for the other hosts.

    A host that was never called gets one slot even of the last ones, but only a bounded number of
    such hosts do.

    :param due_hosts: the hosts with due tasks, the least recently served first.
    :param max_in_flight: returns the maximum number of calls in flight to a host; ``per_host`` by
        default.
    :param trust: returns the trust in a host, considering its calls in flight.
    :param responses: returns the number of prompt responses of a host.
    :param newcomers: the number of hosts with calls in flight none of whose calls has ended yet.
    """
    rule = _Rule(
        slots=slots,
        max_in_flight=max_in_flight or (lambda _: slots.per_host),
        trust=trust,
        responses=responses,
        newcomers=newcomers,
    )
    in_flight: Mapping[str, int] = slots.in_flight
    levels = [(in_flight.get(host, 0), turn, host) for turn, host in enumerate(due_hosts)]
    heapq.heapify(levels)
    shares: dict[str, int] = {}
    free = slots.free
    while free > 0 and levels:
        level, turn, host = levels[0]
        if level >= rule.limit(host, free):
            heapq.heappop(levels)
            continue
        if level == 0:
            rule.admit(host)
        shares[host] = shares.get(host, 0) + 1
        free -= 1
        heapq.heapreplace(levels, (level + 1, turn, host))
    return shares


@define(eq=False, kw_only=True)
class _Rule:
    """Limits of hosts during one allocation."""

    slots: Slots
    max_in_flight: Callable[[str], int]
    trust: Callable[[str], Trust]
    responses: Callable[[str], int]
    newcomers: int

    def limit(self, host: str, free: int) -> int:
        """Return the number of calls in flight below which a host gets a free slot."""
        return min(self.max_in_flight(host), self._fair_limit(host, free))

    def _fair_limit(self, host: str, free: int) -> int:
        slots = self.slots
        unreserved = free - slots.last_places
        if unreserved > slots.reserve:
            return _NO_LIMIT
        trust = self.trust(host)
        if trust is Trust.KNOWN:
            if unreserved <= 0:
                return LAST_PLACES_LIMIT
            # The limit follows from responses, so that a host that responds to one call and then
            # hangs does not get more.
            return max(slots.few, 2 * self.responses(host))
        if unreserved > slots.reserve // 2:
            return slots.few
        is_admitted = trust is Trust.UNKNOWN and self.newcomers < slots.last_places // 2
        return 1 if is_admitted else 0

    def admit(self, host: str) -> None:
        """Count a host that gets its first slot."""
        if self.trust(host) is Trust.UNKNOWN:
            self.newcomers += 1
