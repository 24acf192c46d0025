"""The request that a callback is, and how its answer's ``Retry-After`` reads."""

from __future__ import annotations

import json
import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from .task import Claim
from .trigger import LAST_SECOND, Key

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
        return LAST_SECOND if len(value) > 12 else min(LAST_SECOND, -int(-now // 1) + int(value))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return int(date.timestamp())
