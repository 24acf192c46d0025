"""One connection to an endpoint: requests and their responses, one after another."""

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
"""How long a connection is silent before TCP probes it: gateways forget connections that are
idle, the strictest after a few minutes, and a response may take half an hour."""
LARGE_PAYLOAD = 16 * 1024
"""Bytes of a payload that may still be on its way when its response arrives: its connection
serves no other request."""


_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
MAX_LAST_READS = 4
"""How often a transport that cannot write is read, each time up to 64 KiB."""


class Request(Protocol):
    """A request that a connection sends, and what becomes of it.

    :ivar method: its method.
    :ivar payload: its content.
    :ivar closes: whether its connection serves no other request.
    :ivar reused: whether its connection has served another one.
    :ivar has_more: returns whether more requests to its host wait.
    """

    method: bytes
    payload: bytes
    closes: bool
    reused: bool
    has_more: Callable[[], bool]

    def start(self) -> bytes:
        """Return the request as it is sent now; raise an exception for none."""

    def succeed(self, response: Response) -> None:
        """Take the response."""

    def fail(self, failure: BaseException) -> None:
        """Take the reason why there is no response."""


@implementer(IHandshakeListener)
class Connection(TwistedProtocol):
    """A connection to an endpoint.

    What arrives while no request is in flight is no response: the connection is dropped.

    :ivar released: called when a response has ended: with the connection, and whether it may
        serve another request.
    :ivar lost: called with the connection when it is closed.
    :ivar request: the request in flight, or the one that waits for the TLS handshake.
    :ivar verify_errors: what OpenSSL finds wrong with the certificate.
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
        """Send a request, as soon as the connection is ready for the first one."""
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
        """Write at once what the system takes at once, and leave the rest to the reactor.

        The transport has nothing to write: a connection with a rest serves no other request.
        """
        if self.origin.scheme == "http":
            data = send_directly(self._tcp, data)
            if data:
                # An early response may end the request while its rest is still to be written.
                self._may_be_writing = True
        if data:
            self.transport.write(data)  # type: ignore[union-attr]

    def cut_off(self, failure: BaseException) -> None:
        """Wait no longer for the response: a status that has arrived counts."""
        self._end(failure)
        self.drop()

    def _give_up(self, failure: BaseException) -> None:
        """Fail the request, and drop the connection."""
        request = self._free()
        self.drop()
        if request is not None:
            request.fail(failure)

    def _free(self) -> Request | None:
        """End the exchange; return its request."""
        request, self.request, self._response = self.request, None, None
        self._is_sent = False
        return request

    def _end(self, failure: BaseException) -> None:
        """End the request with the response, as far as it has arrived, or with a failure."""
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
        """Check what the certificate is for, and begin: not a byte is sent before."""
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
        # The connection is free before its request ends: another one may begin right then.
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
        """Return the bytes that arrived without a request: ``None`` if none, empty at the end."""
        if self._is_closed:
            return b""
        if self.origin.scheme == "https":
            # The received bytes may be a message of TLS itself.
            return None
        try:
            found: bytes = self._tcp.getHandle().recv(1, _PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return found

    def close(self) -> None:
        """Close the connection, without waiting for the endpoint to agree, or to read all."""
        if self._may_be_writing:
            self.drop()
            return
        self._is_closed = True
        tcp = self._tcp
        self.transport.loseConnection()  # type: ignore[union-attr]
        if tcp is not self.transport:
            # TLS would wait for the endpoint's own goodbye.
            tcp.loseConnection()

    def drop(self) -> None:
        """Close the connection at once, whatever is still on its way."""
        self._is_closed = True
        self.transport.abortConnection()  # type: ignore[union-attr]


def _read_before_failing(tcp: Any) -> None:
    """Let a transport read what has arrived before it fails to write (RFC 9112, section 9.5).

    An endpoint may respond, and close, without reading the whole request. Twisted would drop
    the connection at the first write that fails, and with it the response.
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
