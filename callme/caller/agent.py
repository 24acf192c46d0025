"""The HTTP/1.1 agent under treq: it reuses or opens a connection for each request."""

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
    """Sender of requests, and owner of the connections that they use.

    :param outbound: opens connections.
    :param timers: timers of the monotonic clock.
    :param pool: decides which connections are reused and which are closed.
    :param contexts: contexts of TLS connections.
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
        # A dict instead of a set, because the order of a dict is the same in each run.
        self._connections: dict[Connection, None] = {}
        self._expiry: Timer | None = None
        self._all_lost: Deferred[None] | None = None

    def send(self, exchange: Exchange) -> None:
        """Send a request over an idle connection, or over a new one if there is none."""
        origin, now = exchange.target.origin, self._now()
        if self._pool.is_distrusted(origin, now):
            exchange.fresh = True
        exchange.closes = (
            exchange.fresh or len(exchange.payload) > LARGE_PAYLOAD or not exchange.has_more()
        )
        while not exchange.fresh and (connection := self._assign(now, wanted=origin)) is not None:
            if connection.unread() is None:
                exchange.reused = True
                exchange.use_connection(connection)
                return
            connection.drop()
        exchange.connecting = connecting = self._endpoint(origin).connect(self._factory(origin))
        connecting.addCallbacks(exchange.use_connection, exchange.connection_failed)

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
        """Stop reusing connections of an origin, which closed one just as it was reused."""
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
    """One request and its response, in the shape of an ``IAgent`` that is used once.

    :param agent: sends the request.
    :param fresh: whether the request requires a new connection.
    :param has_more: returns whether more requests to the same host are queued.
    :param start_headers: called when the request starts; returns additional header lines.
    :ivar connecting: the attempt to open the connection.
    :ivar closes: whether the connection is closed after this request.
    :ivar reused: whether the connection has served an earlier request.
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
        """Send the request; return its response once that is complete or has been cut off.

        :raises ValueError: when the URL is not an ``http`` or ``https`` URL.
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

    def use_connection(self, connection: Connection) -> None:
        """Send the request over a connection."""
        self.connecting = None
        if self._done is None:
            connection.drop()
        else:
            self._connection = connection
            connection.serve(self)

    def connection_failed(self, failure: Failure) -> None:
        """End the exchange because no connection could be opened."""
        self.fail(failure.value or CancelledError())

    def start(self) -> bytes:
        """Start the request, and return its bytes.

        :raises ValueError: when the method is not a token.
        """
        lines, self._lines = self._lines + self.start_headers(), b""
        if self.closes:
            lines += b"Connection: close\r\n"
        return request_bytes(self.method, self.target, lines, self.payload)

    def _cancel(self, _: Deferred[IResponse]) -> None:
        self.cut_off(CancelledError())

    def cut_off(self, failure: BaseException) -> None:
        """End the exchange with the received part of the response, or with a failure."""
        if self._connection is not None:
            self._connection.cut_off(failure)
        elif (connecting := self.connecting) is not None:
            self.fail(failure)
            connecting.cancel()

    def succeed(self, response: Response) -> None:
        """End the exchange with a response."""
        self._connection = None
        if (done := self._done) is not None:
            self._done = None
            done.callback(response)

    def fail(self, failure: BaseException) -> None:
        """End the exchange with a failure."""
        self._connection = self.connecting = None
        if (done := self._done) is not None:
            self._done = None
            if isinstance(failure, StaleConnection):
                self.agent.distrust(self.target.origin)
            done.errback(Failure(failure))
