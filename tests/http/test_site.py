"""The HTTP server and clients that are slow, large, broken or hostile, as raw bytes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from callme.server.channel import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    MAX_BODY,
    REQUEST_SECONDS,
    RESPONSE_SECONDS,
    SURPLUS_SECONDS,
    BoundedChannel,
)
from callme.server.connection_limits import (
    EVICTION_HEADROOM,
    MIN_IDLE_SECONDS,
    MIN_READING_SECONDS,
)
from callme.server.site import FULL_LOG_SECONDS, BoundedSite
from callme.store import tasks
from tests.helpers.api_client import ask
from tests.helpers.logs import LoggedFailures
from tests.helpers.raw_client import BODY, GET, Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World


@pytest.fixture
def client(world: World) -> Client:
    return Client(world)


def put(path: bytes = b"/task/x", body: bytes = BODY, *headers: bytes) -> bytes:
    lines = [b"PUT " + path + b" HTTP/1.1", b"Host: x", *headers]
    if not any(header.lower().startswith(b"transfer") for header in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def test_response_to_a_client_that_has_gone_is_discarded(world: World) -> None:
    requests: list[Request] = []

    class Slow(Resource):
        isLeaf = True

        def render_GET(self, request: Request) -> int:
            requests.append(request)
            return NOT_DONE_YET

    client = Client(world, BoundedSite(Slow(), world.clock))
    client.send(GET)
    client.hang_up()
    requests[0].write(b"late")
    assert client.transport.value() == b""


class Turns(Clock):
    """A clock that runs a call without a delay in the next turn, as the reactor does."""

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> IDelayedCall:
        return super().callLater(max(delay, 0.001), *args, **kwargs)


def test_connections_are_checked_once_a_second_after_a_change_of_clients_during_a_check(
    world: World, logged_failures: LoggedFailures
) -> None:
    clock = Turns()
    site = BoundedSite(world.parts.api.resource(), clock)
    first = Client(world, site)
    clock.advance(1)
    first.hang_up()
    second = Client(world, site)
    clock.pump([0.001] * 2000)
    assert len(clock.getDelayedCalls()) == 1
    second.hang_up()
    clock.pump([0.001] * 2000)
    assert clock.getDelayedCalls() == []
    assert logged_failures.flush(AssertionError) == 0


def test_connection_serves_several_requests(client: Client) -> None:
    client.send(GET * 3)
    client.send(put())
    assert [status for status, _ in client.responses()] == [200, 200, 200, 201]
    assert not client.transport.disconnecting


@pytest.mark.parametrize(
    "data",
    [
        GET,
        put(),
        put(b"/task/x@1"),
        b"DELETE /task/there HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /status/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.0\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /status/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /status/ HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 600 + b"\r\n",
    ],
)
def test_response_does_not_reveal_server_versions(client: Client, data: bytes) -> None:
    client.world.put("there")
    client.send(data)
    response = client.transport.value().lower()
    assert response.startswith(b"http/1.")
    assert b"twisted" not in response


def test_body_arrives_in_pieces_or_chunks(client: Client) -> None:
    for byte in put():
        client.send(bytes([byte]))
    assert client.status() == 201
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    client.send(put(b"/task/y", chunks, b"Transfer-Encoding: chunked"))
    assert client.status() == 201


def test_body_of_the_maximum_size_is_read(client: Client) -> None:
    client.send(put(body=BODY + b" " * (MAX_BODY - len(BODY))))
    assert client.status() == 201


def test_larger_body_is_refused_and_discarded(client: Client) -> None:
    client.send(put(body=b"x" * (20 * 1024 * 1024)))
    assert client.status() == 413
    client.send(GET)
    assert client.status() == 200


def test_larger_chunked_body_is_refused_and_discarded(client: Client) -> None:
    client.send(b"PUT /task/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(20 * 16):
        client.send(chunk)
        assert client.channel.requests[0].content.tell() <= MAX_BODY
    client.send(b"0\r\n\r\n")
    assert client.status() == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"G\xc3\x89T / HTTP/1.1\r\n\r\n", 400),
        (b"GET /status/ HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /%FF HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET status HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 501 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 90 + b"\r\n") * 200 + b"\r\n", 431),
        (b"GET /status/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /status/ HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"TRACE /status/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
def test_hostile_request_gets_json(client: Client, data: bytes, status: int) -> None:
    client.send(data)
    # RFC 9110, section 6.6.1.
    assert client.transport.value().count(b"\r\nDate: ") == 1
    assert client.status() == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"\xff", 400),
        (b"a" * 300, 200),
        (b"[::1", 400),
        (b"a..b", 403),
        (b"xn--\xc3\xbc", 400),
        (b"", 400),
        (b"x:y:z", 400),
        (b"\xc3\xa9", 400),
        (b"xn--a", 200),
    ],
)
def test_any_host_header_gets_a_response(client: Client, host: bytes, status: int) -> None:
    client.send(b"GET /status/ HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert client.status() == status


@pytest.mark.parametrize("target", [b"http://callme:6777/status/", b"HTTP://callme/status/?pretty"])
def test_absolute_target_is_served(client: Client, target: bytes) -> None:
    client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.status() == 200


def test_absolute_target_without_path_means_the_root(client: Client) -> None:
    client.send(b"GET http://callme HTTP/1.1\r\nHost: x\r\n\r\n")
    ((status, service),) = client.responses()
    assert (status, service["name"]) == (200, "callme")


def test_http_1_0_connection_is_closed_after_the_response(client: Client) -> None:
    client.send(b"GET /status/ HTTP/1.0\r\n\r\n")
    assert client.status() == 200
    assert client.transport.disconnecting


def test_expect_100_continue_is_honoured(client: Client) -> None:
    client.send(put(b"/task/x", b"", b"Expect: 100-continue").replace(b": 0", b": %d" % len(BODY)))
    assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.transport.clear()
    client.send(BODY)
    assert client.status() == 201


def test_silent_client_is_disconnected(client: Client) -> None:
    client.world.clock.advance(REQUEST_SECONDS)
    assert client.status() == 408
    assert client.transport.disconnecting
    client.world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


@pytest.mark.parametrize("data", [GET, put()])
def test_trickling_client_is_disconnected(client: Client, data: bytes) -> None:
    for byte in data:
        if client.transport.disconnecting:
            break
        client.send(bytes([byte]))
        client.world.clock.advance(1)
    assert client.status() == 408
    client.send(b"more")
    assert client.responses() == []


def test_deadline_restarts_with_each_request(client: Client) -> None:
    for _ in range(10):
        client.send(GET[:10])
        client.world.clock.advance(REQUEST_SECONDS - 1)
        client.send(GET[10:])
        assert client.status() == 200
    assert not client.transport.disconnecting


def test_idle_connection_is_closed(client: Client) -> None:
    client.send(GET)
    assert client.status() == 200
    client.world.clock.advance(IDLE_SECONDS)
    assert client.transport.disconnecting


def test_idle_time_is_configurable(world: World) -> None:
    site = BoundedSite(world.parts.site.resource, world.clock, idle_seconds=620)
    client = Client(world, site)
    client.send(GET)
    assert client.status() == 200
    world.clock.advance(619)
    assert not client.transport.disconnecting
    world.clock.advance(1)
    assert client.transport.disconnecting


def test_options_of_the_server_lists_all_methods(client: Client) -> None:
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"\r\nallow: delete, get, head, options, post, put\r\n" in (
        client.transport.value().lower()
    )
    assert client.status() == 204


def test_options_of_a_path_lists_its_methods(client: Client) -> None:
    client.send(b"OPTIONS /status/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"\r\nallow: get, head, options\r\n" in client.transport.value().lower()
    assert client.status() == 204


SAFE = (
    b"cache-control: no-store",
    b"x-content-type-options: nosniff",
    b"cross-origin-resource-policy: same-origin",
)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET, 200),
        (put(), 201),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"HEAD /status/ HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"OPTIONS /status/ HTTP/1.1\r\nHost: x\r\n\r\n", 204),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /status/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /status/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"PUT /task/x HTTP/1.1\r\nHost: x\r\nOrigin: null\r\nContent-Length: 9\r\n\r\n", 403),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"x" * 20_000, 431),
    ],
)
def test_no_response_is_cached_sniffed_or_embedded(
    client: Client, data: bytes, status: int
) -> None:
    client.send(data)
    lines = client.transport.value().lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0].split()[1] == str(status).encode()
    assert [lines.count(header) for header in SAFE] == [1, 1, 1]
    assert sum(line.startswith(b"cache-control:") for line in lines) == 1


def test_calendar_is_stored_by_its_client_only_and_checked_before_each_use(client: Client) -> None:
    client.send(b"GET /status/.ics HTTP/1.1\r\nHost: x\r\n\r\n")
    lines = client.transport.value().lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [lines.count(header) for header in SAFE] == [0, 1, 1]
    assert lines.count(b"cache-control: private, no-cache") == 1


def test_slow_second_request_is_disconnected(client: Client) -> None:
    client.send(GET + GET[:5])
    assert client.status() == 200
    client.world.clock.advance(1)
    client.send(GET[5:10])
    for _ in range(REQUEST_SECONDS):
        client.world.clock.advance(1)
    assert client.status() == 408


def test_error_after_a_head_request_has_a_body(client: Client) -> None:
    client.send(head(b"HEAD", b"/status/"))
    client.transport.clear()
    client.send(b"x" * 20_000)
    assert client.status() == 431


def test_client_that_does_not_read_is_disconnected(client: Client) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.transport.disconnecting
    client.world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


def test_unread_pipelined_responses_are_bounded(client: Client) -> None:
    for number in range(200):
        client.world.put(f"n{number}", headers={"X-Large": "x" * 2000})
    written = client.transport.write

    def full(data: bytes) -> None:
        written(data)
        client.channel.pauseProducing()

    client.transport.write = full  # type: ignore[method-assign]
    client.send(GET.replace(b"/status/", b"/status/?limit=1000") * 100)
    client.world.clock.advance(0)
    assert len(client.transport.value()) < 2_000_000
    assert client.transport.disconnecting
    client.world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


def test_pipelining_and_slow_reading_are_allowed(client: Client) -> None:
    client.send(GET * 50)
    assert len(client.responses()) == 50
    client.channel.pauseProducing()
    client.channel.resumeProducing()
    client.send(GET)
    assert not client.transport.disconnecting


def test_slow_body_gets_a_timeout_response(client: Client) -> None:
    client.send(put(b"/task/x", BODY, b"Connection: close")[:-5])
    client.world.clock.advance(REQUEST_SECONDS)
    assert client.status() == 408


def test_response_that_never_comes_times_out(world: World) -> None:
    world.store.overrides[tasks.list_page] = lambda **query: Deferred()
    client = Client(world)
    client.send(GET)
    client.world.clock.advance(RESPONSE_SECONDS - 1)
    assert not client.transport.disconnecting
    client.world.clock.advance(1)
    assert client.transport.aborted


def test_empty_line_before_a_request_is_ignored(client: Client) -> None:
    client.send(b"\r\n" + GET)
    assert client.status() == 200


def test_timers_end_with_the_connection(client: Client) -> None:
    client.send(GET + put()[:20])
    client.hang_up()
    assert client.world.clock.getDelayedCalls() == []


def test_closing_site_finishes_responses(world: World) -> None:
    idle = Client(world)
    other = Client(world, idle.site)
    idle.send(GET)
    closed: list[Any] = []
    idle.site.close().addCallback(closed.append)
    assert idle.transport.disconnecting
    assert other.transport.disconnecting
    idle.hang_up()
    assert closed == []
    other.hang_up()
    assert closed == [None]


def test_closing_site_without_connections_closes_at_once(client: Client) -> None:
    client.hang_up()
    assert World.result(client.site.close()) is None


def test_closing_site_closes_a_connection_after_its_response(world: World) -> None:
    waiting: Deferred[Any] = Deferred()
    page = partial(world.store.query, tasks.list_page)
    world.store.overrides[tasks.list_page] = lambda **query: waiting
    client = Client(world)
    client.send(GET)
    client.site.close()
    assert not client.transport.disconnecting
    waiting.callback(world.result(page()))
    assert client.status() == 200
    assert client.transport.disconnecting


# Memory


@pytest.fixture
def small(world: World) -> BoundedSite:
    """A site that buffers a thousand bytes for all clients together."""
    return BoundedSite(world.parts.api.resource(), world.clock, max_buffered_bytes=1000)


def test_largest_body_is_shed_when_buffers_are_full(world: World, small: BoundedSite) -> None:
    large, other = Client(world, small), Client(world, small)
    large.send(put(b"/task/a", BODY + b" " * 700)[:-1])
    other.send(put(b"/task/b", BODY + b" " * 300))
    head = large.transport.value().lower()
    assert b"retry-after: 2" in head
    assert large.status() == 429
    assert other.status() == 201
    large.send(b" ")
    assert large.responses() == []
    assert not large.transport.disconnecting
    world.clock.advance(CLOSE_SECONDS)
    assert large.dropped


@pytest.mark.parametrize("headers", [(), (b"Transfer-Encoding: chunked",)])
def test_body_that_fills_the_buffers_is_refused_once(
    world: World, small: BoundedSite, headers: tuple[bytes, ...]
) -> None:
    body = BODY + b" " * 1000
    if headers:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    client = Client(world, small)
    client.send(put(b"/task/a", body, *headers) + GET)
    assert client.status() == 429
    assert list(world.result(world.store.read(tasks.list_page)).tasks) == []


def test_body_that_is_too_large_takes_no_room_from_others(world: World, small: BoundedSite) -> None:
    large, other = Client(world, small), Client(world, small)
    body = put(b"/task/a", b"x" * (MAX_BODY + 1))
    large.send(body[:-1])
    other.send(put(b"/task/b", BODY + b" " * 700))
    assert other.status() == 201
    large.send(body[-1:])
    assert large.status() == 413


def test_buffer_usage_is_released(world: World, small: BoundedSite) -> None:
    client = Client(world, small)
    body = BODY + b" " * 700
    for number in range(5):
        client.send(put(b"/task/%d" % number, body))
        assert client.status() == 201
        left = Client(world, small)
        left.send(put(b"/task/x", body)[:-1])
        left.hang_up()


@pytest.mark.parametrize("headers", [(), (b"Transfer-Encoding: chunked",)])
@pytest.mark.parametrize("size", [0, 500, MAX_BODY + 1])
def test_no_byte_of_a_finished_request_is_counted(
    world: World, headers: tuple[bytes, ...], size: int
) -> None:
    """The bound of all buffered bytes would otherwise become looser, or tighter, with each body."""
    made = BoundedSite(world.parts.api.resource(), world.clock, max_buffered_bytes=2 * MAX_BODY)
    body = BODY + b" " * size
    if headers:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    client = Client(world, made)
    for _ in range(3):
        client.send(put(b"/task/a", body, *headers))
        assert client.status() in (200, 201, 413)
    client.hang_up()
    assert made.buffers._total == 0


def test_discarded_part_of_a_body_is_not_counted(world: World) -> None:
    made = BoundedSite(world.parts.api.resource(), world.clock, max_buffered_bytes=2 * MAX_BODY)
    client = Client(world, made)
    half = b"%x\r\n%s\r\n" % (MAX_BODY // 2 + 1, b" " * (MAX_BODY // 2 + 1))
    client.send(put(b"/task/a", half, b"Transfer-Encoding: chunked"))
    assert made.buffers._total == MAX_BODY // 2 + 1
    client.send(half)
    assert made.buffers._total == 0
    assert client.channel.requests[0].content.tell() == 0
    client.send(b"0\r\n\r\n")
    assert client.status() == 413


def test_nothing_is_shed_while_every_body_is_being_processed(
    world: World, small: BoundedSite
) -> None:
    waiting: Deferred[Any] = Deferred()
    world.store.overrides[tasks.put] = lambda *_, **__: waiting
    waits = Client(world, small)
    waits.send(put(b"/task/a", BODY + b" " * 900))
    small.buffers.max_bytes = 10
    small.shed_load()
    assert waits.responses() == []
    assert not waits.dropped


def test_body_being_processed_is_not_shed(world: World, small: BoundedSite) -> None:
    waiting: Deferred[Any] = Deferred()
    world.store.overrides[tasks.put] = lambda *_, **__: waiting
    waits, other = Client(world, small), Client(world, small)
    waits.send(put(b"/task/a", BODY + b" " * 900))
    other.send(put(b"/task/b", BODY + b" " * 300))
    assert other.status() == 429
    assert waits.responses() == []
    assert not waits.dropped


def clogged(client: Client) -> Client:
    """Return a client that does not read its response."""
    written = client.transport.write

    def full(data: bytes) -> None:
        written(data)
        client.channel.pauseProducing()

    client.transport.write = full  # type: ignore[method-assign]
    return client


def test_largest_unread_response_is_shed(world: World, small: BoundedSite) -> None:
    little, much = clogged(Client(world, small)), clogged(Client(world, small))
    little.send(GET)
    assert not little.dropped
    for number in range(5):
        world.put(f"n{number}")
    much.send(GET)
    assert much.dropped
    assert not little.dropped


def test_read_response_releases_its_buffer(world: World, small: BoundedSite) -> None:
    world.put()
    client = clogged(Client(world, small))
    for _ in range(10):
        client.send(GET)
        client.channel.resumeProducing()
        assert not client.dropped


def test_response_that_was_read_leaves_room_for_other_clients(
    world: World, small: BoundedSite
) -> None:
    world.put()
    reads, other = clogged(Client(world, small)), Client(world, small)
    reads.send(GET)
    assert reads.status() == 200
    reads.channel.resumeProducing()
    other.send(put(b"/task/a", BODY + b" " * 700))
    assert other.status() == 201
    assert reads.responses() == []
    assert not reads.transport.disconnecting


@pytest.mark.parametrize("target", [b"*", b"x", b"?x", b"http:x"])
def test_target_that_is_no_path_is_a_bad_request(world: World, target: bytes) -> None:
    client = Client(world)
    client.send(head(b"GET", target))
    assert client.status() == 400


# Connection limit


@pytest.fixture
def site(world: World) -> BoundedSite:
    return BoundedSite(world.parts.api.resource(), world.clock, max_connections=3)


def test_new_connection_evicts_the_longest_idle(world: World, site: BoundedSite) -> None:
    silent, idle, later = (Client(world, site) for _ in range(3))
    idle.send(GET)
    later.send(GET + GET)
    idle.send(GET[:5])
    idle.send(GET[5:])
    assert not silent.dropped
    world.clock.advance(MIN_IDLE_SECONDS)
    new = Client(world, site)
    new.send(GET)
    assert new.status() == 200
    # A slow request is preferred to an idle connection.
    clients = (silent, idle, later, new)
    assert [one.transport.disconnecting for one in clients] == [False, False, True, False]
    # A connection is not idle before its responses are sent.
    assert not later.dropped
    later.hang_up()
    silent.send(GET)
    assert len(silent.responses()) == 1


def test_new_connection_evicts_one_that_does_not_read(world: World, site: BoundedSite) -> None:
    idle, *_ = (Client(world, site) for _ in range(3))
    clogged(idle)
    idle.send(GET)
    world.clock.advance(MIN_IDLE_SECONDS)
    Client(world, site)
    assert idle.dropped


def test_new_connection_evicts_the_slowest_request(world: World, site: BoundedSite) -> None:
    first, second, third = (Client(world, site) for _ in range(3))
    second.send(GET[:5])
    third.send(put()[:-1])
    world.clock.advance(MIN_READING_SECONDS)
    crowd = [Client(world, site)]
    assert first.dropped
    first.hang_up()
    crowd.append(Client(world, site))
    assert second.dropped
    assert not third.dropped
    second.hang_up()
    third.send(put()[-1:])
    assert third.status() == 201
    for client in crowd:
        client.send(GET)
        assert client.status() == 200


def test_connection_awaiting_a_response_is_not_evicted(world: World, site: BoundedSite) -> None:
    page = partial(world.store.query, tasks.list_page)
    waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
    responses = iter(waiting)
    world.store.overrides[tasks.list_page] = lambda **query: next(responses)
    clients = [Client(world, site) for _ in range(3)]
    for client in clients:
        client.send(GET)
    surplus = Client(world, site)
    surplus.send(GET)
    assert surplus.status() == 503
    assert surplus.transport.disconnecting
    surplus.hang_up()
    for response in waiting:
        response.callback(world.result(page()))
    assert [client.status() for client in clients] == [200] * 3
    world.clock.advance(MIN_IDLE_SECONDS)
    Client(world, site)
    assert [client.transport.disconnecting for client in clients] == [True, False, False]


def test_rejected_connection_frees_its_place(world: World, site: BoundedSite) -> None:
    clients = [Client(world, site) for _ in range(3)]
    clients[2].send(put(b"/task/x", BODY, b"Origin: null"))
    assert clients[2].status() == 403
    world.clock.advance(MIN_READING_SECONDS)
    Client(world, site)
    assert [client.dropped for client in clients] == [False, False, True]


def test_evicted_connections_count_until_they_are_closed(world: World, site: BoundedSite) -> None:
    clients = []
    for _ in range(3 + EVICTION_HEADROOM):
        clients.append(Client(world, site))
        clients[-1].send(GET)
        world.clock.advance(MIN_IDLE_SECONDS)
    disconnected = [client.transport.disconnecting for client in clients]
    assert disconnected == [True] * EVICTION_HEADROOM + [False] * 3
    with pytest.raises(ConnectionRefusedError):
        Client(world, site)
    clients[0].hang_up()
    Client(world, site)


PROBES = [b"/healthz", b"/healthz/", b"/metrics", b"/metrics?pretty"]


@pytest.fixture
def flooded(world: World) -> BoundedSite:
    """A site whose clients all wait for a response."""
    site = BoundedSite(world.parts.api.resource(), world.clock, max_connections=3)
    world.put(at=NOON + 3600)
    for _ in range(3):
        Client(world, site).send(head(b"GET", b"/status/task@%d?wait=50" % (NOON + 3600)))
    assert world.parts.long_poll.count == 3
    return site


@pytest.mark.parametrize("path", PROBES)
def test_probe_gets_a_response_though_no_client_may_be_evicted(
    world: World, flooded: BoundedSite, path: bytes
) -> None:
    world.scheduler.start()
    for _ in range(3 * EVICTION_HEADROOM):
        # Each of the crowd remains connected, and sends nothing.
        with suppress(ConnectionRefusedError):
            Client(world, flooded)
        for connection in [one for one in flooded.registry.connections if closes(one)]:
            connection.connectionLost(Failure(ConnectionDone()))
        probe = Client(world, flooded)
        probe.send(head(b"GET", path))
        assert probe.transport.value().startswith(b"HTTP/1.1 200")
        assert b"\r\nConnection: close\r\n" in probe.transport.value()
        assert probe.transport.disconnecting
        probe.hang_up()


def closes(channel: BoundedChannel) -> bool:
    transport: Any = channel.transport
    return bool(transport.disconnecting)


def test_evicted_request_gets_retry_after(world: World, site: BoundedSite) -> None:
    clients = [Client(world, site) for _ in range(3)]
    clients[0].send(put()[:-1])
    for client in clients[1:]:
        client.send(GET[:5])
    world.clock.advance(MIN_READING_SECONDS)
    Client(world, site)
    assert clients[0].transport.value().startswith(b"HTTP/1.1 503")
    assert clients[0].transport.disconnecting


def test_silent_surplus_connections_make_room_for_each_other(
    world: World, flooded: BoundedSite
) -> None:
    crowd = [Client(world, flooded) for _ in range(EVICTION_HEADROOM // 2 + 1)]
    assert [client.dropped for client in crowd] == [True] + [False] * (EVICTION_HEADROOM // 2)
    world.turn_to(NOON + SURPLUS_SECONDS + 1)
    assert all(client.transport.disconnecting for client in crowd)


def test_surplus_request_is_refused_before_its_body_is_sent(
    world: World, flooded: BoundedSite
) -> None:
    client = Client(world, flooded)
    before, _, body = put(b"/task/x").partition(b"\r\n\r\n")
    client.send(before + b"\r\n\r\n")
    response = client.transport.value()
    assert response.startswith(b"HTTP/1.1 503")
    assert b"\r\nRetry-After: 2\r\n" in response
    # The client is left to close the connection: it might not read the response otherwise.
    assert not client.transport.disconnecting
    client.send(body)
    assert client.transport.value() == response
    world.turn_to(NOON + 15)
    assert client.dropped


def test_request_that_was_sent_is_not_cut_off_by_a_crowd(world: World, site: BoundedSite) -> None:
    clients = [Client(world, site) for _ in range(3)]
    crowd = [Client(world, site) for _ in range(EVICTION_HEADROOM // 2)]
    for client in clients:
        client.send(put(b"/task/x"))
        assert client.status() in (200, 201)
    for client in crowd:
        client.send(put(b"/task/y"))
        assert client.status() == 503
    assert ask(world, "GET", "/status/y").status == 404


def test_full_server_is_logged_now_and_then(world: World, site: BoundedSite) -> None:
    with capturedLogs() as events:
        for _ in range(10):
            Client(world, site)
        world.clock.advance(FULL_LOG_SECONDS)
        Client(world, site)
    message = (
        "connection limit reached: 3 clients are connected; callme disconnects those that have "
        "been idle for longest"
    )
    assert [formatEvent(event) for event in events] == [message, message]


class BrokenResource(Resource):
    """A resource that fails."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        raise ZeroDivisionError


def test_error_outside_the_api_gets_json(
    client: Client, logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.site, "resource", BrokenResource())
    client.send(GET)
    assert client.status() == 500
    assert logged_failures.flush(ZeroDivisionError) >= 1
