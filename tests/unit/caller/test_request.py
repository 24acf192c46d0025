from __future__ import annotations

from typing import Any

import pytest
from attrs import astuple
from hypothesis import given
from hypothesis import strategies as st

from callme import __version__
from callme.caller.request import (
    content_type,
    header_lines,
    parse_retry_after,
    parse_target,
    request_bytes,
    request_headers,
)
from callme.core.task import Claim
from callme.core.times import MAX_TIMESTAMP
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
    return dict(request_headers(claim, "task.7"))


def test_request_has_the_headers_of_every_callback() -> None:
    assert {
        "User-Agent": f"callme/{__version__}",
        "Accept-Encoding": "identity",
        "Idempotency-Key": '"task.7"',
        "Callme-Attempt": "3",
        "Callme-Trigger-At": str(NOON),
    } == headers()


@pytest.mark.parametrize(
    ("before", "expected"),
    [(None, None), (NOON, None), (NOON - 60, f"task@{NOON - 60}")],
)
def test_rescheduled_task_tells_its_key_before(before: int | None, expected: str | None) -> None:
    claim = Claim(
        task_id=1,
        number=1,
        definition=definition(),
        attempts_used=1,
        claimed_at_ms=NOON * 1000,
        host="sink.example:80",
        rescheduled_from=before,
    )
    assert dict(request_headers(claim, "task.7")).get("Callme-Rescheduled-From") == expected


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


def test_bytes_are_sent_as_octets_unless_the_task_names_a_type() -> None:
    assert headers(payload_base64="AP8BgA==")["Content-Type"] == "application/octet-stream"
    sent = headers(payload_base64="AP8BgA==", headers={"content-type": "image/png"})
    assert sent["content-type"] == "image/png"
    assert "Content-Type" not in sent


def test_user_agent_of_the_task_replaces_the_default() -> None:
    sent = headers(headers={"user-agent": "mine/1"})
    assert sent["user-agent"] == "mine/1"
    assert "User-Agent" not in sent


@pytest.mark.parametrize(
    ("uri", "origin", "authority", "path"),
    [
        (b"http://a", ("http", "a", 80), b"a", b"/"),
        (b"HTTP://A.b:80/x?y#z", ("http", "a.b", 80), b"A.b", b"/x?y"),
        (b"https://a_b--c.:444?q=/?", ("https", "a_b--c.", 444), b"a_b--c.:444", b"/?q=/?"),
        (b"http://[::1]:1//..//;%7e", ("http", "::1", 1), b"[::1]:1", b"//..//;%7e"),
    ],
)
def test_url_is_parsed(
    uri: bytes, origin: tuple[str, str, int], authority: bytes, path: bytes
) -> None:
    target = parse_target(uri)
    assert astuple(target.origin) == origin
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize(
    "uri", [b"", b"a", b"ftp://a/", b"http:///", b"http://a b/", b"http://a/ b", b"http://a/\r\nb"]
)
def test_invalid_url_is_rejected(uri: bytes) -> None:
    with pytest.raises(ValueError, match="URL"):
        parse_target(uri)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"QUERY", b"PROPFIND"])
def test_content_length_is_zero_without_payload(method: bytes) -> None:
    sent = request_bytes(method, parse_target(b"http://a/"), b"A: b\r\n", b"")
    assert sent == method + b" / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_content_length_is_absent_where_content_has_no_meaning(method: bytes) -> None:
    target = parse_target(b"http://a/")
    assert b"Length" not in request_bytes(method, target, b"", b"")
    assert request_bytes(method, target, b"", b"x").endswith(b"Content-Length: 1\r\n\r\nx")


@pytest.mark.parametrize("method", [b"", b"G T", b"G\r\nT", b"G:"])
def test_invalid_method_is_rejected(method: bytes) -> None:
    with pytest.raises(ValueError, match="method"):
        request_bytes(method, parse_target(b"http://a/"), b"", b"")


@pytest.mark.parametrize("header", [("A", "b\r\nC: d"), ("A\n", "b"), ("A", "b\r"), ("A\r\nB", "")])
def test_header_with_the_end_of_a_line_is_rejected(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        header_lines([("X", "y"), header])


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
