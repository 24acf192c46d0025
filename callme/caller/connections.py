"""Connections to endpoints: how they are made, kept, and dropped."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from ..core.definition import MAX_TIMEOUT


@define(eq=False)
class Link:
    """The connection that a call goes over, once there is one.

    :ivar reused: whether it was kept from an earlier call.
    :ivar expired: whether the call's time is over.
    """

    protocol: Any = None
    reused: bool = False
    expired: bool = False

    def abort(self) -> None:
        """Drop the connection at once: a TLS peer could keep a polite goodbye waiting."""
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abortConnection()


class Pool(HTTPConnectionPool):
    """A connection pool that tells each call about its connection.

    :ivar link: filled in by the next call of :meth:`getConnection`, which the
        agent makes before its ``request`` returns.
    """

    link = Link()

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:
        link = self.link
        connecting: Deferred[Any] = super().getConnection(key, endpoint)
        link.reused = connecting.called

        def connected(protocol: Any) -> Any:
            link.protocol = protocol
            return protocol

        return connecting.addCallback(connected)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where to connect to for a URL; kept per host, as making one parses its name."""

    def __init__(self, reactor: Any, tls_policy: IPolicyForHTTPS) -> None:
        self._reactor = reactor
        self._tls_policy = tls_policy
        self._of = lru_cache(maxsize=1024)(self._make)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._of(uri.scheme, uri.host, uri.port)

    def _make(self, scheme: bytes, host: bytes, port: int) -> IStreamClientEndpoint:
        # The call's own deadline is the one that counts, and is never longer than this.
        host = host.strip(b"[]")
        endpoint: IStreamClientEndpoint
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=MAX_TIMEOUT)
        if scheme == b"https":
            endpoint = wrapClientTLS(self._tls_policy.creatorForNetloc(host, port), endpoint)
        return _Quiet(endpoint)


@implementer(IStreamClientEndpoint)
class _Quiet:
    """Connects without a line in the log for each connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocolFactory.noisy = False
        return self._endpoint.connect(protocolFactory)
