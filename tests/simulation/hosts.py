"""The known settings of hosts, and the rules that follow from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from attrs import define, field, frozen

from .endpoints import Seen
from .history import FOREVER

HOSTS = ("*", *(f"h{number}.example:80" for number in range(4)))
GRACE = 1.0
"""Seconds after the response in which calls may still start by the settings before."""
RELEASE = 3.0
"""Seconds after the end of a restriction in which its tasks may still wait."""
MINUTE = 60.0


@frozen(kw_only=True)
class HostRule:
    """Settings that are certain.

    :ivar paused_until: a reading of the wall clock; 0 if the host is not paused.
    """

    paused_until: float = 0.0
    max_per_minute: int | None = None
    max_concurrent: int | None = None

    @property
    def restricts(self) -> bool:
        return bool(self.paused_until or self.max_per_minute or self.max_concurrent)


@define
class _Knowledge:
    """The knowledge about one host.

    :ivar rule: its settings; ``None`` while they are uncertain.
    :ivar since: when they became certain, on the monotonic clock.
    :ivar limited: the last certain ``max_per_minute``, and since when it has been certain.
    :ivar restricted: the periods in which they may delay calls.
    """

    rule: HostRule | None = field(factory=HostRule)
    since: float = 0.0
    limited: int | None = None
    limited_since: float = 0.0
    restricted: list[tuple[float, float]] = field(factory=list)

    def may_be_set(self, now: float) -> None:
        """Note that a request to change the settings is sent."""
        if not self.restricted or self.restricted[-1][1] < FOREVER:
            self.restricted.append((now, FOREVER))
        self.rule = None

    def is_set(self, rule: HostRule, now: float) -> None:
        """Note that settings are certain from now on."""
        self.rule, self.since = rule, now
        if rule.max_per_minute != self.limited:
            self.limited, self.limited_since = rule.max_per_minute, now
        if not rule.restricts and self.restricted and self.restricted[-1][1] == FOREVER:
            begin, _ = self.restricted.pop()
            self.restricted.append((begin, now + RELEASE))


class HostRules:
    """The knowledge about all hosts, and the calls that started.

    :ivar is_shared: whether the limits are those of a fleet.
    :ivar settled_at: the moment (monotonic) from which on the daemons agree on their shares.
    """

    def __init__(self) -> None:
        self.is_shared = False
        self.settled_at = 0.0
        self._hosts: dict[str, _Knowledge] = {host: _Knowledge() for host in HOSTS}
        self._calls: defaultdict[str, list[Seen]] = defaultdict(list)

    def __getitem__(self, host: str) -> _Knowledge:
        return self._hosts[host]

    def restrictions(self, host: str) -> list[tuple[float, float]]:
        """Return the periods in which calls to a host may be delayed."""
        own = self._hosts.get(host, _Knowledge())
        return own.restricted + self._hosts["*"].restricted

    def breaches(self, seen: Seen) -> Iterator[str]:
        """Yield the rules that a call breaks."""
        own = f"{seen.host}:80"
        self._calls[own].append(seen)
        for host in (own, "*"):
            known = self._hosts.get(host)
            if known is None or known.rule is None:
                continue
            since, rule = known.since + GRACE, known.rule
            if seen.asked_elapsed <= since:
                continue
            if seen.own_asked_at < rule.paused_until:
                yield f"a call to {seen.host}, although {host} is paused"
            if host == own and rule.max_per_minute is not None:
                yield from self._too_many(seen, rule.max_per_minute, known.limited_since + GRACE)
            if host == own and rule.max_concurrent is not None:
                in_flight = sum(
                    one.open and one.process is seen.process for one in self._calls[host]
                )
                in_flight = max(in_flight, self._in_flight_since(host, since))
                if in_flight > rule.max_concurrent:
                    yield f"{in_flight} calls at once to {host}, not {rule.max_concurrent}"

    def _in_flight_since(self, host: str, since: float) -> int:
        """Return the calls in flight of a whole fleet that started after a moment."""
        if not self.is_shared:
            return 0
        since = max(since, self.settled_at)
        calls = (one for one in self._calls[host] if one.open and one.process.alive)
        return sum(one.asked_elapsed > since for one in calls)

    def _too_many(self, seen: Seen, most: int, since: float) -> Iterator[str]:
        begin = max(since, seen.asked_elapsed - MINUTE)
        recent = [one for one in self._calls[f"{seen.host}:80"] if one.asked_elapsed > begin]
        daemons = {id(one.process) for one in recent}
        settled = [one for one in recent if self.is_shared and one.asked_elapsed > self.settled_at]
        if len(recent) > most * len(daemons) or len(settled) > most:
            yield f"{len(recent)} calls to {seen.host} in a minute, not {most}"
