"""Signatures of received calls: Standard Webhooks 1.0.0, symmetric keys.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterable, Mapping

TOLERANCE_SECONDS = 300
"""The maximum difference between the time of a call and the clock of the receiver."""
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_PREFIX = "whsec_"


class InvalidSignature(Exception):
    """A call that callme did not sign with one of the keys, or that is too old."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    keys: str | Iterable[str],
    *,
    now: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> str:
    """Check that callme made a call; return its ``webhook-id``, the same on every attempt.

    :param headers: the headers of the request; the case of their names does not matter.
    :param body: the body of the request, as it was received.
    :param keys: one key or several, each ``whsec_`` and base64.
    :param now: the time, seconds since 1970.
    :raises InvalidSignature: if no key matches, or the time differs too much.
    :raises ValueError: if a key is not a key.
    """
    given = {name.lower(): value for name, value in headers.items()}
    for name in _HEADERS:
        if not given.get(name):
            raise InvalidSignature(f"{name}: the header is missing")
    timestamp = given["webhook-timestamp"]
    _check_time(timestamp, time.time() if now is None else now, tolerance_seconds)
    content = f"{given['webhook-id']}.{timestamp}.".encode() + body
    signatures = given["webhook-signature"].encode().split(b" ")
    wanted = [_signature(parse_key(key), content) for key in _listed(keys)]
    if not any(hmac.compare_digest(one, other) for one in wanted for other in signatures):
        raise InvalidSignature("webhook-signature: no key matches")
    return given["webhook-id"]


def parse_key(text: str) -> bytes:
    """Return the bytes of a signing key.

    :raises ValueError: if it is not ``whsec_`` and base64. The text does not repeat the key.
    """
    encoded = text.strip().removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key or not text.strip().startswith(_PREFIX):
        raise ValueError(f"the signing key is not a key: expected {_PREFIX} and base64")
    return key


def _check_time(timestamp: str, now: float, tolerance_seconds: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise InvalidSignature(f"webhook-timestamp: {timestamp!r} is not a number of seconds")
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise InvalidSignature(
            f"webhook-timestamp: {timestamp} differs from the clock by more than "
            f"{tolerance_seconds:g} s"
        )


def _listed(keys: str | Iterable[str]) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _signature(key: bytes, content: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac.digest(key, content, "sha256"))
