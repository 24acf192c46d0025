"""Error responses: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any

from attrs import field, frozen
from twisted.web.http import datetimeToString
from twisted.web.iweb import IRequest

from ..core.text.compact_json import encode_compact
from ..errors import FieldError, Invalid
from .refusals import Refusal, mark_refused

JSON_TYPE = b"application/json"
CALENDAR_TYPE = b"text/calendar"
NDJSON_TYPE = b"application/x-ndjson"
PROBLEM_TYPE = b"application/problem+json"
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Reason phrases of RFC 9110 that differ in Python before 3.13."""
NO_STORE = ("Cache-Control", "no-store")
"""Default ``Cache-Control`` header: without it, a cache could respond with an outdated state (RFC
9111, section 4.2.2)."""
FIXED_HEADERS = (
    # Twisted's default would reveal its version.
    b"Server: callme\r\n"
    # Browsers must not load a response as a script or an image of a web page.
    b"X-Content-Type-Options: nosniff\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\n"
)
"""Headers of every response, as they are sent."""
_NAMED_ERRORS = 3
"""Number of errors in an input that the sentence for people names."""
RETRY_LATER = {"Retry-After": "2"}
"""Header of a temporary problem: the client may repeat the request after 2 s."""


@frozen
class Problem(Exception):
    """Error response, which a handler raises.

    :ivar status: the HTTP status.
    :ivar detail: one sentence for a person.
    :ivar errors: all errors in the input.
    :ivar headers: additional headers of the response.
    :ivar extensions: additional members of the problem details (RFC 9457, section 3.2).
    :ivar refusal: the reason to count, if the request is refused before any other work.
    """

    status: int
    detail: str
    errors: Iterable[FieldError] = field(default=(), kw_only=True)
    headers: Mapping[str, str] = field(factory=dict, kw_only=True)
    extensions: Mapping[str, Any] = field(factory=dict, kw_only=True)
    refusal: Refusal | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, invalid: Invalid) -> Problem:
        """Return the problem that reports an invalid input."""
        details = (
            f"{e.pointer.lstrip('/')}: {e.detail}" if e.pointer else e.detail
            for e in invalid.errors[:_NAMED_ERRORS]
        )
        rest = len(invalid.errors) - _NAMED_ERRORS
        more = f"; and {rest} more error{'' if rest == 1 else 's'}" if rest > 0 else ""
        return cls(422, "; ".join(details) + more, errors=invalid.errors)

    @property
    def title(self) -> str:
        """The reason phrase of the status."""
        return reason_phrase(self.status)

    def to_dict(self) -> dict[str, Any]:
        """Return the problem details as a JSON object."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        errors = [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]
        if errors:
            members["errors"] = errors
        return {**members, **self.extensions}

    def encode(self, *, pretty: bool = False) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the response."""
        body = encode(self.to_dict(), pretty)
        headers = {
            "Content-Type": PROBLEM_TYPE.decode("ascii"),
            "Content-Length": str(len(body)),
            **self.headers,
        }
        return headers, body


def problem_response(request: IRequest, problem: Problem, *, pretty: bool = False) -> bytes:
    """Set the status and the headers of an error response; return its body."""
    headers, body = problem.encode(pretty=pretty)
    set_head(request, problem.status, headers)
    if problem.refusal is not None:
        mark_refused(request, problem.refusal)
    return body


def reason_phrase(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110, section 15)."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


@cache
def _reason(status: int) -> bytes:
    return reason_phrase(status).encode("ascii")


def set_head(request: IRequest, status: int, headers: Mapping[str, str]) -> None:
    """Set the status and the headers of a response; names and values must be ASCII."""
    request.setResponseCode(status, _reason(status))
    for name, value in headers.items():
        request.responseHeaders.setRawHeaders(name, [value])


def raw_response(problem: Problem, *, with_body: bool) -> bytes:
    """Return the bytes of a response to an incomplete request, with ``Connection: close``.

    :param with_body: false for the response to a HEAD request.
    """
    headers, body = problem.encode()
    lines = [f"HTTP/1.1 {problem.status} {problem.title}"]
    headers = dict([NO_STORE]) | headers | {"Connection": "close"}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, ""]).encode("ascii") + fixed_headers() + b"\r\n"
    return head + body if with_body else head


def fixed_headers() -> bytes:
    """Return the current header lines of every response, including ``Date``."""
    return _with_date(int(time.time()))


@lru_cache(maxsize=2)
def _with_date(now: int) -> bytes:
    # RFC 9110, section 6.6.1.
    return b"%bDate: %b\r\n" % (FIXED_HEADERS, datetimeToString(now))


def encode(members: object, pretty: bool = False) -> bytes:
    """Return JSON in UTF-8 that ends with a line feed, for terminals."""
    text = json.dumps(members, ensure_ascii=False, indent=2) if pretty else encode_compact(members)
    return text.encode("utf-8") + b"\n"
