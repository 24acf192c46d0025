"""Signatures that the client verifies, made by the daemon's own keys."""

from __future__ import annotations

import pytest

from callme.client import InvalidSignature, verify
from callme.security.signing import SigningKeys

KEY = "whsec_" + "A" * 32
OTHER = "whsec_" + "B" * 32
NOW = 1795514400.0
BODY = b'{"a":1}'


def signed(*keys: str, body: bytes = BODY, at: float = NOW) -> dict[str, str]:
    return dict(SigningKeys.parse("\n".join(keys)).headers("a@60.1", at, body))


def test_signature_of_the_daemon_is_accepted() -> None:
    assert verify(signed(KEY), BODY, KEY, now=NOW) == "a@60.1"


def test_any_of_several_keys_is_accepted() -> None:
    assert verify(signed(KEY, OTHER), BODY, [OTHER], now=NOW) == "a@60.1"
    assert verify(signed(KEY), BODY, [OTHER, KEY], now=NOW) == "a@60.1"


@pytest.mark.parametrize(
    ("changes", "body", "now", "expected"),
    [
        ({}, b"", NOW, "no key matches"),
        ({"Webhook-Id": "b@60.1"}, BODY, NOW, "no key matches"),
        ({"Webhook-Signature": "v1,é"}, BODY, NOW, "no key matches"),
        ({"Webhook-Signature": ""}, BODY, NOW, "webhook-signature: the header is missing"),
        ({"Webhook-Timestamp": "now"}, BODY, NOW, "not a number"),
        ({}, BODY, NOW + 301, "differs from the clock"),
        ({}, BODY, NOW - 301, "differs from the clock"),
    ],
)
def test_changed_call_is_refused(
    changes: dict[str, str], body: bytes, now: float, expected: str
) -> None:
    with pytest.raises(InvalidSignature, match=expected):
        verify(signed(KEY) | changes, body, KEY, now=now)


@pytest.mark.parametrize("keys", [OTHER, []])
def test_call_without_matching_key_is_refused(keys: str | list[str]) -> None:
    with pytest.raises(InvalidSignature):
        verify(signed(KEY), BODY, keys, now=NOW)


@pytest.mark.parametrize("key", ["", "A" * 32, "whsec_", "whsec_***"])
def test_text_that_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        verify(signed(KEY), BODY, [key], now=NOW)
