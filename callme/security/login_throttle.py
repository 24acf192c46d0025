"""The limit on failed logins of each client, with bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from attrs import define, field

FREE_ATTEMPTS = 10
"""Failed logins that a client may have without a wait."""
SECONDS_PER_ATTEMPT = 5.0
"""Time after which a client may have one more."""
MAX_CLIENTS = 10_000
"""Maximum number of clients that are remembered; beyond it, the oldest is forgotten."""
_IPV6_PREFIX = 64


@define(eq=False)
class LoginThrottle:
    """The limit on failed logins of each client, as a leaky bucket.

    :param now: a clock that is never set back, in seconds.
    """

    _now: Callable[[], float] = field(default=time.monotonic)
    # The time at which each client's bucket is empty again, oldest failure first.
    _empty_at: OrderedDict[str, float] = field(factory=OrderedDict, init=False)

    def seconds_to_wait(self, peer: str) -> float:
        """Return the time until a client may log in; 0 if it may do so now.

        :param peer: the address of the client.
        """
        full = FREE_ATTEMPTS * SECONDS_PER_ATTEMPT
        level = self._empty_at.get(_client_of(peer), 0.0) - self._now() + SECONDS_PER_ATTEMPT
        return max(0.0, level - full)

    def failed(self, peer: str) -> None:
        """Record a failed login."""
        client, now = _client_of(peer), self._now()
        self._empty_at[client] = max(now, self._empty_at.pop(client, 0.0)) + SECONDS_PER_ATTEMPT
        oldest = next(iter(self._empty_at))
        if len(self._empty_at) > MAX_CLIENTS or self._empty_at[oldest] <= now:
            del self._empty_at[oldest]


def _client_of(peer: str) -> str:
    """Return the network of an IPv6 address, of which a client has many; else the address."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return peer
