"""Encoding of a callback as the bytes of an HTTP request, and its adapters for treq."""

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


# Adapters for treq


class RequestHeaders(Headers):
    """Headers of one request, already encoded as header lines.

    treq and Twisted would copy and validate them again, and add cookies and ``Accept-Encoding``.
    """

    def __init__(self, lines: bytes) -> None:
        self.lines = lines

    def copy(self) -> RequestHeaders:
        return self

    def hasHeader(self, name: str | bytes) -> bool:
        """Return ``True`` for any name, so that treq adds no header."""
        return True

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Ignore a header that treq adds."""


class NullCookieJar(IndexableCookieJar):
    """Cookie jar that stores and sends no cookies: tasks must not share them."""

    def add_cookie_header(self, request: Any) -> None:
        """Send no cookies."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Store no cookies."""

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class VerbatimURL(EncodedURL):
    """URL that is sent exactly as the client wrote it.

    treq would parse, normalise and encode the URL again for each call.
    """

    text: str

    def to_uri(self) -> VerbatimURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self.text


@lru_cache(maxsize=1024)
def verbatim_url(callback: str) -> VerbatimURL:
    """Return the URL of a callback as an object that treq accepts."""
    url = VerbatimURL()
    url.text = callback
    return url


@implementer(IBodyProducer)
class BytesProducer:
    """Producer of a request's content, which is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: the content is written in one piece."""

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
    """Return the origin, the authority and the request target of a URL.

    :raises ValueError: when it is not an ``http`` or ``https`` URL, or contains a character that is
        not allowed in a URL (RFC 3986).
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
    """Return the bytes of an HTTP/1.1 request.

    :param lines: the header lines.
    :raises ValueError: when the method is not a token (RFC 9110, section 5.6.2).
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
    """Return headers as header lines.

    :raises ValueError: when a name or a value contains a line break, which would inject a header.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if not text.count("\n") == text.count("\r") == len(headers):
        raise ValueError("a header contains the end of a line")
    return text.encode("utf-8")


def request_headers(claim: Claim, identifier: str) -> list[tuple[str, str]]:
    """Return the headers of a callback, in the order in which they are sent.

    :param identifier: the identifier of the task's definition: see :func:`idempotency_key`.
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
    """Return the media type of a payload whose task has no ``Content-Type``."""
    if payload.lstrip()[:1] in ("{", "["):
        try:
            json.loads(payload)
        except (ValueError, RecursionError):
            pass
        else:
            return "application/json"
    return "text/plain; charset=utf-8"


def idempotency_key(key: Key, put_at_ms: int) -> str:
    """Return the identifier of a definition for its endpoint, the same on every attempt.

    The identifier is the task's key, a dot, and the time when the definition was put. In the key,
    all characters but letters, digits, ``_``, ``-``, ``~`` and ``@`` are percent-encoded. The
    identifier is the value of ``webhook-id`` and, in quotes (RFC 8941, section 3.3.3), of
    ``Idempotency-Key``. A signature covers several fields joined by dots: a dot in the key would
    make the fields ambiguous.

    :param put_at_ms: milliseconds since 1970.
    """
    return f"{_encoded_key(key)}.{put_at_ms}"


def _encoded_key(key: Key) -> str:
    return quote(str(key), safe="@").replace(".", "%2E")


def parse_retry_after(value: str, now: float) -> int | None:
    """Return the time that a ``Retry-After`` header names (RFC 9110, section 10.2.3).

    :param now: when the response was received: seconds since 1970.
    :returns: seconds since 1970; ``None`` for a value that is neither a number of
        seconds nor an HTTP-date.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        # A number with more digits exceeds any accepted time.
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
