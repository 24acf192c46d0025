"""The request that a callback is, as bytes, and how treq is given it."""

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

from attrs import frozen
from hyperlink import EncodedURL
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from .. import __version__
from ..core.task import Claim
from ..core.times import MAX_TIMESTAMP, Key
from .pool import Origin

USER_AGENT = f"callme/{__version__}"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WITHOUT_CONTENT = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})
"""Methods whose content, if any, has no meaning (RFC 9110, section 9.3)."""
_URI = re.compile(
    rb"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[!$-.0-9;<=>@-Z\\^-~]+)(?::(?P<port>[0-9]{1,5}))?"
    rb"(?P<path>/[!-\"$->@-~]*)?(?P<query>\?[!-\"$-~]*)?(?:#[!-~]*)?",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"[0-9]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


# What treq is given


class RequestHeaders(Headers):
    """The headers of one request, as the lines that they are on the wire.

    treq and Twisted would copy them, check them again, add cookies, and ask for a content coding.
    """

    def __init__(self, lines: bytes) -> None:
        self.lines = lines

    def copy(self) -> RequestHeaders:
        return self

    def hasHeader(self, name: str | bytes) -> bool:
        """Claim to have any header, so that none is added."""
        return True

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Add nothing."""


class NullCookieJar(IndexableCookieJar):
    """A jar that neither keeps nor gives: a cookie of one task is not for another one."""

    def add_cookie_header(self, request: Any) -> None:
        """Give nothing."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing."""

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class VerbatimURL(EncodedURL):
    """A URL that is sent just as the task has it.

    treq would parse, normalise and encode it again for each call.
    """

    text: str

    def to_uri(self) -> VerbatimURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self.text


@lru_cache(maxsize=1024)
def verbatim_url(callback: str) -> VerbatimURL:
    """Return a callback as treq takes URLs."""
    url = VerbatimURL()
    url.text = callback
    return url


@implementer(IBodyProducer)
class BytesProducer:
    """The content of a request, which is in memory already."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written at once."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Do nothing."""


# What the agent sends


@frozen(kw_only=True)
class Target:
    """A parsed URL.

    :ivar authority: the value of ``Host``.
    :ivar path: the request target in origin form (RFC 9112, section 3.2.1).
    """

    origin: Origin
    authority: bytes
    path: bytes


@lru_cache(maxsize=1024)
def parse_target(uri: bytes) -> Target:
    """Return what a request needs to know of its URL.

    :raises ValueError: when it is no http or https URL, or has a character that none has.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError("the URL cannot be called")
    scheme = match["scheme"].lower().decode("ascii")
    host = match["host"]
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    authority = host if port == _DEFAULT_PORTS[scheme] else b"%b:%d" % (host, port)
    path = (match["path"] or b"/") + (match["query"] or b"")
    name = host.strip(b"[]").lower().decode("ascii")
    origin = Origin(scheme=scheme, host=name, port=port)
    return Target(origin=origin, authority=authority, path=path)


def request_bytes(method: bytes, target: Target, lines: bytes, payload: bytes) -> bytes:
    """Return a request as it is sent.

    :raises ValueError: when its method is none.
    """
    if not _TOKEN.fullmatch(method):
        raise ValueError("the method cannot be sent")
    if payload or method not in _WITHOUT_CONTENT:
        lines = b"%bContent-Length: %d\r\n" % (lines, len(payload))
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n%b" % (
        method,
        target.path,
        target.authority,
        lines,
        payload,
    )


def header_lines(headers: list[tuple[str, str]]) -> bytes:
    """Return headers as they are sent.

    :raises ValueError: when they would be more headers than they are.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if not text.count("\n") == text.count("\r") == len(headers):
        raise ValueError("a header contains the end of a line")
    return text.encode("utf-8")


def request_headers(claim: Claim, identifier: str) -> list[tuple[str, str]]:
    """Return the headers of a callback, in the order in which they are sent.

    :param identifier: identifies the task's definition: see :func:`idempotency_key`.
    """
    definition = claim.definition
    headers = list(definition.headers.items())
    names = {name.lower() for name in definition.headers}
    if definition.has_payload and "content-type" not in names:
        octets = bool(definition.payload_base64)
        kind = "application/octet-stream" if octets else content_type(definition.payload)
        headers.append(("Content-Type", kind))
    if "user-agent" not in names:
        headers.append(("User-Agent", USER_AGENT))
    headers += [
        ("Accept-Encoding", "identity"),
        ("Idempotency-Key", f'"{identifier}"'),
        ("Callme-Attempt", str(claim.number)),
        ("Callme-Trigger-At", str(definition.trigger_at)),
    ]
    if claim.rescheduled_from not in (None, definition.trigger_at):
        before = Key(definition.task_name, claim.rescheduled_from)
        headers.append(("Callme-Rescheduled-From", _encoded_key(before)))
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


def idempotency_key(key: Key, put_at_ms: int) -> str:
    """Return what identifies a definition to its endpoint, the same on every attempt.

    It is the task's key, percent-encoded but for letters, digits, ``_``, ``-``, ``~`` and
    ``@``, a dot, and the time when the definition was put. It is the value of ``webhook-id``,
    and of ``Idempotency-Key``, which has it in quotes (RFC 8941, section 3.3.3). What is signed
    is joined with dots: so a name has none, or the identifier of one task could be read as that
    of another task with the time that follows.

    :param put_at_ms: milliseconds since 1970.
    """
    return f"{_encoded_key(key)}.{put_at_ms}"


def _encoded_key(key: Key) -> str:
    return quote(str(key), safe="@").replace(".", "%2E")


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
