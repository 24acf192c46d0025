"""Paths of the web page, redirects to them, and the base path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.template import Tag, flattenString, tags

from callme.api.openapi.operations import document
from callme.errors import InvalidValue
from callme.server.paths import (
    MAX_BASE_PATH,
    OWN_SEGMENTS,
    BasePath,
    is_page,
    is_public,
    parse_base_path,
    safe_redirect_target,
)
from callme.webui.routes import WebUi
from tests.helpers.world import World

FORGED = ('<a href="/x">', ' href="/', '"><a href="/', "' action=\"/")
"""Texts that look like links."""
BELOW = BasePath("/a/call-me.v2")


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


@pytest.mark.parametrize("text", ["/callme", "/callme/", "/a/b.c/_~-", "/" + "x" * 255])
def test_base_path_has_no_slash_at_its_end(text: str) -> None:
    assert parse_base_path(text) == text.removesuffix("/")


@pytest.mark.parametrize("text", ["", "/"])
def test_root_is_no_base_path(text: str) -> None:
    assert parse_base_path(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("callme", "//x", "/a//b", "/.", "/a/..", "/.well-known", "/a b", "/a%20b", "/\u00e9"),
        *("/a?b", "/a#b", "/a\n", '/"', "/<", "https://x/callme", "/" + "x" * MAX_BASE_PATH),
    ],
)
def test_base_path_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a path such as /callme"):
        parse_base_path(text)


@pytest.mark.parametrize("segment", sorted(OWN_SEGMENTS))
def test_base_path_that_is_a_path_of_callme_is_refused(segment: str) -> None:
    with pytest.raises(InvalidValue, match=f"^/{segment} is a path of callme itself"):
        parse_base_path(f"/{segment}/x")
    assert parse_base_path(f"/{segment}s")


def test_first_segments_of_all_paths_are_known() -> None:
    rules = [rule.rule for rule in WebUi.app.url_map.iter_rules()]
    assert {path.split("/")[1] for path in [*document()["paths"], *rules]} == OWN_SEGMENTS | {""}


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("/a/call-me.v2", "/"),
        ("/a/call-me.v2/", "/"),
        ("/a/call-me.v2?pretty", "/?pretty"),
        ("/a/call-me.v2/status/?x=/a/call-me.v2/", "/status/?x=/a/call-me.v2/"),
        ("/a/call-me.v2/a/call-me.v2/", "/a/call-me.v2/"),
        ("http://h:1/a/call-me.v2/x", "http://h:1/x"),
        ("HTTPS://h/a/call-me.v2", "HTTPS://h/"),
    ],
)
def test_base_path_is_removed_from_a_request(target: str, rest: str) -> None:
    assert BELOW.remove(b"GET %b HTTP/1.1" % target.encode()) == b"GET %b HTTP/1.1" % rest.encode()


@pytest.mark.parametrize(
    "line",
    [
        *("GET / HTTP/1.1", "GET /status/ HTTP/1.1", "GET /a HTTP/1.1", "OPTIONS * HTTP/1.1"),
        *("GET /a/call-me.v2x HTTP/1.1", "GET /a/call-meXv2/ HTTP/1.1", "", "x", "GET "),
        *("GET /b/a/call-me.v2/ HTTP/1.1", "GET x/a/call-me.v2/ HTTP/1.1"),
        "GET http://h?/a/call-me.v2/ HTTP/1.1",
    ],
)
def test_request_without_the_base_path_is_not_changed(line: str) -> None:
    assert BELOW.remove(line.encode()) == line.encode()
    assert BasePath("").remove(line.encode()) == line.encode()


def markup(*content: Tag | str) -> bytes:
    """Return tags as a page has them."""
    flattening: Deferred[bytes] = flattenString(None, tags.div(*content))
    return World.result(flattening)


def test_base_path_precedes_each_path_of_a_page() -> None:
    page = [
        tags.a("x", href="/page/find?name=%2F&x=/"),
        tags.form(tags.button(formaction="/page/y"), action="/page/x", method="post"),
        tags.img(alt="/", src="/page/static/x"),
    ]
    expected = re.sub(rb'(href|action|src)="/', rb'\1="/callme/', markup(*page))
    assert expected.count(b"/callme/") == 4
    assert BasePath("/callme").add_to_page(markup(*page)) == expected


@given(st.sampled_from(FORGED), st.text(st.sampled_from("<>\"'= /ahref\n&;")))
def test_no_text_of_a_page_is_taken_for_a_link(known: str, text: str) -> None:
    page = markup(text + known, tags.a(known + text, title=known + text, href="#x"), tags.p(text))
    assert BELOW.add_to_page(page) == page
