"""Signatures of callbacks, by Standard Webhooks 1.0.0 with symmetric keys.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac

from attrs import field, frozen

from .secret_file import parse_lines

SIGNATURE_HEADERS = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})
MAX_KEYS = 10
"""Maximum number of keys: some servers reject the larger header of more keys."""
_PREFIX = "whsec_"
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 24, 64


@frozen
class SigningKeys:
    """Keys that sign a callback; each adds a signature, so that keys can be rotated."""

    _keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> SigningKeys:
        """Return the keys of a key file, one per line: see :func:`.secret_file.iter_lines`.

        :raises ValueError: when a line is not a key, or when there are too few or too many
            keys. The text names the number of the line, and does not quote the line.
        """
        keys = dict.fromkeys(parse_lines(text, _parse_key))
        if not 1 <= len(keys) <= MAX_KEYS:
            raise ValueError(f"it contains {len(keys)} keys: expected 1 to {MAX_KEYS}")
        return cls(tuple(keys))

    def __len__(self) -> int:
        return len(self._keys)

    def headers(self, identifier: str, started_at: float, payload: bytes) -> list[tuple[str, str]]:
        """Return the signature headers of a callback.

        :param identifier: the value of ``webhook-id``, the same on every attempt.
        :param started_at: the start of the request: seconds since 1970.
        :param payload: the body of the request; empty without a body.
        """
        timestamp = str(int(started_at))
        content = f"{identifier}.{timestamp}.".encode("ascii") + payload
        digests = (hmac.digest(key, content, "sha256") for key in self._keys)
        signatures = (f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)
        return [
            ("Webhook-Id", identifier),
            ("Webhook-Timestamp", timestamp),
            ("Webhook-Signature", " ".join(signatures)),
        ]


def _parse_key(entry: str) -> bytes:
    try:
        # The base64 padding is optional, because many tools omit it.
        text = entry.removeprefix(_PREFIX).rstrip("=")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not entry.startswith(_PREFIX) or not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise ValueError(
            f"is not a key: expected {_PREFIX} and {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes "
            "in base64"
        )
    return key
