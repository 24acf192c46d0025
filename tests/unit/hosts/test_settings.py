from __future__ import annotations

from typing import Any

import pytest

from callme.errors import Invalid, InvalidValue
from callme.hosts.settings import INDEFINITELY, HostSettings, parse_host, parse_settings
from tests.helpers.tasks import NOON


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*", "*"),
        ("example.com:80", "example.com:80"),
        ("EXAMPLE.com:0443", "example.com:443"),
        ("[::1]:8080", "[::1]:8080"),
    ],
)
def test_host_of_a_path_is_that_of_tasks(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "example.com", "a:80/b", "a:b", "user@a:80", "**", "a:99999", "ü.example:80"]
)
def test_path_without_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_host(text)


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ({"max_concurrent": 3}, {"max_concurrent": 3}),
        ({"max_per_minute": None}, {"max_per_minute": None}),
        ({"paused": True}, {"paused_until": INDEFINITELY}),
        ({"paused": False}, {"paused_until": None}),
        ({"paused": None}, {"paused_until": None}),
        ({"paused": "+30m"}, {"paused_until": NOON + 1800}),
    ],
)
def test_settings_are_parsed(body: dict[str, Any], changes: dict[str, Any]) -> None:
    assert parse_settings(body, NOON) == changes


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ({"max_concurrent": 0, "max_per_minute": "9"}, ["/max_concurrent", "/max_per_minute"]),
        ({"max_concurrent": True}, ["/max_concurrent"]),
        ({"paused": "now"}, ["/paused"]),
        ({"paused": NOON - 60}, ["/paused"]),
        ({"pause": True}, ["/pause"]),
    ],
)
def test_wrong_settings_are_refused_by_name(body: dict[str, Any], pointers: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_settings(body, NOON)
    assert [error.pointer for error in refused.value.errors] == pointers


def test_pause_ends_by_itself() -> None:
    settings = HostSettings(host="*", paused_at=NOON, paused_until=NOON + 60)
    assert settings.to_dict(NOON + 59)["paused"] == "2027-01-15T12:01:00.000Z"
    assert settings.to_dict(NOON + 60)["paused"] is False
    assert HostSettings(host="*", paused_until=INDEFINITELY).to_dict(NOON)["paused"] is True
