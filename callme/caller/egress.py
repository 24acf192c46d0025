"""Between a name and a connection: only to addresses that may be called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import (
    IConnector,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from zope.interface import implementer

from ..security.address_policy import AddressPolicy
from .resolver import Lookup, Resolver


class ForbiddenAddress(Exception):
    """None of the addresses of a host may be called; its text says which not, and why."""


@implementer(IReactorPluggableNameResolver, IReactorTCP, IReactorTime)
class ConfinedReactor:
    """A reactor as endpoints see it, with a resolver of our own, and no way to what is denied.

    Every connection passes :meth:`connectTCP`, which is given the very address that the
    system is asked to connect to: whatever a name was said to stand for before, and however
    an address was written, that is what is judged.

    :param clock: what sets the timers.
    :param networks: where callbacks may go.
    :param lookup: returns the addresses of a name.
    """

    def __init__(
        self, reactor: Any, clock: IReactorTime, networks: AddressPolicy, lookup: Lookup
    ) -> None:
        self._reactor = reactor
        self.seconds = clock.seconds
        self.callLater = clock.callLater
        self._networks = networks
        self._lookup = lookup
        self.nameResolver = Resolver(clock, reactor, self._worth_trying)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _worth_trying(self, name: str) -> Sequence[str]:
        """Return those addresses of a name that may be called.

        Where there are none, one is left to be refused: who calls learns why, and not
        that the name was not found.
        """
        found = self._lookup(name)
        return [one for one in found if self._networks.reason_denied(one) is None] or found[:1]

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> IConnector:
        """Connect to an address.

        :raises ForbiddenAddress: where it may not be called.
        """
        refusal = self._networks.reason_denied(host)
        if refusal is not None:
            raise ForbiddenAddress(refusal)
        connector: IConnector = self._reactor.connectTCP(host, *args, **kwargs)
        return connector
