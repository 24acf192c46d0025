"""Settings of outgoing connections by host."""

from __future__ import annotations

import pytest

from callme.errors import InvalidValue
from callme.security.outgoing import (
    ForHost,
    Proxy,
    find_for_host,
    parse_client_certificate,
    parse_proxy,
)


def test_proxy_without_a_host_is_for_all() -> None:
    assert parse_proxy("http://proxy:3128") == ForHost(
        pattern="", value=Proxy(host="proxy", port=3128)
    )


def test_proxy_of_a_host_may_have_an_equals_sign_in_its_password() -> None:
    setting = parse_proxy("http://ada:x=y@proxy:3128")
    assert setting.pattern == ""
    assert parse_proxy("Shop.example=http://ada:x=y@proxy:3128").pattern == "shop.example"


def test_direct_is_no_proxy() -> None:
    assert parse_proxy(".example.com=direct") == ForHost(pattern=".example.com", value=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "https://proxy:3128",
        "http://proxy",
        "http://:3128",
        "http://proxy:0",
        "http://proxy:99999",
        "http://proxy:3128/path",
        "http://proxy:3128?x",
        "http://pröxy:3128",
        "direct",
        "=direct",
        "a b=direct",
        "host=",
        "http://[::1:3128",
    ],
)
def test_other_text_is_no_proxy(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected"):
        parse_proxy(text)


@pytest.mark.parametrize("text", ["", "client.pem", "host=", "=client.pem", "a b=c", "h=\0"])
def test_client_certificate_needs_a_host_and_a_path(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected"):
        parse_client_certificate(text)


def test_longest_pattern_decides() -> None:
    settings = [
        ForHost(pattern="", value="all"),
        ForHost(pattern=".example.com", value="domain"),
        ForHost(pattern="a.example.com", value="host"),
        ForHost(pattern="::1", value="address"),
    ]
    expected = {
        "a.example.com": "host",
        "A.Example.COM.": "host",
        "b.example.com": "domain",
        "x.a.example.com": "domain",
        "example.com": "all",
        "evil-example.com": "all",
        "::1": "address",
    }
    assert {host: find_for_host(settings, host) for host in expected} == expected


def test_host_without_a_setting_has_no_value() -> None:
    assert find_for_host([ForHost(pattern="a", value=1)], "b") is None
