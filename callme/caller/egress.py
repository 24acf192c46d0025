"""Outbound connections, filtered by the address policy.

The policy applies to connections through a proxy too: see :class:`Tunnel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail
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
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..security.address_policy import AddressPolicy
from ..security.outgoing import ForHost, Proxy, find_for_host
from .failures import ProxyFailure, describe_failure
from .resolver import Lookup, Resolver

ATTEMPT_DELAY_SECONDS = 0.1
"""Seconds before an attempt to connect to the next address of a host starts beside the pending
one: the minimum of RFC 8305, section 5. For "localhost" the first address is often ::1, where
nothing listens."""
NEVER_SECONDS = 1_000_000_000
"""Timeout of an endpoint, in effect none, because each call has its own. Twisted measures it by
the wall clock, which an operator may set forward."""
MAX_PROXY_HEAD = 16 * 1024
"""Maximum size of a proxy's response head, in bytes."""
_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r\n)")


class ForbiddenAddress(Exception):
    """The policy forbids every address of a host; the text names one, and the reason."""


@implementer(IReactorTCP)
class EgressFilteringReactor:
    """Reactor that connects only to the addresses that the policy allows.

    Every connection passes through :meth:`connectTCP` with the final address, so the policy applies
    to any name and notation.
    """

    def __init__(self, reactor: Any, policy: AddressPolicy) -> None:
        self._reactor = reactor
        self._policy = policy

    def listenTCP(self, *args: Any, **kwargs: Any) -> Any:
        """Raise an error: this reactor serves outgoing connections only."""
        raise NotImplementedError

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> IConnector:
        """Connect to an address.

        :raises ForbiddenAddress: when the policy forbids the address.
        """
        reason = self._policy.reason_denied(host)
        if reason is not None:
            raise ForbiddenAddress(reason)
        connector: IConnector = self._reactor.connectTCP(host, *args, **kwargs)
        return connector


class Outbound:
    """Factory of outbound connections: it resolves names, and applies the policy and the proxies.

    :param clock: schedules the timers.
    :param policy: decides which addresses may be called.
    :param lookup: returns the addresses of a name.
    :param proxies: proxies by host; callme connects directly to a host without a proxy.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        policy: AddressPolicy,
        lookup: Lookup,
        *,
        proxies: Sequence[ForHost[Proxy | None]] = (),
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.filtered = EgressFilteringReactor(reactor, policy)
        self._policy = policy
        self._lookup = lookup
        self._proxies = proxies
        # The operator names the proxies: the rules for callbacks do not apply to them.
        self._to_proxies = Outbound(reactor, clock, AddressPolicy(), lookup) if proxies else self
        self.resolver = Resolver(clock=clock, threads=reactor, lookup=self._allowed_addresses)

    def _allowed_addresses(self, name: str) -> Sequence[str]:
        """Return the addresses of a name that the policy allows.

        If it allows none, return one forbidden address: connecting to it fails with
        :exc:`ForbiddenAddress` instead of "the name of the host was not found".
        """
        found = self._lookup(name)
        return [one for one in found if self._policy.reason_denied(one) is None] or found[:1]

    def endpoint(self, address: str, port: int, host: str) -> IStreamClientEndpoint:
        """Return the endpoint of an address of a host."""
        proxy = find_for_host(self._proxies, host)
        if proxy is not None:
            return Tunnel(
                policy=self._policy,
                proxy=proxy,
                to_proxy=HostEndpoint(outbound=self._to_proxies, host=proxy.host, port=proxy.port),
                address=address,
                port=port,
            )
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self.filtered, address, port, NEVER_SECONDS)


@implementer(IStreamClientEndpoint)
@define(eq=False, kw_only=True)
class HostEndpoint:
    """Endpoint of a host and a port; a host name is resolved at each connection.

    Twisted's ``HostnameEndpoint`` rejects names that are not valid in IDNA 2008.
    """

    _outbound: Outbound
    _host: str
    _port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the address, or to the first address of the name that accepts."""
        outbound = self._outbound
        if isIPAddress(self._host) or isIPv6Address(self._host):
            return outbound.endpoint(self._host, self._port, self._host).connect(protocolFactory)
        resolving: Deferred[Any] = outbound.resolver.resolve(self._host)
        return resolving.addCallback(self._connect_to, protocolFactory)

    def _connect_to(self, addresses: Sequence[str], factory: IProtocolFactory) -> Any:
        if not addresses:
            raise DNSLookupError(f"no address found for {self._host}")
        endpoints = [
            self._outbound.endpoint(address, self._port, self._host) for address in addresses
        ]
        if len(endpoints) == 1:
            return endpoints[0].connect(factory)
        return Race(clock=self._outbound.clock, endpoints=iter(endpoints), factory=factory).run()


@define(eq=False, kw_only=True)
class Race:
    """Attempts to connect to several endpoints (RFC 8305, section 5); the first connection is used.

    The next attempt starts when the previous one fails, or after :data:`ATTEMPT_DELAY_SECONDS`.
    """

    _clock: IReactorTime
    _endpoints: Iterator[IStreamClientEndpoint]
    _factory: IProtocolFactory
    _attempts: list[Deferred[Any]] = field(factory=list, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _won: Deferred[IProtocol] = field(init=False)

    def run(self) -> Deferred[IProtocol]:
        """Return the first connection, or the last failure if all attempts fail."""
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


@implementer(IStreamClientEndpoint)
@define(eq=False, kw_only=True)
class Tunnel:
    """Connection to an address through a proxy, by ``CONNECT`` (RFC 9110, section 9.3.6).

    The proxy receives the address that the policy has checked, not the name: if the proxy resolved
    the name itself, it could connect to an address that the policy forbids.
    """

    _policy: AddressPolicy
    _proxy: Proxy
    _to_proxy: HostEndpoint
    _address: str
    _port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect to the proxy, and through it to the address."""
        reason = self._policy.reason_denied(self._address)
        if reason is not None:
            return fail(ForbiddenAddress(reason))
        factory = Factory.forProtocol(_TunnelSetup)
        factory.noisy = False
        connecting: Deferred[Any] = self._to_proxy.connect(factory)
        return connecting.addCallbacks(self._open, self._unreachable, (protocolFactory,))

    def _open(self, setup: _TunnelSetup, factory: IProtocolFactory) -> Deferred[IProtocol]:
        address = f"[{self._address}]" if ":" in self._address else self._address
        authority = f"{address}:{self._port}"
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if self._proxy.authorization is not None:
            head += f"Proxy-Authorization: {self._proxy.authorization}\r\n"
        return setup.open(f"{head}\r\n".encode("ascii"), factory)

    def _unreachable(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            return failure
        assert failure.value is not None
        reason = describe_failure(failure.value)
        return Failure(ProxyFailure(f"the proxy cannot be reached: {reason}"))


class _TunnelSetup(Protocol):
    """Protocol that sets up a tunnel, and then passes the connection to the protocol inside it."""

    def __init__(self) -> None:
        self._received = b""
        self._factory: IProtocolFactory | None = None
        self._opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())

    def open(self, request: bytes, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Send the ``CONNECT`` request; return the protocol that uses the open tunnel."""
        self._factory = factory
        assert self.transport is not None
        self.transport.write(request)
        return self._opened

    def dataReceived(self, data: bytes) -> None:
        """Wait for the final status of the proxy."""
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(head) > MAX_PROXY_HEAD:
                self._fail("the response of the proxy to CONNECT is too long")
            return
        match = _PROXY_STATUS.match(head + end)
        if match is None:
            self._fail("the response of the proxy to CONNECT is not HTTP")
        elif match[1].startswith(b"1"):
            self._received = b""
            self.dataReceived(rest)
        elif not match[1].startswith(b"2"):
            self._fail(f"the proxy responded to CONNECT with {match[1].decode('ascii')}")
        elif rest:
            self._fail("the proxy sent data before it was sent a request")
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        transport: Any = self.transport
        assert self._factory is not None
        protocol: Any = self._factory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self._opened.callback(protocol)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail("the proxy closed the connection without a response to CONNECT")

    def _fail(self, sentence: str) -> None:
        if not self._opened.called:
            self._opened.errback(ProxyFailure(sentence))
            self._abort()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
