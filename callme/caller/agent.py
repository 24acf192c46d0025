"""An agent for HTTP/1.1, under treq: it finds or makes a connection for each request."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from .connection import LARGE_PAYLOAD, Connection
from .egress import HostEndpoint, Outbound
from .failures import StaleConnection
from .pool import Origin, Pool
from .request import BytesProducer, RequestHeaders, Target, parse_target, request_bytes
from .response import Response
from .timer_wheel import Timer, TimerWheel
from .tls import TLSClient, TLSContexts


class Agent:
    """Sends requests, and keeps connections for further ones.

    :param outbound: makes connections.
    :param timers: those of the monotonic clock.
    :param contexts: the contexts of TLS connections.
    """

    def __init__(
        self,
        outbound: Outbound,
        timers: TimerWheel,
        pool: Pool[Connection],
        contexts: TLSContexts,
    ) -> None:
        self._outbound = outbound
        self._now = outbound.clock.seconds
        self._timers = timers
        self._pool = pool
        self._contexts = contexts
        self._endpoint = lru_cache(maxsize=1024)(self._make_endpoint)
        self._factory = lru_cache(maxsize=1024)(partial(_Factory, self._connection))
        # A dict, unlike a set, has an order that is the same in each run.
        self._connections: dict[Connection, None] = {}
        self._expiry: Timer | None = None
        self._all_lost: Deferred[None] | None = None

    def send(self, exchange: Exchange) -> None:
        """Send a request over a kept connection, or else over a new one."""
        origin, now = exchange.target.origin, self._now()
        if self._pool.is_distrusted(origin, now):
            exchange.fresh = True
        exchange.closes = (
            exchange.fresh or len(exchange.payload) > LARGE_PAYLOAD or not exchange.has_more()
        )
        while not exchange.fresh and (connection := self._assign(now, wanted=origin)) is not None:
            if connection.unread() is None:
                exchange.reused = True
                exchange.go_over(connection)
                return
            connection.drop()
        exchange.connecting = connecting = self._endpoint(origin).connect(self._factory(origin))
        connecting.addCallbacks(exchange.go_over, exchange.connection_failed)

    def _make_endpoint(self, origin: Origin) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostEndpoint(
            outbound=self._outbound, host=origin.host, port=origin.port
        )
        if origin.scheme == "https":
            endpoint = wrapClientTLS(TLSClient(self._contexts, origin.host), endpoint)
        return endpoint

    def _connection(self, origin: Origin) -> Connection:
        connection = Connection(origin, self._now(), self._release, self._lost)
        self._connections[connection] = None
        return connection

    def _release(self, connection: Connection, reusable: bool) -> None:
        self._assign(self._now(), released=connection, reusable=reusable)

    def distrust(self, origin: Origin) -> None:
        """Keep no connection of an origin for a while: it closes them without notice."""
        for connection in self._pool.distrust(origin, self._now()):
            connection.close()

    def _assign(self, now: float, **change: Any) -> Connection | None:
        assignment = self._pool.assign(now, **change)
        for connection in assignment.closes:
            connection.close()
        if self._expiry is None and (expires_at := self._pool.next_expiry()) is not None:
            self._expiry = self._timers.set(expires_at - now, self._expire)
        return assignment.serves

    def _expire(self) -> None:
        self._expiry = None
        self._assign(self._now())

    def _lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._pool.remove(connection)
        if self._all_lost is not None and not self._connections:
            self._all_lost.callback(None)

    def close(self) -> Deferred[None]:
        """Close all connections."""
        if self._expiry is not None:
            self._timers.cancel(self._expiry)
        if not self._connections:
            return succeed(None)
        self._all_lost = Deferred()
        for connection in list(self._connections):
            connection.drop()
        return self._all_lost


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, build: Callable[[Origin], Connection], origin: Origin) -> None:
        self._build = build
        self._origin = origin

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._build(self._origin)


@implementer(IAgent)
@define(eq=False, kw_only=True)
class Exchange:
    """One request and its response: an agent that is used once.

    :param agent: sends it.
    :param fresh: whether it must go over a new connection.
    :param has_more: returns whether more requests to its host wait.
    :param start_headers: called when the request starts; returns further lines of its head.
    :ivar connecting: the attempt to make its connection.
    :ivar closes: whether its connection serves no other request.
    :ivar reused: whether its connection has served another one.
    """

    agent: Agent
    fresh: bool
    has_more: Callable[[], bool]
    start_headers: Callable[[], bytes]
    closes: bool = False
    reused: bool = False
    method: bytes = b""
    payload: bytes = b""
    target: Target = field(init=False)
    connecting: Deferred[Any] | None = None
    _lines: bytes = b""
    _connection: Connection | None = None
    _done: Deferred[IResponse] | None = None

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send the request; the response comes when its end has arrived, or as far as it came.

        :raises ValueError: when it cannot be written as one request.
        """
        assert isinstance(headers, RequestHeaders)
        if bodyProducer is not None:
            assert isinstance(bodyProducer, BytesProducer)
            self.payload = bodyProducer.data
        self.method, self.target, self._lines = method, parse_target(uri), headers.lines
        done: Deferred[IResponse] = Deferred(self._cancel)
        self._done = done
        self.agent.send(self)
        return done

    def go_over(self, connection: Connection) -> None:
        """Take a connection."""
        self.connecting = None
        if self._done is None:
            connection.drop()
        else:
            self._connection = connection
            connection.serve(self)

    def connection_failed(self, failure: Failure) -> None:
        """End without a connection."""
        self.fail(failure.value or CancelledError())

    def start(self) -> bytes:
        """Return the request, which starts now."""
        lines, self._lines = self._lines + self.start_headers(), b""
        if self.closes:
            lines += b"Connection: close\r\n"
        return request_bytes(self.method, self.target, lines, self.payload)

    def _cancel(self, _: Deferred[IResponse]) -> None:
        self.cut_off(CancelledError())

    def cut_off(self, failure: BaseException) -> None:
        """End now, with the response as far as it has arrived, or else with a failure."""
        if self._connection is not None:
            self._connection.cut_off(failure)
        elif (connecting := self.connecting) is not None:
            self.fail(failure)
            connecting.cancel()

    def succeed(self, response: Response) -> None:
        """End with a response."""
        self._connection = None
        if (done := self._done) is not None:
            self._done = None
            done.callback(response)

    def fail(self, failure: BaseException) -> None:
        """End without one."""
        self._connection = self.connecting = None
        if (done := self._done) is not None:
            self._done = None
            if isinstance(failure, StaleConnection):
                self.agent.distrust(self.target.origin)
            done.errback(Failure(failure))
