"""Trusted proxies: whose word on a client's address is believed."""

from __future__ import annotations

import pytest

from callme.errors import InvalidValue
from callme.security.proxies import TrustedProxies, parse_proxy_network

PROXIES = TrustedProxies(networks=[parse_proxy_network(n) for n in ("10.0.0.0/8", "::1", "unix")])


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        (None, "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.2.3.4", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7, unknown, 10.2.3.4", "10.2.3.4"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", ", ".join(["10.0.0.9"] * 10_000), "10.0.0.9"),
    ],
)
def test_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str | None, header: str, client: str
) -> None:
    assert PROXIES.client_of(peer, [], [header.encode()]) == client


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ('proto=https;For="[2001:db8::7]:4711";by=10.0.0.1', "2001:db8::7"),
        ("for=203.0.113.9, for=198.51.100.7;proto=http", "198.51.100.7"),
        ("for=_hidden", "10.0.0.1"),
        ("by=198.51.100.7", "10.0.0.1"),
    ],
)
def test_standard_header_names_the_client_too(header: str, client: str) -> None:
    assert PROXIES.client_of("10.0.0.1", [header.encode()], []) == client


def test_several_fields_are_one_list() -> None:
    assert PROXIES.client_of("10.0.0.1", [], [b"198.51.100.7", b"10.0.0.2"]) == "198.51.100.7"


def test_request_with_both_headers_names_the_proxy() -> None:
    assert PROXIES.client_of("10.0.0.1", [b"for=198.51.100.7"], [b"192.0.2.1"]) == "10.0.0.1"


def test_without_trusted_proxies_no_header_is_believed() -> None:
    assert TrustedProxies().client_of("127.0.0.1", [], [b"198.51.100.7"]) == "127.0.0.1"
    assert TrustedProxies().client_of(None, [b"for=198.51.100.7"], []) is None


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "tcp"])
def test_invalid_proxy_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a network such as"):
        parse_proxy_network(text)
