"""The rate limit on failed logins by client, with bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from attrs import define, field

FREE_ATTEMPTS = 10
"""Number of failed logins after which a client must wait."""
SECONDS_PER_ATTEMPT = 5.0
"""Seconds after which a client may try again once."""
MAX_CLIENTS = 10_000
"""Maximum number of tracked clients; beyond it, the oldest entry is removed."""
_IPV6_PREFIX = 64


@define(eq=False)
class LoginThrottle:
    """Leaky bucket of failed logins for each client.

    :param now: returns the time of the monotonic clock in seconds.
    """

    _now: Callable[[], float] = field(default=time.monotonic)
    # The time at which each client's bucket is empty again, oldest failure first.
    _empty_at: OrderedDict[str, float] = field(factory=OrderedDict, init=False)

    def seconds_to_wait(self, peer: str) -> float:
        """Return the time in seconds until a client may log in; 0 if it may log in now.

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
    """Return an IPv4 address, or the network of an IPv6 address, of which a client has many."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return peer
