"""The response to one request: its parser, which bounds its size and tolerates malformed heads."""

from __future__ import annotations

import re
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

MAX_HEAD = 64 * 1024
"""Maximum bytes of a response before its body, interim responses included."""
MAX_BODY = 64 * 1024
"""Maximum bytes of a response's body that are read."""
STORED_BODY = 1024
"""Maximum bytes of a response's body that are stored."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_LENGTHS = re.compile(rb"^content-length[ \t]*:([^\r\n]*)\r?\n", re.IGNORECASE | re.MULTILINE)
_RETRY_AFTER = re.compile(rb"^retry-after[ \t]*:([^\r\n]*)\r?\n", re.IGNORECASE | re.MULTILINE)


_DONE = Failure(ResponseDone())


class NotHTTP(Exception):
    """The response is not HTTP/1, or its framing is invalid."""

    def __init__(self, sentence: str = "the endpoint's response is not HTTP") -> None:
        super().__init__(sentence)


class ResponseHeaders(Headers):
    """The response headers that callme uses: only ``Retry-After``.

    treq would look for a ``Content-Encoding``, and change headers when it decodes one.
    """

    def __init__(self, retry_after: list[bytes]) -> None:
        self.retry_after = retry_after

    def getRawHeaders(self, name: Any, default: Any = None) -> Any:
        return self.retry_after or default if name == b"retry-after" else default

    def setRawHeaders(self, name: Any, values: Any) -> None:
        """Do nothing: the headers are read-only."""

    def removeHeader(self, name: Any) -> None:
        """Do nothing: the headers are read-only."""


@implementer(IResponse)
class Response:
    """Response to one request, parsed incrementally, without I/O.

    llhttp finds its end (RFC 9112, section 6.3). The parser is lenient about deviations of common
    servers that do not affect framing. Data after the response is never parsed as another response.

    :ivar done: whether no more data needs to be read.
    :ivar complete: whether the end has arrived, and no data after it.
    :ivar reusable: whether the connection may serve another request.
    :ivar code: the status; 0 until it is known.
    :ivar body: the first :data:`STORED_BODY` bytes of the content.
    """

    length = UNKNOWN_LENGTH
    phrase = b""
    request = previousResponse = None

    def __init__(self, method: bytes) -> None:
        self.version = (b"HTTP", 1, 1)
        self.code = 0
        self.body = b""
        self.done = self.complete = self.reusable = False
        self._retry_after: list[bytes] = []
        self.headers = ResponseHeaders(self._retry_after)
        self._has_no_body = method == b"HEAD"
        # The received parts of the head; None once the head is complete.
        self._head: list[bytes] | None = []
        self._head_size = self._body_size = self._rest_size = 0
        self._refused = self._is_broken = False
        # The parser refers to this object; close() breaks the cycle, so that both are freed at
        # once.
        self._parser: Any = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,  # obs-fold, control characters
            lenient_version=True,  # HTTP/1.2
            lenient_chunked_length=True,  # Content-Length beside Transfer-Encoding, which wins
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )

    def deliverBody(self, protocol: IProtocol) -> None:
        """Deliver the stored part of the body at once."""
        if self.body:
            protocol.dataReceived(self.body)
        protocol.connectionLost(_DONE)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Do nothing: redirects are not followed, so there is no previous response."""

    # Methods that the connection calls

    def feed(self, data: bytes) -> None:
        """Parse received data.

        :raises NotHTTP: when the data is not an HTTP response.
        """
        if self._head is None:
            self._rest_size += len(data)
        else:
            self._head.append(data)
            self._head_size += len(data)
        if not self._is_broken:
            try:
                self._parser.feed_data(data)
            except (HttpParserError, HttpParserUpgrade):
                self._is_broken = True
                self.complete = False
                self.done = self._head is None
        if self._is_broken and self._head is not None:
            self._read_broken_head()
        if self._refused:
            raise NotHTTP
        if self._head is not None and self._head_size > MAX_HEAD:
            self.close()
            self.done = True
            if not self.code:
                raise NotHTTP("the headers of the response have no end")
        if self._rest_size > MAX_HEAD + MAX_BODY:
            self.done, self.complete = True, False

    def _read_broken_head(self) -> None:
        """Read a complete head that llhttp rejects, without llhttp."""
        head = b"".join(self._head or ())
        status_line = _find_status_line(head)
        if status_line is None or _END_OF_HEAD.search(head, status_line.end() - 1):
            self.close()
            self.done = True
            self._refused = not self.code

    def close(self) -> None:
        """Stop parsing; keep the status of an incomplete head.

        The status of a head with an ambiguous ``Content-Length`` is discarded.
        """
        self._parser = None
        if self._head is None:
            return
        head = b"".join(self._head)
        self._head = None
        lengths = {one.strip(b" \t") for line in _LENGTHS.findall(head) for one in line.split(b",")}
        is_framed = not lengths or (len(lengths) == 1 and lengths.pop().isdigit())
        self.code = (status_in(head) or 0) if is_framed else 0
        self._retry_after[:] = [one.strip(b" \t") for one in _RETRY_AFTER.findall(head)]

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a response; another one after the final one makes the connection unusable."""
        if self.done:
            self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Process a header; a trailer is ignored."""
        if self._head is None:
            return
        size = len(name)
        if size == 11 and name.lower() == b"retry-after":
            self._retry_after.append(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            # The request has no TE header, which would allow other codings (RFC 9110, section
            # 10.1.4).
            self._refused = self._refused or value.strip().lower() != b"chunked"

    def on_headers_complete(self) -> None:
        """End the head of an interim response, or of the final one."""
        if self.done:
            return
        parser = self._parser
        code = parser.get_status_code()
        if 100 <= code < 200 and code != 101:
            self._retry_after.clear()
            return
        # 101 is refused as well: the request did not offer to switch protocols.
        if not 200 <= code <= 599 or parser.get_http_version()[:2] != "1.":
            self._refused = True
        self.code = code
        self._head = None
        if self._has_no_body:
            self._complete()

    def on_body(self, data: bytes) -> None:
        """Process a part of the body."""
        if self.done:
            self.complete = False
            return
        if self._body_size < STORED_BODY:
            self.body += data[: STORED_BODY - self._body_size]
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            self.done = True

    def on_message_complete(self) -> None:
        """End an interim response, or the final one."""
        if self.code and not self.done:
            self._complete()

    def _complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        self.done = self.complete = True


def status_in(head: bytes) -> int | None:
    """Return the status of the first final response in a head, after interim (1xx) responses."""
    status_line = _find_status_line(head)
    return None if status_line is None else int(status_line[1])


def _find_status_line(head: bytes) -> re.Match[bytes] | None:
    at = 0
    while match := _STATUS_LINE.match(head, at):
        if not match[1].startswith(b"1"):
            return match
        end = head.find(b"\r\n\r\n", at)
        if end < 0:
            break
        at = end + 4
    return None
