"""Connections to endpoints: how they are made, kept, and dropped."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from attrs import define, field
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from .egress import ConfinedReactor

MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, after which its connection is dropped: Twisted bounds each line
of a head, but not how many there are."""
NEVER = 1_000_000_000
"""More seconds than any wall clock is set by."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")


class TooLate(Exception):
    """A connection was made when no request may start any more."""


@define(eq=False)
class Link:
    """The connection that a call goes over, once there is one.

    :ivar started_at: when it was there, and the request began; until then, when it was
        asked for. Seconds since 1970.
    :ivar starts: told when the request starts, before any of it is written.
    :ivar reused: whether it was kept from an earlier call.
    :ivar expired: whether the call's time is over.
    """

    _now: Callable[[], float]
    _expires_at: float
    started_at: float = field(init=False)
    starts: Callable[[float], None] | None = None
    reused: bool = False
    expired: bool = False
    _protocol: Any = None

    def __attrs_post_init__(self) -> None:
        self.started_at = self._now()

    def connected(self, protocol: Any) -> Any:
        """Take a connection for one call.

        :raises TooLate: where connecting took so long that no request may start now.
        """
        self._protocol = protocol
        self.started_at = self._now()
        if self.started_at >= self._expires_at:
            self.abort()
            raise TooLate
        if self.starts is not None:
            self.starts(self.started_at)
        protocol.transport.begin()
        return protocol

    def head_is_over(self) -> None:
        """Say that the answer's head has arrived: from here, the body is bounded."""
        self._transport.head = None

    def leave(self) -> None:
        """Say that the call is over: whatever else arrives is nobody's answer."""
        if (transport := self._transport) is not None:
            transport.end()

    @property
    def _transport(self) -> Any:
        return None if self._protocol is None else self._protocol.transport

    @property
    def status(self) -> int | None:
        """The status of an answer whose head never became complete, if so much arrived."""
        head = None if self._transport is None else self._transport.head
        return None if head is None else status_in(b"".join(head))

    def abort(self) -> None:
        """Drop the connection at once: a TLS peer could keep a polite goodbye waiting."""
        if (transport := self._transport) is not None:
            transport.drop()


def status_in(head: bytes) -> int | None:
    """Return the status that a head begins with, after any interim (1xx) ones."""
    at = 0
    while match := _STATUS_LINE.match(head, at):
        if not match[1].startswith(b"1"):
            return int(match[1])
        end = head.find(b"\r\n\r\n", at)
        if end < 0:
            break
        at = end + 4
    return None


@define(eq=False)
class Unused:
    """Connections that are kept for further calls, the longest unused first.

    Twisted bounds how many it keeps for a host, but not for how many hosts: calls to
    thousands of them would leave no descriptors for others.
    """

    _most: int
    _kept: dict[_Watched, None] = field(factory=dict, init=False)

    def add(self, connection: _Watched) -> None:
        """Keep one more, and drop the first if that is too many."""
        self._kept[connection] = None
        if len(self._kept) > self._most:
            # Not when it is closed, which it is only once the reactor turns: more may come first.
            first = next(iter(self._kept))
            del self._kept[first]
            first.drop()

    def remove(self, connection: _Watched) -> None:
        """Forget one that is used again, or closed."""
        self._kept.pop(connection, None)


class _Watched(ProtocolWrapper):
    """A connection that bounds the head of each answer, and is dropped if it speaks unasked.

    :ivar head: what has arrived of the head; ``None`` once it is over.
    :ivar in_use: whether a call is under way.
    :ivar dropped: whether it is, or is about to be, closed by us.
    """

    factory: _WatchedFactory
    head: list[bytes] | None = None
    in_use = False
    dropped = False
    _size = 0
    _lost = False

    def begin(self) -> None:
        """Expect an answer."""
        self.factory.unused.remove(self)
        self.in_use, self.head, self._size = True, [], 0

    def end(self) -> None:
        """Expect no more."""
        self.in_use = False
        if not (self._lost or self.dropped):
            self.factory.unused.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self.factory.unused.remove(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if self.head is not None:
            self.head.append(data)
            self._size += len(data)
        if not self.in_use or (self.head is not None and self._size > MAX_HEAD + len(data)):
            self.drop()
        else:
            super().dataReceived(data)

    def drop(self) -> None:
        """Close the connection at once, which the reactor does as it turns next."""
        self.dropped = True
        cast(ITCPTransport, self.transport).abortConnection()


class _WatchedFactory(WrappingFactory[_Watched]):
    """What makes connections that are watched.

    :ivar unused: where they are while they are kept for further calls.
    """

    protocol = _Watched
    noisy = False
    unused: Unused


class Pool(HTTPConnectionPool):
    """A connection pool that tells each call about its connection.

    :ivar link: filled in by the next call of :meth:`getConnection`, which the
        agent makes before its ``request`` returns.
    """

    link: Link

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:
        link = self.link
        connecting: Deferred[Any] = super().getConnection(key, endpoint)
        # One that is being dropped is kept until the reactor turns; a call over it would fail.
        while connecting.called and _is_dropped(connecting.result):
            connecting = super().getConnection(key, endpoint)
        link.reused = connecting.called
        return connecting.addCallback(link.connected)


def _is_dropped(connection: Any) -> bool:
    """Whether what a pool supplied is a connection that is being dropped, and no failure."""
    return bool(getattr(getattr(connection, "transport", None), "dropped", False))


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where to connect to for a URL; kept per host, as making one parses its name."""

    def __init__(
        self, reactor: ConfinedReactor, tls_policy: IPolicyForHTTPS, most_unused: int
    ) -> None:
        self._unused = Unused(most_unused)
        self._reactor = reactor
        self._tls_policy = tls_policy
        self._of = lru_cache(maxsize=1024)(self._make)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._of(uri.scheme, uri.host, uri.port)

    def _make(self, scheme: bytes, host: bytes, port: int) -> IStreamClientEndpoint:
        # The call's own deadline is the one that counts. This one goes by the wall clock, which
        # may be set forward.
        timeout = NEVER
        host = host.strip(b"[]")
        literal = host.decode("ascii")
        endpoint: IStreamClientEndpoint
        # An address needs none of what is done for a name, which costs four times as much.
        if isIPAddress(literal):
            endpoint = TCP4ClientEndpoint(self._reactor, literal, port, timeout)
        elif isIPv6Address(literal):
            endpoint = TCP6ClientEndpoint(self._reactor, literal, port, timeout)
        else:
            # Half of RFC 8305's delay before a name's next address is tried as well, and not
            # less than it allows: "localhost" is often ::1 first, where nobody listens.
            endpoint = HostnameEndpoint(self._reactor, host, port, timeout, attemptDelay=0.1)
        if scheme == b"https":
            endpoint = wrapClientTLS(self._tls_policy.creatorForNetloc(host, port), endpoint)
        return _Watching(endpoint, self._unused)


@implementer(IStreamClientEndpoint)
class _Watching:
    """Makes connections that are watched, without a line in the log for each."""

    def __init__(self, endpoint: IStreamClientEndpoint, unused: Unused) -> None:
        self._endpoint = endpoint
        self._unused = unused

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        factory = _WatchedFactory(protocolFactory)
        factory.unused = self._unused
        protocolFactory.noisy = False
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda watched: watched.wrappedProtocol)
