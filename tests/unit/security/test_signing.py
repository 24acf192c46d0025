"""Signatures by Standard Webhooks 1.0.0, compared with those of its reference library."""

from __future__ import annotations

import base64
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from callme.caller.request import idempotency_key
from callme.core.times import Key
from callme.security.signing import SigningKeys
from tests.helpers.credentials import webhook_secret
from tests.helpers.strategies import TASK_NAMES
from tests.helpers.tasks import NOON


@given(TASK_NAMES, st.text(), st.floats(NOON, NOON + 10))
def test_signature_equals_that_of_the_standard_webhooks_library(
    name: str, payload: str, started_at: float
) -> None:
    keys = SigningKeys.parse(f"{webhook_secret('a')}\n{webhook_secret('b')}\n")
    key = Key(name, NOON)
    headers = dict(keys.headers(idempotency_key(key, 17), started_at, payload.encode()))
    assert headers["Webhook-Id"] == idempotency_key(key, 17)
    assert headers["Webhook-Timestamp"] == str(int(started_at))
    when = datetime.fromtimestamp(int(started_at), tz=timezone.utc)
    assert headers["Webhook-Signature"].split(" ") == [
        Webhook(webhook_secret(letter)).sign(idempotency_key(key, 17), when, payload)
        for letter in "ab"
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", f"plain@{NOON}.17"),
        ("a.b", f"a%2Eb@{NOON}.17"),
        ("a%2Eb", f"a%252Eb@{NOON}.17"),
        (" é ", f"%20%C3%A9%20@{NOON}.17"),
        ("a_b-c~d", f"a_b-c~d@{NOON}.17"),
        ('q"\\', f"q%22%5C@{NOON}.17"),
    ],
)
def test_idempotency_key_is_the_key_and_the_time_of_the_put(name: str, expected: str) -> None:
    assert idempotency_key(Key(name, NOON), 17) == expected


@given(TASK_NAMES, TASK_NAMES, st.integers(0, 2**50), st.integers(0, 2**50))
def test_idempotency_keys_are_unique(
    one: str, other: str, put_at_ms: int, put_again_at_ms: int
) -> None:
    """An identifier contains a single dot, so that the signed content is unambiguous."""
    definitions = {(one, put_at_ms), (other, put_again_at_ms)}
    identifiers = {idempotency_key(Key(name, NOON), at_ms) for name, at_ms in definitions}
    assert len(definitions) == len(identifiers)
    for identifier in identifiers:
        assert all(33 <= ord(character) < 127 for character in identifier)
        assert identifier.count(".") == 1


def test_key_file_has_a_key_per_line() -> None:
    first, second = webhook_secret("a"), webhook_secret("b", 64)
    text = f"# the new one\n{first}\r\n\n  {second}  \n{first}\n"
    assert len(SigningKeys.parse(text)) == 2
    assert SigningKeys.parse(first.rstrip("=")) == SigningKeys.parse(first)
    assert len(SigningKeys()) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it contains 0 keys: expected 1 to 10"),
        ("# none\n\n", "it contains 0 keys"),
        ("\n".join(webhook_secret(letter) for letter in "abcdefghijk"), "it contains 11 keys"),
        (f"{webhook_secret('a')}\nhunter2hunter2hunter2hunter2hunter2", "line 2 is not a key"),
        (webhook_secret("hunter2", 3), "line 1 is not a key: expected whsec_ and 24 to 64 bytes"),
        (webhook_secret("hunter2", 10), "line 1 is not a key"),
        (webhook_secret("a")[6:], "line 1 is not a key"),
        ("whsec_hunter2!" + "a" * 40, "line 1 is not a key"),
        ("whsec_hunter2\xe9" + "a" * 40, "line 1 is not a key"),
        ("whsk_" + webhook_secret("a")[6:], "line 1 is not a key"),
    ],
)
def test_invalid_key_is_refused_and_not_repeated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        SigningKeys.parse(text)
    assert "hunter2" not in str(raised.value)


def test_repr_of_keys_contains_no_key() -> None:
    keys = SigningKeys.parse(webhook_secret("a"))
    assert "aaaa" not in repr(keys)
    assert base64.b64encode(b"aaa").decode() not in repr(keys)
