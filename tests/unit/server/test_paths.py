"""Paths of the web page, and redirects to them."""

from __future__ import annotations

import pytest

from callme.server.paths import is_page, is_public, safe_redirect_target


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/page/find?name=x", "/page/find?name=x"),
        ("/?hours=1", "/?hours=1"),
        ("/page/task/a%20b@0", "/page/task/a%20b@0"),
        ("/page/find#x", "/page/find"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/page/\\..", "/"),
        ("https://evil.example/page/", "/"),
        ("/status/", "/"),
        ("/page/login", "/"),
        ("/page/static/x", "/"),
        ("/page/a\r\nSet-Cookie: x", "/"),
        ("/page/\u00e9", "/"),
        ("", "/"),
    ],
)
def test_login_redirects_to_local_pages_only(path: str, back: str) -> None:
    assert safe_redirect_target(path) == back


def test_paths_of_pages_are_recognized() -> None:
    assert is_page(b"/")
    assert is_page(b"/page/find")
    assert not any(map(is_page, (b"//", b"/page", b"/pag%65/find", b"/status/page/x", b"", b"*")))
    assert is_public(b"/page/login")
    assert not is_public(b"/page/login/x")
    assert not is_public(b"/page/find")
