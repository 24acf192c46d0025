from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.caller.request import content_type, idempotency_key, parse_retry_after, request_headers
from callme.core.task import Claim
from callme.core.times import MAX_TIMESTAMP, Key
from tests.helpers.strategies import TASK_NAMES
from tests.helpers.tasks import NOON, definition


def headers(**more: Any) -> dict[str, str]:
    claim = Claim(
        task_id=1,
        number=3,
        definition=definition(**more),
        attempts_used=2,
        claimed_at_ms=NOON * 1000,
        host="sink.example:80",
    )
    return dict(request_headers(claim, "callme/1"))


def test_request_has_the_headers_of_every_callback() -> None:
    assert {
        "User-Agent": "callme/1",
        "Accept-Encoding": "identity",
        "Idempotency-Key": f'"task@{NOON}"',
        "Callme-Attempt": "3",
        "Callme-Trigger-At": str(NOON),
    } == headers()


def test_task_headers_come_first_and_unchanged() -> None:
    sent = headers(headers={"x-Mixed": "A b", "content-type": "text/csv"}, payload="{}")
    assert list(sent)[:3] == ["x-Mixed", "content-type", "User-Agent"]
    assert "Content-Type" not in sent


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ('{"a": 1}', "application/json"),
        (" [1]\n", "application/json"),
        ("{broken", "text/plain; charset=utf-8"),
        ("hello", "text/plain; charset=utf-8"),
        ("42", "text/plain; charset=utf-8"),
        ("[" * 100_000, "text/plain; charset=utf-8"),
    ],
)
def test_content_type_is_guessed_from_the_payload(payload: str, kind: str) -> None:
    assert kind == content_type(payload)
    assert kind == headers(payload=payload)["Content-Type"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name", f'"plain name@{NOON}"'),
        ('q"\\', f'"q%22%5C@{NOON}"'),
        ("é%", f'"%C3%A9%25@{NOON}"'),
    ],
)
def test_idempotency_key_is_printable_ascii(name: str, expected: str) -> None:
    assert expected == idempotency_key(Key(name, NOON))


@given(TASK_NAMES, TASK_NAMES)
def test_idempotency_keys_are_unique(one: str, other: str) -> None:
    keys = {idempotency_key(Key(one, NOON)), idempotency_key(Key(other, NOON))}
    assert len({one, other}) == len(keys)
    assert all(32 <= ord(character) < 127 for key in keys for character in key)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", NOON + 1),
        (" 120 ", NOON + 121),
        ("9" * 5000, MAX_TIMESTAMP),
        ("Fri, 15 Jan 2027 12:05:00 GMT", NOON + 300),
        ("Friday, 15-Jan-27 12:05:00 GMT", NOON + 300),
        ("Fri Jan 15 12:05:00 2027", NOON + 300),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("Fri, 99 Jan 2027 12:05:00 GMT", None),
        ("Fri, 15 Jan 99999999999999999999 12:05:00 GMT", None),
    ],
)
def test_retry_after_is_parsed_to_seconds(value: str, expected: int | None) -> None:
    assert expected == parse_retry_after(value, NOON + 0.5)


@given(st.text())
def test_any_retry_after_is_parsed_or_ignored(value: str) -> None:
    parsed = parse_retry_after(value, NOON)
    assert parsed is None or isinstance(parsed, int)
