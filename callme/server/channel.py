"""HTTP connections with deadlines and limits, and the error responses for exceeding them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from ..process.sockets import send_directly, sends_directly
from ..security.hosts import path_of
from .paths import is_page, max_form
from .problem import RETRY_LATER, Problem, fixed_headers, raw_response
from .refusals import Refusal, peer_name

if TYPE_CHECKING:
    from .site import BoundedSite

MAX_BODY = 1024 * 1024
"""Maximum size of a request's body, in bytes."""
MAX_BATCH = 16 * 1024 * 1024
"""Maximum size of the body of a batch, in bytes."""
_PROBE_PATHS = (b"/healthz", b"/healthz/", b"/metrics", b"/metrics/")
"""Paths that are served even beyond the limit of connections."""
_BATCH_PATHS = (b"/batch", b"/batch/")
REQUEST_SECONDS = 30
"""Time limit for the arrival of a request, from its first to its last byte, in seconds."""
SURPLUS_SECONDS = 5
"""Time limit for the request of a connection beyond the limit, in seconds."""
IDLE_SECONDS = 60
"""Default time limit for an idle connection, in seconds."""
CLOSE_SECONDS = 10
"""Time limit for a client to read the last response of its connection, in seconds."""
RESPONSE_SECONDS = 120
"""Time limit for a response, in seconds; with a working database it takes much less."""


def _too_many_clients() -> Problem:
    detail = "too many clients are connected: repeat the request later"
    return Problem(503, detail, headers=RETRY_LATER, refusal=Refusal.OVERLOAD)


def _max_body(request_line: bytes) -> int:
    """Return the maximum size of a request's body, in bytes."""
    path = path_of(request_line.partition(b" ")[2].partition(b" ")[0])
    if is_page(path):
        # The limit of forms is small, because clients that have not logged in send forms too.
        return max_form(path)
    return MAX_BATCH if path in _BATCH_PATHS else MAX_BODY


class BoundedChannel(HTTPChannel):
    """Connection with a deadline for each request, each response and each idle time.

    The site checks the deadlines of all connections every second: a timer for each connection would
    be created and cancelled with each request.

    :ivar site: the site of the connection, which Twisted sets.
    :ivar is_surplus: whether the connection is beyond the limit. It then has one request, which is
        served only if it is a probe; any other request is refused before its body is read.
    """

    is_surplus = False

    max_body = MAX_BODY
    # Twisted's timer is disabled because every byte restarts it.
    timeOut = None
    site: BoundedSite
    _responding = False
    _idle = False
    _reading = False
    _request_line = b""
    # Whether the transport's buffer is full because the client does not read.
    _write_paused = False
    # Sizes in bytes of the request's body, and of the data written while writing was paused.
    _body_size = 0
    _buffered_bytes = 0
    # The current deadline by the site's clock.
    _deadline = 0.0
    _refused = False
    _closing = False
    _host: IAddress | None = None
    # The head of the current response, until it is written.
    _head = b""
    # True while nothing waits in the transport's own buffer.
    _sends_directly = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self._sends_directly = sends_directly(self.transport)
        self.site.channel_opened(self)
        self._expire_in(SURPLUS_SECONDS if self.is_surplus else REQUEST_SECONDS)

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle:
            self._idle = False
            self.site.registry.mark_reading(self, self.site.clock.seconds())
            self._expire_in(REQUEST_SECONDS)
        try:
            super().dataReceived(data)
        except ValueError:
            # Twisted raises ValueError for a Content-Length with too many digits.
            self._respondToBadRequestAndDisconnect()

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        method, target, version = self._request_line.split(b" ")
        if self.is_surplus and path_of(target) not in _PROBE_PATHS:
            problem: Problem | None = _too_many_clients()
        else:
            problem = self.site.gate.authorize(request, method, target, version)
        if problem is None or self.length == 0:
            request.problem = problem
            super().allHeadersReceived()
        else:
            # The body of a rejected request is neither buffered nor waited for.
            self._reject(problem)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        persistent = super().checkPersistence(request, version)
        if self.is_surplus:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return persistent and not self.is_surplus

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def set_body_size(self, size: int) -> bool:
        """Record the current size of the request's body, in bytes.

        :return: whether to buffer the body; false if the request was shed because of it.
        """
        self._body_size = size
        self._update_usage()
        return not self._refused

    def _update_usage(self) -> None:
        self.site.buffers.set_usage(self, self._body_size + self._buffered_bytes)
        self.site.shed_load()

    @property
    def sheddable(self) -> bool:
        """True if buffered bytes may be discarded: no request in progress depends on them."""
        return not self._responding or self._buffered_bytes > 0

    def shed(self) -> None:
        """Discard the buffered bytes, because all clients together exceed the budget."""
        if self._buffered_bytes:
            self.drop()
        else:
            detail = "clients send more to callme at once than it buffers: repeat the request later"
            overload = Problem(429, detail, headers=RETRY_LATER, refusal=Refusal.OVERLOAD)
            self._reject(overload)
            self.requests[-1].discard_body()
        self._body_size = self._buffered_bytes = 0
        self._update_usage()

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._responding = True
        self._reading = False
        self._request_line = b""
        self.site.registry.mark_busy(self)
        self._expire_in(RESPONSE_SECONDS)
        super().allContentReceived()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def requestDone(self, request: Request) -> None:
        if self._head:
            self.write(b"")
        if self._body_size:
            self._body_size = 0
            self._update_usage()
        self._responding = False
        self._idle = True
        self.site.registry.mark_idle(self, self.site.clock.seconds())
        if self.site.closing:
            self.persistent = False
        self._closing = not self.persistent
        self._expire_in(CLOSE_SECONDS if self._closing else self.site.idle_seconds)
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channel_lost(self)
        super().connectionLost(reason)

    def lineReceived(self, line: bytes) -> None:
        if self._write_paused:
            # A client that pipelines requests without reading responses would exhaust the memory.
            self._close_gracefully()
            return
        if line and not self._reading:
            self._reading = True
            line = self.site.base_path.remove(line)
            self._request_line = line
            self.max_body = _max_body(line)
        super().lineReceived(line)

    def pauseProducing(self) -> None:
        self._write_paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._write_paused = False
        if self._buffered_bytes:
            self._buffered_bytes = 0
            self._update_usage()
        super().resumeProducing()

    def _send100Continue(self) -> None:
        # Twisted would write past this class's own method.
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        if self._sends_directly:
            data = send_directly(self.transport, data)
            # From now on, the transport writes all, in order.
            self._sends_directly = not data
        if data:
            super().write(data)
        if self._write_paused:
            self._buffered_bytes += len(data)
            self._update_usage()

    def getHost(self) -> IAddress:
        # The address is cached, because Twisted would query the system for each request.
        if self._host is None:
            self._host = super().getHost()
        return self._host

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        # This replaces Twisted's method, which writes each name and each value separately.
        self.site.base_path.add_to_headers(headers)
        lines = [b"%b %b %b\r\n" % (version, code, reason), fixed_headers()]
        for name, values in headers.getAllRawHeaders():
            lines += [b"%b: %b\r\n" % (name, value) for value in values]
        # The head is written with the body, or at the end of a response without a body.
        self._head = b"".join([*lines, b"\r\n"])

    def check_deadline(self, now: float) -> None:
        """Close the connection if its deadline has passed.

        :param now: seconds of the site's clock.
        """
        if now < self._deadline:
            return
        if self._responding or self._closing:
            self.drop()
        elif self._idle:
            self._close_gracefully()
        else:
            seconds = SURPLUS_SECONDS if self.is_surplus else REQUEST_SECONDS
            self._refuse(408, f"the request took more than {seconds} s to arrive")

    def drop(self) -> None:
        """Abort the connection at once; unsent data is lost."""
        cast(ITCPTransport, self.transport).abortConnection()

    def evict(self) -> None:
        """Close the connection to make room for another; send the data of an idle one first."""
        if self._refused or self._write_paused:
            self.drop()
        elif self._idle:
            self._close_gracefully()
        elif self._reading:
            self._reject(_too_many_clients())
            self.loseConnection()
        else:
            self.drop()
        self.site.registry.mark_busy(self)

    def has_unread(self) -> bool:
        """Return whether the client has sent data that callme has not read yet."""
        transport: Any = self.transport
        get_handle = getattr(getattr(transport, "transport", transport), "getHandle", None)
        if get_handle is None:
            return False
        try:
            return bool(get_handle().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            # There is no data, or the connection is broken.
            return False

    def close_when_idle(self) -> None:
        """Close the connection at once if it is idle, or else after the current response."""
        if not self._responding:
            self._close_gracefully()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(431, f"a line has more than {self.MAX_LENGTH:,} bytes")

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted calls this private method for requests that it cannot parse, and would send an
        # empty response.
        if self._receivedHeaderSize > self.totalHeadersSize:
            self._refuse(431, f"the headers have more than {self.totalHeadersSize:,} bytes")
        elif self._receivedHeaderCount > self.maxHeaders:
            self._refuse(431, f"there are more than {self.maxHeaders:,} headers")
        else:
            self._refuse(400, "the request is not valid HTTP/1.1 (RFC 9112)")

    def _refuse(self, status: int, detail: str) -> None:
        """Send an error response and close the connection."""
        self._reject(Problem(status, detail))
        self.loseConnection()

    def _reject(self, problem: Problem) -> None:
        """Send an error response before the request is complete; ignore all further data.

        The client must close the connection: if callme closed it while the client still sends, the
        connection would be reset, and the client might never read the response.
        """
        assert self.transport is not None
        if problem.refusal is not None:
            request = self.requests[-1] if self.requests else None
            client = peer_name(self.getPeer()) if request is None else request.client_name
            self.site.refusals.record(problem.refusal, client)
        with_body = not self._request_line.startswith(b"HEAD ")
        self.transport.write(raw_response(problem, with_body=with_body))
        self._begin_close()

    def _close_gracefully(self) -> None:
        self._begin_close()
        self.loseConnection()

    def _begin_close(self) -> None:
        self._refused = self._closing = True
        self.site.registry.mark_idle(self, self.site.clock.seconds())
        self._expire_in(CLOSE_SECONDS)

    def _expire_in(self, seconds: float) -> None:
        self._deadline = self.site.clock.seconds() + seconds
