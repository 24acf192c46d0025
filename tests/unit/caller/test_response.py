"""Responses, right and odd, however they are cut into pieces on their way."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from callme.caller.response import MAX_BODY, MAX_HEAD, STORED_BODY, NotHTTP, Response, status_in

OK = b"HTTP/1.1 200 OK\r\n"


def parse(*parts: bytes, method: bytes = b"GET") -> Response:
    """Return a response of which these parts have arrived."""
    response = Response(method)
    for part in parts:
        if response.done:
            break
        response.feed(part)
    return response


def summary(response: Response) -> tuple[int, bytes, bool, bool]:
    done, reusable = response.done, response.complete and response.reusable
    response.close()
    return response.code, response.body, done, reusable


# Each with its status, its body, whether its end has arrived, and whether its connection may
# serve again.
RESPONSES: list[tuple[bytes, tuple[int, bytes, bool, bool]]] = [
    (OK + b"Content-Length: 2\r\n\r\nok", (200, b"ok", True, True)),
    (OK + b"Content-Length: 2\r\n\r\nok\r\n", (200, b"ok", True, True)),
    (OK + b"content-length:2\r\n\r\nok", (200, b"ok", True, True)),
    (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, b"", True, True)),
    (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", (200, b"", True, True)),
    (b"HTTP/1.1 599 \xe9\r\nX: \xe9\x01\r\nContent-Length: 0\r\n\r\n", (599, b"", True, True)),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", (200, b"ok", True, True)),
    (b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True, True)),
    (OK + b"A: b\r\n c\r\n\td\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True, True)),
    (OK + b"X: " + b"y" * 50_000 + b"\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True, True)),
    # How it ends (RFC 9112, section 6.3)
    (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: u\r\n\r\n",
        (200, b"ok", True, True),
    ),
    (OK + b"Transfer-Encoding: Chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n", (200, b"ok", True, True)),
    (
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        (200, b"ok", True, True),
    ),
    (
        OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        (200, b"ok", True, True),
    ),
    (OK + b"\r\nok", (200, b"ok", False, False)),
    (OK + b"Content-Length: 9\r\n\r\nok", (200, b"ok", False, False)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True, True)),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", (204, b"", True, True)),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"", True, True)),
    # Whether its connection ends (RFC 9112, section 9.3; RFC 9110, section 7.6.1)
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok", True, False)),
    (
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok",
        (200, b"ok", True, True),
    ),
    (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", (200, b"ok", True, False)),
    (OK + b"Content-Length: 2\r\nConnection: Close\r\n\r\nok", (200, b"ok", True, False)),
    (OK + b"Content-Length: 2\r\nConnection: TE, close\r\n\r\nok", (200, b"ok", True, False)),
    # Interim responses
    (
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
        (200, b"ok", True, True),
    ),
    (
        b"HTTP/1.1 103 Hints\r\nRetry-After: 9\r\nX: y\r\n\r\n" * 3
        + OK
        + b"Content-Length: 0\r\n\r\n",
        (200, b"", True, True),
    ),
    (
        b"HTTP/1.1 199 Last\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
        (200, b"ok", True, True),
    ),
    # Heads that are not complete, or not quite right: the status line counts
    (OK + b"Content-Le", (200, b"", False, False)),
    (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", (200, b"", True, False)),
    (OK + b"Content-Length: 2, 2\r\n\r\nok", (200, b"", True, False)),
    (OK + b"no colon\r\nContent-Length: 2\r\n\r\nok", (200, b"", True, False)),
    (OK + b" folded\r\nContent-Length: 2\r\n\r\nok", (200, b"", True, False)),
    (b"HTTP/1.1 200 O", (0, b"", False, False)),
    (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", (0, b"", False, False)),
]


@pytest.mark.parametrize(("data", "expected"), RESPONSES)
def test_response_is_parsed(data: bytes, expected: Any) -> None:
    assert summary(parse(data)) == expected
    assert (
        summary(parse(*(data[at : at + 1] for at in range(min(len(data), 3000))), data[3000:]))
        == expected
    )


@given(st.data())
def test_response_in_pieces_is_parsed_alike(data: st.DataObject) -> None:
    whole, expected = data.draw(st.sampled_from(RESPONSES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert summary(parse(*parts)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 banana OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n" + OK + b"\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nok",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: banana\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        OK + b"Content-Length: 2, 3\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000,
    ],
)
def test_malformed_response_is_rejected(data: bytes) -> None:
    with pytest.raises(NotHTTP):
        parse(data)


@pytest.mark.parametrize(
    "stray",
    [b"x", OK, OK + b"Content-Length: 0\r\n\r\n", b"\0" * 9, b"HTTP/1.1 100 Continue\r\n\r\n"],
)
@pytest.mark.parametrize(
    ("head", "method"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", b"GET"),
        (OK + b"Content-Length: 2\r\n\r\n", b"HEAD"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"GET"),
        (OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n", b"GET"),
    ],
)
def test_data_after_a_response_makes_it_incomplete(
    head: bytes, method: bytes, stray: bytes
) -> None:
    response = parse(head + stray, method=method)
    assert response.done
    assert not response.complete
    assert response.code in (200, 204)


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_response_to_head_ends_with_its_head(framing: bytes) -> None:
    response = parse(OK + framing + b"\r\n", method=b"HEAD")
    assert (response.done, response.complete, response.body) == (True, True, b"")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Retry-After: 120\r\n", [b"120"]),
        (b"X: " + b"y" * 17_000 + b"\r\nretry-after: 240\r\n", [b"240"]),
        (b"Retry-After: 240\r\nX: " + b"y" * MAX_HEAD + b"\r\n", [b"240"]),
        (b"no colon\r\nRetry-After: 5\r\n", [b"5"]),
        (b"Retry-After: 5\r\nno colon\r\n", [b"5"]),
        (b"X-Retry-After: 5\r\n", None),
    ],
)
def test_retry_after_survives_a_malformed_head(head: bytes, expected: Any) -> None:
    whole = b"HTTP/1.1 503 Busy\r\n" + head + b"\r\n"
    for parts in ([whole], whole.splitlines(keepends=True)):
        response = parse(*parts)
        response.close()
        assert response.code == 503
        assert response.headers.getRawHeaders(b"retry-after") == expected


def test_trailer_is_not_a_header() -> None:
    response = parse(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 5\r\n\r\n")
    assert response.headers.getRawHeaders(b"retry-after") is None


def test_head_is_limited() -> None:
    response = parse(OK, *[b"X: y\r\n"] * MAX_HEAD)
    assert (response.done, response.complete, response.code) == (True, False, 200)


def test_body_is_limited() -> None:
    head = OK + b"Content-Length: 100000000\r\n\r\n"
    assert not parse(head, b"x" * MAX_BODY).done
    response = parse(head, b"ab", b"x" * MAX_BODY)
    assert (response.done, response.complete) == (True, False)
    assert response.body == b"ab" + b"x" * (STORED_BODY - 2)


@pytest.mark.parametrize("endless", [b"1;" + b"x" * 999, b"0\r\n" + b"X: y\r\n" * 99])
def test_chunk_extensions_and_trailers_are_limited(endless: bytes) -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    response = parse(head, *[endless] + [endless[2:]] * 1000)
    assert response.done
    assert response.code == 200


@given(st.binary(max_size=200))
def test_random_bytes_are_parsed_or_rejected(data: bytes) -> None:
    for begin in (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            response = parse(begin, data)
        except NotHTTP:
            continue
        assert response.code == 0 or 200 <= response.code <= 599


def test_response_is_freed_without_the_garbage_collector() -> None:
    class Noted(Response):
        freed = 0

        def __del__(self) -> None:
            Noted.freed += 1

    gc.disable()
    try:
        response = Noted(b"GET")
        response.feed(OK + b"Content-Length: 0\r\n\r\n")
        response.close()
        del response
        assert Noted.freed == 1
    finally:
        gc.enable()


def test_response_provides_iresponse() -> None:
    assert verifyObject(IResponse, Response(b"GET"))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 404\n", 404),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX", 201),
        (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", None),
        (b"HTTP/1.1 103 Hints\r\nHTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 200 OK", None),
        (b"HTTP/1.1 999 OK\r\n", None),
        (b"HTTP/2 200 OK\r\n", None),
        (b"", None),
    ],
)
def test_status_is_read_from_an_incomplete_head(head: bytes, status: int | None) -> None:
    assert status_in(head) == status
