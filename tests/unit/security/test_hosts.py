"""Local host names and loopback addresses."""

from __future__ import annotations

import pytest

from callme.errors import InvalidValue
from callme.security.hosts import is_local, is_loopback, parse_origin


@pytest.mark.parametrize(
    ("authority", "local"),
    [
        (b"localhost", True),
        (b"localhost:6777", True),
        (b"LOCALHOST:", True),
        (b"localhost.", True),
        (b"callme", True),
        (b"callme:6777", True),
        (b"my_host-1", True),
        (b"127.0.0.1:6777", True),
        (b"127.8.9.10", True),
        (b"[::1]:6777", True),
        (b"[::1]", True),
        (b"[::ffff:127.0.0.1]", True),
        # Browsers send these as 127.0.0.1; anything else with a dot could be a host name.
        (b"2130706433", True),
        (b"127.1", False),
        (b"0x7f.1", False),
        (b"localhost..", False),
        (b"evil.example", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.nip.io:6777", False),
        (b"0.0.0.0", False),
        (b"192.0.2.1", False),
        (b"[2001:db8::1]:80", False),
        (b"[::ffff:192.0.2.1]", False),
        (b"[::]", False),
        (b"", None),
        (b":6777", None),
        (b"[::1", None),
        (b"[::1]x", None),
        (b"[:::]", None),
        (b"[1.2.3.4]", None),
        (b"::1", None),
        (b"a:b", None),
        (b"a b", None),
        (b"user@localhost", None),
        (b"localhost/", None),
        (b"evil%2Eexample", None),
        (b"localhost\n", None),
        (b"\xc3\xa9", None),
    ],
)
def test_local_hosts_are_recognized(authority: bytes, local: bool | None) -> None:
    assert is_local(authority) is local


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback_addresses_are_recognized(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://callme.example.com", b"https://callme.example.com"),
        ("HTTPS://Callme.example.com:443/", b"https://callme.example.com"),
        ("http://callme:80", b"http://callme"),
        ("http://callme:443", b"http://callme:443"),
        ("https://[2001:DB8::1]:8443", b"https://[2001:db8::1]:8443"),
        ("https://xn--bcher-kva.example", b"https://xn--bcher-kva.example"),
    ],
)
def test_origin_is_normalized_as_browsers_do(text: str, origin: bytes) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        *("", "callme.example.com", "ftp://a", "https://", "https://a/b", "https://a@b", "null"),
        *("https://b\u00fccher.example", "https://a b", "\u00e9://a", "https://a:x", "https://a?b"),
    ],
)
def test_other_text_is_not_an_origin(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected an origin such as https://"):
        parse_origin(text)
