"""Hostile requests: smuggled, malformed, endless or of another protocol.

Every response is JSON without a 5xx status, only plain HTTP/1.1 requests have an effect, and the
next client is served.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callme.core.times import Key
from callme.server.channel import REQUEST_SECONDS
from callme.server.site import BoundedSite
from tests.helpers.processes import Daemon
from tests.helpers.raw_client import BODY, GET, Client
from tests.helpers.tasks import NOON
from tests.helpers.world import World

VICTIM = Key("victim", NOON + 3600)
SMUGGLED = b"DELETE /task/victim HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"PUT /task/x HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
END = b"0\r\n\r\n"
MEGABYTE = 1024 * 1024

FRAMING = {
    "a length and chunks": HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "chunks and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n" + END,
    "identity and a length": HEAD + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 0\r\n" + LENGTH + b"\r\n",
    "two equal lengths": HEAD + LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": HEAD + b"Content-Length: +0\r\n\r\n",
    "a hexadecimal length": HEAD + b"Content-Length: 0x0\r\n\r\n",
    "a full-width length": HEAD + "Content-Length: \uff10\r\n\r\n".encode(),
    "an empty length": HEAD + b"Content-Length:\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + END,
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "identity and chunked": CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: identity\r\n\r\n")
    + END,
    "chunked, then identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END,
    "gzip, then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + END,
    "a vertical tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + END,
    "chunked with a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + END,
    "a folded first header": b"GET /status/ HTTP/1.1\r\n X: a\r\n\r\n",
    "a bare line feed in a header": b"GET /status/ HTTP/1.1\r\nHost: x\r\nX: a\nY: b\r\n\r\n",
    "a bare line feed at the end": b"GET /status/ HTTP/1.1\r\nHost: x\r\n\n",
    "a lone carriage return": b"GET /status/ HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
    "a lone carriage return in the target": b"GET /status/\rX HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a name": b"GET /status/ HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n",
    "NUL in a value": b"GET /status/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "NUL in the target": b"GET /status/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the method": b"G\0T /status/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without a name": b"GET /status/ HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n",
    "a chunk of 0x5": CHUNKED + b"0x5\r\n",
    "a signed chunk": CHUNKED + b"+5\r\nhello\r\n" + END,
    "a chunk of 1_0": CHUNKED + b"1_0\r\n",
    "a chunk longer than it says": CHUNKED + b"5\r\nhelloXX" + END,
    "a chunk's size without end": CHUNKED + b"0" * 20_000,
    "a chunk's extension without end": CHUNKED + b"5;" + b"a" * 20_000,
    "a line feed in an extension": CHUNKED + b"5;a\nxx\r\nhello\r\n" + END,
    "a trailer without end": CHUNKED + CHUNK + b"0\r\nX: " + b"y" * MEGABYTE,
    "100,000 trailers": CHUNKED + CHUNK + b"0\r\n" + b"X: y\r\n" * 100_000,
    "HTTP/0.9": b"GET /status/\r\n",
    "HTTP/1.2": b"GET /status/ HTTP/1.2\r\n\r\n",
    "http/1.1": b"GET /status/ http/1.1\r\n\r\n",
    "a space in the target": b"GET /status/ x HTTP/1.1\r\nHost: x\r\n\r\n",
    "tabs": b"GET\t/status/\tHTTP/1.1\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS": b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03" + bytes(range(1, 190)) + b"\r\n",
}
"""Requests that another program could read differently: callme rejects them with 400 and closes the
connection, so that nothing after them is read as a request."""

REFUSED = {
    "a target of 1 MB": (b"GET /" + b"x" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a header of 1 MB": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * MEGABYTE + b"\r\n\r\n", 431),
    "1 MB and no end": (b"x" * MEGABYTE, 431),
    "100,000 chunks of nothing": (CHUNKED + b"1\r\n \r\n" * 100_000 + END, 400),
    "an encoded NUL": (b"GET /status/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an encoded line break": (b"GET /status/%0d%0aX:%20y HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an encoded slash": (b"GET /status/a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "encoded dots": (b"GET /status/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an overlong slash": (b"GET /status/%c0%af HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "ftp": (b"GET ftp://x/status/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "file": (b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "GET *": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT to a path": (b"CONNECT /status/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "a method of 10,000 letters": (b"A" * 10_000 + b" /status/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "a type of any bytes": (
        HEAD + b"Content-Type: " + bytes(range(128, 256)) + b"\r\n" + LENGTH + b"\r\n" + BODY,
        415,
    ),
}

HARMLESS = {
    "a body that looks like a request": (
        b"GET /status/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        % (len(SMUGGLED), SMUGGLED),
        [200],
    ),
    "chunks that look like a request": (
        CHUNKED + b"%x\r\n%s\r\n" % (len(SMUGGLED), SMUGGLED) + END,
        [400],
    ),
    "an extension, a trailer": (
        CHUNKED + CHUNK.replace(b"\r", b';a="b"\r', 1) + b"0\r\nX: y\r\n\r\n",
        [201],
    ),
    "a trailer that would be a length": (
        CHUNKED + CHUNK + b"0\r\nContent-Length: 100\r\n\r\n" + GET,
        [201, 200],
    ),
    "chunks on HTTP/1.0, which end the connection": (
        CHUNKED.replace(b"1.1", b"1.0") + CHUNK + END + SMUGGLED,
        [201],
    ),
    "a folded header": (b"GET /status/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", [200]),
    "an upgrade to HTTP/2": (
        b"GET /status/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        [200],
    ),
    "ranges": (b"GET /status/ HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,0-1\r\n\r\n", [200]),
}

ENDLESS = {
    "bare line feeds alone": b"GET /status/ HTTP/1.1\nHost: x\n\n",
    "a chunk of 2**68 bytes": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nx",
    "a chunk's size that 64 bits do not hold": CHUNKED + b"10000000000000000\r\n\r\n" + SMUGGLED,
    "chunks that end in bare line feeds": CHUNKED + CHUNK.replace(b"\r", b"") + b"0\n\n",
    "TLS that waits": b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03" + b"a" * 189,
    "a length that does not come": HEAD + b"Content-Length: 1000000\r\n\r\n" + BODY,
}
"""Requests that never become complete."""


@pytest.fixture
def client(world: World) -> Client:
    world.put(VICTIM.task_name, VICTIM.trigger_at)
    return Client(world)


def check(client: Client) -> None:
    """Fail unless the victim is unchanged and another client is served."""
    client.world.task(VICTIM)
    other = Client(client.world, client.site)
    other.send(GET)
    assert other.status() == 200


@pytest.mark.parametrize("what", FRAMING)
def test_ambiguous_request_is_refused_with_all_after_it(client: Client, what: str) -> None:
    client.send(FRAMING[what] + SMUGGLED)
    assert client.status() == 400
    assert client.transport.disconnecting
    client.send(SMUGGLED)
    assert client.responses() == []
    check(client)


@pytest.mark.parametrize("what", REFUSED)
def test_malformed_request_is_refused(client: Client, what: str) -> None:
    data, status = REFUSED[what]
    client.send(data)
    assert client.status() == status
    check(client)


@pytest.mark.parametrize("what", HARMLESS)
def test_unusual_but_valid_request_is_accepted(client: Client, what: str) -> None:
    data, statuses = HARMLESS[what]
    client.send(data)
    assert [status for status, _ in client.responses()] == statuses
    check(client)


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_request_is_cut_off(client: Client, what: str) -> None:
    client.send(ENDLESS[what])
    assert client.responses() == []
    client.world.clock.advance(REQUEST_SECONDS)
    assert client.status() == 408
    assert client.transport.disconnecting
    check(client)


def test_request_before_a_hostile_one_gets_a_response(client: Client) -> None:
    client.send(GET + FRAMING["two lengths"] + SMUGGLED)
    assert [status for status, _ in client.responses()] == [200, 400]
    check(client)


LINES = [
    GET,
    HEAD,
    CHUNKED,
    CHUNK,
    END,
    BODY,
    LENGTH,
    b"POST /batch HTTP/1.1\r\n",
    b"5;x\r\n",
]
HEADERS = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"\r\n"]
BYTES = [b"\n", b"\r", b"\0", b" ", b":", b"%", b"?", b"\xff", b"[", b"]", b"{", b"/task/%", b"@"]
PIECES = st.sampled_from([*LINES, *HEADERS, *BYTES])


@settings(max_examples=150, derandomize=True)
@given(st.lists(PIECES | st.binary(max_size=8), max_size=25), st.integers(1, 60))
def test_any_bytes_in_any_pieces_get_json(pieces: list[bytes], size: int) -> None:
    world = World()
    try:
        client = Client(world)
        data = b"".join(pieces)
        for begin in range(0, len(data), size):
            client.send(data[begin : begin + size])
            world.clock.advance(0)
        world.clock.advance(REQUEST_SECONDS)
        assert all(status < 500 for status, _ in client.responses())
        client.hang_up()
        assert world.clock.getDelayedCalls() == []
    finally:
        world.close()


# Over sockets

WHOLE = re.compile(rb"\r\n\r\n\{.*\}\n\Z")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


@pytest.mark.daemon
def test_daemon_process_survives_hostile_requests(daemon: Daemon) -> None:
    daemon.start()
    key = daemon.put("victim", "http://127.0.0.1:1/", "+60m")
    refused = {what: data for what, (data, _) in REFUSED.items()}
    unclear = {what: data + SMUGGLED for what, data in FRAMING.items()}
    for what, data in {**unclear, **refused, **ENDLESS}.items():
        received = b""
        with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
            connection.settimeout(0.05 if what in ENDLESS else 5)
            try:
                connection.sendall(data)
                while not WHOLE.search(received) and (more := connection.recv(65_536)):
                    received += more
            except (TimeoutError, ConnectionError):
                # The server closed the connection early, or has nothing to send yet.
                assert what in ENDLESS or len(data) > 64_000, what
        if received:
            assert re.match(rb"HTTP/1\.1 4\d\d ", received), what
            assert b"\r\nContent-Type: application/problem+json\r\n" in received, what
            assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] < 500
    assert daemon.task(key)["state"] == "scheduled"
    assert daemon.curl("GET", "/healthz")[0] == 200
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("target", [b"/", b"/metrics", b"/status/", b"/page/find"])
def test_header_that_is_not_utf_8_is_accepted(world: World, target: bytes) -> None:
    client = Client(world, BoundedSite(world.parts.site.resource, world.clock))
    headers = [b"Accept", b"Cookie", b"Content-Type", b"Sec-Fetch-Mode", b"If-None-Match"]
    lines = b"".join(b"%s: \xff\r\n" % name for name in headers)
    client.send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (target, lines))
    assert client.transport.value()[9:12] in (b"200", b"404")
