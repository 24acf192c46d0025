"""Proof that a callback comes from this callme: Standard Webhooks 1.0.0, symmetric signatures.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac

from attrs import field, frozen

from .tokens import iter_lines

SIGNATURE_HEADERS = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})
MAX_KEYS = 10
"""Keys that sign at once; more would make the header larger than some servers take."""
_PREFIX = "whsec_"
_LEAST, _MOST = 24, 64


@frozen
class SigningKeys:
    """The keys that sign a callback, each for itself: more than one while they are changed."""

    _secrets: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> SigningKeys:
        """Read keys, one a line: see :func:`.lines.iter_lines`.

        :raises ValueError: where a line holds no key, or no line does; it names the line,
            and not what stands there.
        """
        secrets: dict[bytes, None] = {}
        for number, entry in iter_lines(text):
            secrets[_secret(entry, number)] = None
        if not 1 <= len(secrets) <= MAX_KEYS:
            raise ValueError(f"there are {len(secrets)} keys in it: expected 1 to {MAX_KEYS}")
        return cls(tuple(secrets))

    def __len__(self) -> int:
        return len(self._secrets)

    def headers(self, identifier: str, started_at: float, payload: bytes) -> list[tuple[str, str]]:
        """Return the headers that prove where a callback comes from.

        :param identifier: the value of ``webhook-id``, the same on every attempt.
        :param started_at: when its request starts, seconds since 1970.
        :param payload: its body, empty where it has none.
        """
        timestamp = str(int(started_at))
        content = f"{identifier}.{timestamp}.".encode("ascii") + payload
        signatures = (hmac.digest(secret, content, "sha256") for secret in self._secrets)
        signed = (f"v1,{base64.b64encode(one).decode('ascii')}" for one in signatures)
        return [
            ("Webhook-Id", identifier),
            ("Webhook-Timestamp", timestamp),
            ("Webhook-Signature", " ".join(signed)),
        ]


def _secret(written: str, number: int) -> bytes:
    try:
        # Padding is often left off.
        text = written.removeprefix(_PREFIX).rstrip("=")
        secret = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        secret = b""
    if not written.startswith(_PREFIX) or not _LEAST <= len(secret) <= _MOST:
        raise ValueError(
            f"line {number} is no key: expected {_PREFIX} and {_LEAST} to {_MOST} bytes in base64"
        )
    return secret
