"""One connection to an endpoint, which serves one request at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..process.sockets import send_directly
from .failures import StaleConnection, UnaskedData
from .pool import Origin
from .response import NotHTTP, Response
from .tls import CertificateRefused, check_name, describe_refusal

KEEPALIVE_SECONDS = 60
"""Seconds of silence before TCP probes a connection: some gateways drop connections that are
idle for a few minutes, while a response may take half an hour."""
LARGE_PAYLOAD = 16 * 1024
"""Size in bytes above which a payload may not be sent completely when the response arrives: its
connection serves no other request."""


_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
MAX_LAST_READS = 4
"""Maximum reads, of up to 64 KiB each, from a transport whose write has failed."""


class Request(Protocol):
    """Request that a connection sends, with the methods that receive its result.

    :ivar method: the HTTP method.
    :ivar payload: the content.
    :ivar closes: whether the connection is closed after this request.
    :ivar reused: whether the connection has served an earlier request.
    :ivar has_more: returns whether more requests to the same host are queued.
    """

    method: bytes
    payload: bytes
    closes: bool
    reused: bool
    has_more: Callable[[], bool]

    def start(self) -> bytes:
        """Start the request, and return its bytes; an exception makes the request fail."""

    def succeed(self, response: Response) -> None:
        """Receive the response."""

    def fail(self, failure: BaseException) -> None:
        """Receive the reason for the lack of a response."""


@implementer(IHandshakeListener)
class Connection(TwistedProtocol):
    """Connection to an endpoint.

    Data that arrives while no request is in flight belongs to no response: callme then drops the
    connection.

    :ivar released: called after a response, with the connection and whether it may serve another
        request.
    :ivar lost: called with the connection when it is closed.
    :ivar request: the request in flight, or the one that waits for the TLS handshake.
    :ivar verify_errors: OpenSSL's errors about the certificate, each with its depth in the chain.
    """

    def __init__(
        self,
        origin: Origin,
        opened_at: float,
        released: Callable[[Connection, bool], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self.origin = origin
        self.opened_at = opened_at
        self.request: Request | None = None
        self.verify_errors: list[tuple[int, int]] = []
        self._released = released
        self._lost = lost
        self._response: Response | None = None
        self._is_ready = False
        self._is_sent = False
        self._is_closed = False
        self._may_be_writing = False
        self._refusal: CertificateRefused | None = None

    # Requests

    def serve(self, request: Request) -> None:
        """Send a request, as soon as the TLS handshake, if any, is complete."""
        self.request = request
        if self._is_ready:
            self._send(request)

    def _send(self, request: Request) -> None:
        try:
            if not request.reused and self.unread():
                raise UnaskedData
            data = request.start()
        except Exception as failure:
            self._give_up(failure)
            return
        if len(request.payload) > LARGE_PAYLOAD:
            self._may_be_writing = True
            _read_before_failing(self._tcp)
        self._is_sent = True
        self._write(data)

    def _write(self, data: bytes) -> None:
        """Write as much as the system's socket buffer accepts, and leave the rest to the reactor.

        The transport's own buffer is empty: a connection with unsent data serves no other request.
        """
        if self.origin.scheme == "http":
            data = send_directly(self._tcp, data)
            if data:
                # The response may arrive before the rest of the request is sent.
                self._may_be_writing = True
        if data:
            self.transport.write(data)  # type: ignore[union-attr]

    def cut_off(self, failure: BaseException) -> None:
        """Stop waiting for the response; a status that has arrived still counts."""
        self._end(failure)
        self.drop()

    def _give_up(self, failure: BaseException) -> None:
        """Fail the request, and drop the connection."""
        request = self._free()
        self.drop()
        if request is not None:
            request.fail(failure)

    def _free(self) -> Request | None:
        """End the request in flight, and return it."""
        request, self.request, self._response = self.request, None, None
        self._is_sent = False
        return request

    def _end(self, failure: BaseException) -> None:
        """End the request with the part of the response that has arrived, or with a failure."""
        response = self._response
        request = self._free()
        if response is not None:
            response.close()
        if request is not None:
            if response is not None and response.code:
                request.succeed(response)
            else:
                request.fail(failure)

    # The transport

    @property
    def _tcp(self) -> Any:
        return getattr(self.transport, "transport", self.transport)

    def connectionMade(self) -> None:
        tcp = self._tcp
        tcp.setTcpNoDelay(True)
        tcp.setTcpKeepAlive(True)
        handle = tcp.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        self._is_ready = self.origin.scheme != "https"

    def handshakeCompleted(self) -> None:
        """Check the host name of the certificate, and only then send the request."""
        transport: Any = self.transport
        try:
            check_name(transport.getPeerCertificate(), self.origin.host)
        except CertificateRefused as refusal:
            self._refusal = refusal
            self._give_up(refusal)
            return
        self._is_ready = True
        if self.request is not None:
            self._send(self.request)

    def dataReceived(self, data: bytes) -> None:
        request = self.request
        if request is None or not self._is_sent:
            self._give_up(UnaskedData())
            return
        response = self._response
        if response is None:
            response = self._response = Response(request.method)
        try:
            response.feed(data)
        except NotHTTP as failure:
            response.close()
            self._give_up(failure)
            return
        if response.done:
            self._end_completely(response)

    def _end_completely(self, response: Response) -> None:
        request = self._free()
        response.close()
        assert request is not None
        # The connection is released before its request ends, because the next request may start in
        # the callback of that one.
        if not response.complete:
            self.drop()
        elif request.closes or self._may_be_writing or not response.reusable:
            self._released(self, False)
        elif request.has_more():
            self._released(self, True)
        else:
            self.close()
        request.succeed(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_closed = True
        self._lost(self)
        failure: BaseException = reason.value or error.ConnectionLost()
        request = self.request
        if self._refusal is not None:
            failure = self._refusal
        elif refusal := describe_refusal(self.verify_errors):
            failure = CertificateRefused(refusal)
        elif request is not None and request.reused and self._response is None:
            failure = StaleConnection()
        self._end(failure)

    def unread(self) -> bytes | None:
        """Return a byte that arrived without a request.

        :returns: ``None`` if no byte has arrived, and empty bytes if the endpoint closed the
            connection.
        """
        if self._is_closed:
            return b""
        if self.origin.scheme == "https":
            # The bytes in the socket's buffer may be a TLS record without application data.
            return None
        try:
            found: bytes = self._tcp.getHandle().recv(1, _PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return found

    def close(self) -> None:
        """Close the connection, without waiting until the endpoint closes it or reads all data."""
        if self._may_be_writing:
            self.drop()
            return
        tcp = self._tcp
        self.transport.loseConnection()  # type: ignore[union-attr]
        if tcp is not self.transport:
            # TLS would wait for the endpoint's close_notify alert.
            tcp.loseConnection()

    def drop(self) -> None:
        """Abort the connection at once, and discard unsent data."""
        self._is_closed = True
        self.transport.abortConnection()  # type: ignore[union-attr]


def _read_before_failing(tcp: Any) -> None:
    """Make a transport read received data before it reports a failed write.

    An endpoint may respond and close the connection without reading the whole request (RFC 9112,
    section 9.5). Twisted would drop the connection at the first failed write, and the response
    with it.
    """
    write = tcp.doWrite

    def write_or_read() -> Any:
        failure = write()
        if failure is not None:
            for _ in range(MAX_LAST_READS):
                if tcp.doRead() is not None:
                    break
        return failure

    tcp.doWrite = write_or_read
