"""What keeps treq from doing more than it is told: its habits turned off, through its own doors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from http.cookiejar import Cookie
from typing import Any

from hyperlink import EncodedURL
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@implementer(IAgent)
class PlainAgent:
    """Asks for bodies as they are, and takes them as they are.

    treq would ask for gzip, and would unpack whatever says that it is gzip,
    without a limit to what comes out.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        assert headers is not None
        headers.setRawHeaders(b"accept-encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_not_encoded)


def _not_encoded(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"content-encoding")
    return response


class OneRequestsHeaders(Headers):
    """The headers of one request, which nobody else needs to be kept from.

    treq and Twisted copy them on the way, and check each value again.
    """

    def copy(self) -> OneRequestsHeaders:
        return self


class NoCookies(IndexableCookieJar):
    """A jar that neither keeps nor gives: what one task is sent is no other task's business."""

    def add_cookie_header(self, request: Any) -> None:
        """Give nothing."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing."""

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class ExactURL(EncodedURL):
    """A URL that is sent just as the task has it.

    treq would parse, normalise and encode it again for each call.
    """

    exact: str

    def to_uri(self) -> ExactURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self.exact


_WITHOUT_PATH = re.compile(r"\A([A-Za-z]+://[^/?#]*)(?=[?#]|\Z)")


@lru_cache(maxsize=1024)
def exact_url(callback: str) -> ExactURL:
    """Return a callback as treq takes URLs."""
    url = ExactURL()
    # An empty path is written as / in a request (RFC 9112, section 3.2.1).
    url.exact = _WITHOUT_PATH.sub(r"\1/", callback)
    return url


@implementer(IBodyProducer)
class Bytes:
    """A request's body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing to pause: all was written at once."""

    def resumeProducing(self) -> None:
        """Nothing to resume."""

    def stopProducing(self) -> None:
        """Nothing to stop."""
