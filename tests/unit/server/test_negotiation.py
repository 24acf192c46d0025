"""Content negotiation by Accept headers."""

from __future__ import annotations

import time

import pytest

from callme.server.negotiation import (
    MAX_ACCEPT,
    wants_calendar,
    wants_html,
    wants_openmetrics,
)

PROMETHEUS = (
    b"application/openmetrics-text;version=1.0.0;q=0.5,"
    b"application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS, True),
        (b"application/openmetrics-text", True),
        (b"Application/OpenMetrics-Text; version=zzz", True),
        (b"application/openmetrics-text, text/plain", True),
        (b"text/plain;q=1, application/openmetrics-text;q=0.1", False),
        (b"text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9", False),
        (b"application/openmetrics-text;q=0", False),
        (b"application/openmetrics-text;q=0.000;version=1.0.0", False),
        (b"*/*", False),
        (b"application/*", False),
        (b"", False),
        (None, False),
    ],
)
def test_openmetrics_is_wanted_when_named_and_not_less_than_text(
    accept: bytes | None, wanted: bool
) -> None:
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"text/html,application/xhtml+xml,*/*;q=0.8", True),
        (b'text/html;level="1;q=0";q=0.5', True),
        (b"text/html;q=0, text/html;q=0.1", True),
        (b"text/html;q=0", False),
        (b"text/html;q=2", False),
        (b"text/html;q=nan", False),
        (b",,;;q=", False),
        (b"text/htmlx", False),
    ],
)
def test_html_is_wanted_when_named_with_a_weight(accept: bytes, wanted: bool) -> None:
    assert wants_html(accept) is wanted


def test_calendar_of_same_weight_as_json_is_not_preferred() -> None:
    assert wants_calendar(b"text/calendar, application/json;q=0.9")
    assert not wants_calendar(b"text/calendar;q=0.9, application/json;q=0.9")
    assert not wants_calendar(b"text/calendar;q=0.1, application/json")


@pytest.mark.parametrize("filler", [b"a/b;q=0.1,", b";", b'x="', b"\\", b"\xff", b","])
def test_header_of_any_content_is_parsed_in_little_time(filler: bytes) -> None:
    longest = (filler * MAX_ACCEPT)[:MAX_ACCEPT]
    started = time.thread_time()
    assert not wants_html(longest)
    assert time.thread_time() - started < 0.5


def test_header_longer_than_the_limit_is_ignored() -> None:
    header = b"text/html".ljust(MAX_ACCEPT)
    assert wants_html(header)
    assert not wants_html(header + b" ")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", True),
        ("application/json, TEXT/HTML;level=1;q=0.5", True),
        ("text/html;q=0", False),
        ("text/html ; q=0.000", False),
        ("*/*", False),
        ("", False),
        ("\xff", False),
        (None, False),
    ],
)
def test_accept_header_decides_for_html(accept: str | None, wanted: bool) -> None:
    assert wants_html(None if accept is None else accept.encode("latin-1")) is wanted
