"""Outbound connections: to the addresses of a host, and only to those that may be called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..security.address_policy import AddressPolicy
from .resolver import Lookup, Resolver

ATTEMPT_DELAY_SECONDS = 0.1
"""How long one address of a host is tried before the next one is tried beside it: the least
that RFC 8305, section 5, allows; "localhost" is often ::1 first, where nothing listens."""
NEVER_SECONDS = 1_000_000_000
"""A timeout that is no timeout: a call has its own. That of an endpoint goes by the wall clock,
which may be set forward, though not by so much."""


class ForbiddenAddress(Exception):
    """None of the addresses of a host may be called; its text says which one not, and why."""


@implementer(IReactorTCP)
class EgressFilteringReactor:
    """A reactor as endpoints see it, with no way to what is denied.

    Every connection passes :meth:`connectTCP`, which is given the very address that the
    system is asked to connect to: whatever a name was resolved to before, and however an
    address was written, that is what is judged.
    """

    def __init__(self, reactor: Any, policy: AddressPolicy) -> None:
        self._reactor = reactor
        self._policy = policy

    def listenTCP(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: this is the way out only."""
        raise NotImplementedError

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> IConnector:
        """Connect to an address.

        :raises ForbiddenAddress: when it may not be called.
        """
        reason = self._policy.reason_denied(host)
        if reason is not None:
            raise ForbiddenAddress(reason)
        connector: IConnector = self._reactor.connectTCP(host, *args, **kwargs)
        return connector


class Outbound:
    """The way out: resolves names, and makes connections that may be made.

    :param clock: sets the timers.
    :param policy: decides which addresses may be called.
    :param lookup: returns the addresses of a name.
    """

    def __init__(
        self, reactor: Any, clock: IReactorTime, policy: AddressPolicy, lookup: Lookup
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.filtered = EgressFilteringReactor(reactor, policy)
        self._policy = policy
        self._lookup = lookup
        self.resolver = Resolver(clock, reactor, self._allowed_addresses)

    def _allowed_addresses(self, name: str) -> Sequence[str]:
        """Return those addresses of a name that may be called.

        Where there are none, one is left to be refused, so that the call fails for that
        reason, and not because the name was not found.
        """
        found = self._lookup(name)
        return [one for one in found if self._policy.reason_denied(one) is None] or found[:1]

    def endpoint(self, address: str, port: int) -> IStreamClientEndpoint:
        """Return the endpoint of an address."""
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self.filtered, address, port, NEVER_SECONDS)


@implementer(IStreamClientEndpoint)
@define(eq=False, kw_only=True)
class HostEndpoint:
    """A host and a port; what is no address is resolved whenever it is connected to.

    Twisted's ``HostnameEndpoint`` accepts no name that is not valid IDNA 2008.
    """

    _outbound: Outbound
    _host: str
    _port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the address, or to the first address that accepts."""
        outbound = self._outbound
        if isIPAddress(self._host) or isIPv6Address(self._host):
            return outbound.endpoint(self._host, self._port).connect(protocolFactory)
        resolving: Deferred[Any] = outbound.resolver.resolve(self._host)
        return resolving.addCallback(self._connect_to, protocolFactory)

    def _connect_to(self, addresses: Sequence[str], factory: IProtocolFactory) -> Any:
        if not addresses:
            raise DNSLookupError(f"no address found for {self._host}")
        endpoints = [self._outbound.endpoint(address, self._port) for address in addresses]
        if len(endpoints) == 1:
            return endpoints[0].connect(factory)
        return Race(clock=self._outbound.clock, endpoints=iter(endpoints), factory=factory).run()


@define(eq=False, kw_only=True)
class Race:
    """Attempts to connect to one of several endpoints, one after another: the first one wins.

    The next one begins when the one before fails, or has not succeeded for a while.
    """

    _clock: IReactorTime
    _endpoints: Iterator[IStreamClientEndpoint]
    _factory: IProtocolFactory
    _attempts: list[Deferred[Any]] = field(factory=list, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _won: Deferred[IProtocol] = field(init=False)

    def run(self) -> Deferred[IProtocol]:
        """Return the connection of the winner, or the failure of the last one to fail."""
        self._won = Deferred(lambda _: self._stop())
        self._begin(None)
        return self._won

    def _begin(self, failure: Failure | None) -> None:
        self._stop_timer()
        endpoint = next(self._endpoints, None)
        if endpoint is not None:
            self._timer = self._clock.callLater(ATTEMPT_DELAY_SECONDS, self._begin, None)
            attempt = endpoint.connect(self._factory)
            self._attempts.append(attempt)
            attempt.addCallbacks(self._succeeded, self._failed, (attempt,), {}, (attempt,))
        elif failure is not None and not self._attempts:
            self._won.errback(failure)

    def _succeeded(self, protocol: IProtocol, attempt: Deferred[Any]) -> None:
        self._attempts.remove(attempt)
        self._stop()
        self._won.callback(protocol)

    def _failed(self, failure: Failure, attempt: Deferred[Any]) -> None:
        if not self._won.called and attempt in self._attempts:
            self._attempts.remove(attempt)
            self._begin(failure)

    def _stop(self) -> None:
        self._stop_timer()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
