"""The request that a callback is, and how its answer's ``Retry-After`` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.cookiejar import Cookie
from typing import Any
from urllib.parse import quote

from hyperlink import EncodedURL
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..core.task import Claim
from ..core.times import MAX_TIMESTAMP, Key


def webhook_id(key: Key) -> str:
    """Return what identifies a task to whom it calls, the same on every attempt.

    That is its key, percent-encoded but for letters, digits, ``_``, ``-``, ``~`` and ``@``: what
    is signed is joined with dots, so it must have none, or one task's id could be read as
    another's with the time that follows; nor may it have spaces, which are lost at a header's ends.
    """
    return quote(str(key), safe="@").replace(".", "%2E")


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


_PRINTABLE = "".join(chr(code) for code in range(32, 127) if chr(code) not in '%"\\')
_SECONDS = re.compile(r"[0-9]+")


def request_headers(claim: Claim, user_agent: str) -> list[tuple[str, str]]:
    """Return the headers of a callback, in the order they are sent."""
    definition = claim.definition
    headers = list(definition.headers.items())
    if definition.payload and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", content_type(definition.payload)))
    headers += [
        ("User-Agent", user_agent),
        ("Accept-Encoding", "identity"),
        ("Idempotency-Key", idempotency_key(definition.key)),
        ("Callme-Attempt", str(claim.number)),
        ("Callme-Trigger-At", str(definition.trigger_at)),
    ]
    return headers


def content_type(payload: str) -> str:
    """Return what a payload is sent as when its task names no ``Content-Type``."""
    if payload.lstrip()[:1] in ("{", "["):
        try:
            json.loads(payload)
        except (ValueError, RecursionError):
            pass
        else:
            return "application/json"
    return "text/plain; charset=utf-8"


def idempotency_key(key: Key) -> str:
    r"""Return the ``Idempotency-Key`` of a task: its key as a string of RFC 8941, section 3.3.3.

    Such a string is printable ASCII. Whatever is not, and ``%``, ``"`` and ``\``,
    is percent-encoded, so that two keys never become the same.
    """
    return f'"{quote(str(key), safe=_PRINTABLE)}"'


def parse_retry_after(value: str, now: float) -> int | None:
    """Return the second that a ``Retry-After`` names (RFC 9110, section 10.2.3).

    :param now: when the answer was received, seconds since 1970.
    :return: seconds since 1970; ``None`` for a value that is neither a number of
        seconds nor an HTTP-date.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        # More digits than any time needs are as good as the end of time.
        return (
            MAX_TIMESTAMP if len(value) > 12 else min(MAX_TIMESTAMP, -int(-now // 1) + int(value))
        )
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return int(date.timestamp())
