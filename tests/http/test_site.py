"""What the server does with clients that are slow, large, broken or hostile: raw bytes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from callme.api.routes import Api
from callme.server.channel import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    MAX_BODY,
    REQUEST_SECONDS,
    RESPONSE_SECONDS,
)
from callme.server.connection_limits import EVICTION_HEADROOM
from callme.server.site import FULL_LOG_SECONDS, BoundedSite
from tests.helpers.logs import LoggedFailures
from tests.helpers.raw_client import BODY, GET, Client
from tests.helpers.world import World


@pytest.fixture
def client(world: World) -> Client:
    return Client(world)


def put(path: bytes = b"/task/x", body: bytes = BODY, *headers: bytes) -> bytes:
    lines = [b"PUT " + path + b" HTTP/1.1", b"Host: x", *headers]
    if not any(header.lower().startswith(b"transfer") for header in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def test_requests_follow_one_another_on_a_connection(client: Client) -> None:
    client.send(GET * 3)
    client.send(put())
    assert [status for status, _ in client.answers()] == [200, 200, 200, 201]
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
def test_no_answer_tells_what_it_runs_on(client: Client, data: bytes) -> None:
    client.world.put("there")
    client.send(data)
    answer = client.transport.value().lower()
    assert answer.startswith(b"http/1.")
    assert b"twisted" not in answer


def test_a_body_may_come_in_pieces_or_chunks(client: Client) -> None:
    for byte in put():
        client.send(bytes([byte]))
    assert client.status() == 201
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    client.send(put(b"/task/y", chunks, b"Transfer-Encoding: chunked"))
    assert client.status() == 201


def test_the_largest_body_is_read(client: Client) -> None:
    client.send(put(body=BODY + b" " * (MAX_BODY - len(BODY))))
    assert client.status() == 201


def test_a_larger_body_is_refused_and_not_kept(client: Client) -> None:
    client.send(put(body=b"x" * (20 * 1024 * 1024)))
    assert client.status() == 413
    client.send(GET)
    assert client.status() == 200


def test_a_larger_body_in_chunks_is_refused_and_not_kept(client: Client) -> None:
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
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
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
def test_hostile_requests_are_answered_in_json(client: Client, data: bytes, status: int) -> None:
    client.send(data)
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
def test_no_host_header_breaks_anything(client: Client, host: bytes, status: int) -> None:
    client.send(b"GET /status/ HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert client.status() == status


@pytest.mark.parametrize("target", [b"http://callme:6777/status/", b"HTTP://callme/status/?pretty"])
def test_a_target_in_absolute_form(client: Client, target: bytes) -> None:
    client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.status() == 200


def test_an_absolute_target_without_a_path(client: Client) -> None:
    client.send(b"GET http://callme HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.status() == 404


def test_http_1_0_is_answered_and_closed(client: Client) -> None:
    client.send(b"GET /status/ HTTP/1.0\r\n\r\n")
    assert client.status() == 200
    assert client.transport.disconnecting


def test_expect_100_continue(client: Client) -> None:
    client.send(put(b"/task/x", b"", b"Expect: 100-continue").replace(b": 0", b": %d" % len(BODY)))
    assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.transport.clear()
    client.send(BODY)
    assert client.status() == 201


def test_whoever_sends_nothing_is_cut_off(client: Client) -> None:
    client.world.clock.advance(REQUEST_SECONDS)
    assert client.status() == 408
    assert client.transport.disconnecting
    client.world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


@pytest.mark.parametrize("data", [GET, put()])
def test_whoever_sends_a_byte_at_a_time_is_cut_off(client: Client, data: bytes) -> None:
    for byte in data:
        if client.transport.disconnecting:
            break
        client.send(bytes([byte]))
        client.world.clock.advance(1)
    assert client.status() == 408
    client.send(b"more")
    assert client.answers() == []


def test_the_deadline_is_for_each_request_anew(client: Client) -> None:
    for _ in range(10):
        client.send(GET[:10])
        client.world.clock.advance(REQUEST_SECONDS - 1)
        client.send(GET[10:])
        assert client.status() == 200
    assert not client.transport.disconnecting


def test_whoever_stays_without_a_request_is_cut_off(client: Client) -> None:
    client.send(GET)
    assert client.status() == 200
    client.world.clock.advance(IDLE_SECONDS)
    assert client.transport.disconnecting


def test_a_slow_second_request_is_cut_off(client: Client) -> None:
    client.send(GET + GET[:5])
    assert client.status() == 200
    client.world.clock.advance(1)
    client.send(GET[5:10])
    for _ in range(REQUEST_SECONDS):
        client.world.clock.advance(1)
    assert client.status() == 408


def test_whoever_does_not_read_the_last_answer_is_cut_off(client: Client) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.transport.disconnecting
    client.world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


def test_who_asks_ahead_and_does_not_read_is_not_answered_for_ever(client: Client) -> None:
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


def test_who_reads_may_ask_ahead_and_who_asks_once_may_read_slowly(client: Client) -> None:
    client.send(GET * 50)
    assert len(client.answers()) == 50
    client.channel.pauseProducing()
    client.channel.resumeProducing()
    client.send(GET)
    assert not client.transport.disconnecting


def test_a_slow_body_is_told_so_though_it_is_the_last(client: Client) -> None:
    client.send(put(b"/task/x", BODY, b"Connection: close")[:-5])
    client.world.clock.advance(REQUEST_SECONDS)
    assert client.status() == 408


def test_an_answer_that_never_comes_is_not_waited_for_for_ever(world: World) -> None:
    world.store.page = lambda **query: Deferred()
    client = Client(world)
    client.send(GET)
    client.world.clock.advance(RESPONSE_SECONDS - 1)
    assert not client.transport.disconnecting
    client.world.clock.advance(1)
    assert client.transport.aborted


def test_an_empty_line_before_a_request_is_ignored(client: Client) -> None:
    client.send(b"\r\n" + GET)
    assert client.status() == 200


def test_no_timer_outlives_a_connection(client: Client) -> None:
    client.send(GET + put()[:20])
    client.hang_up()
    assert client.world.clock.getDelayedCalls() == []


def test_a_closing_site_closes_idle_connections_and_ends_what_it_answers(world: World) -> None:
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


def test_a_site_without_connections_is_closed_at_once(client: Client) -> None:
    client.hang_up()
    assert World.result(client.site.close()) is None


def test_a_connection_is_closed_after_the_answer_it_waits_for(world: World) -> None:
    waiting: Deferred[Any] = Deferred()
    page = world.store.page
    world.store.page = lambda **query: waiting
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
    """A site that keeps a thousand bytes for all clients together."""
    api = Api(world.store, world.scheduler, world.clock, world.now, world.metrics)
    return BoundedSite(api.app.resource(), world.clock, max_buffered_bytes=1000)


def test_the_largest_body_goes_where_all_are_too_much(world: World, small: BoundedSite) -> None:
    large, other = Client(world, small), Client(world, small)
    large.send(put(b"/task/a", BODY + b" " * 700)[:-1])
    other.send(put(b"/task/b", BODY + b" " * 300))
    head = large.transport.value().lower()
    assert b"retry-after: 2" in head
    assert large.status() == 429
    assert other.status() == 201
    large.send(b" ")
    assert large.answers() == []
    assert not large.transport.disconnecting
    world.clock.advance(CLOSE_SECONDS)
    assert large.dropped


@pytest.mark.parametrize("headers", [(), (b"Transfer-Encoding: chunked",)])
def test_a_body_that_is_too_much_at_its_end_is_refused_once(
    world: World, small: BoundedSite, headers: tuple[bytes, ...]
) -> None:
    body = BODY + b" " * 1000
    if headers:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    client = Client(world, small)
    client.send(put(b"/task/a", body, *headers) + GET)
    assert client.status() == 429
    assert list(world.result(world.store.page()).tasks) == []


def test_what_was_kept_is_given_back(world: World, small: BoundedSite) -> None:
    client = Client(world, small)
    body = BODY + b" " * 700
    for number in range(5):
        client.send(put(b"/task/%d" % number, body))
        assert client.status() == 201
        left = Client(world, small)
        left.send(put(b"/task/x", body)[:-1])
        left.hang_up()


def test_a_body_that_is_answered_stays(world: World, small: BoundedSite) -> None:
    waiting: Deferred[Any] = Deferred()
    world.store.put = lambda *_, **__: waiting
    waits, other = Client(world, small), Client(world, small)
    waits.send(put(b"/task/a", BODY + b" " * 900))
    other.send(put(b"/task/b", BODY + b" " * 300))
    assert other.status() == 429
    assert waits.answers() == []
    assert not waits.dropped


def clogged(client: Client) -> Client:
    """Return a client who reads none of its answer."""
    written = client.transport.write

    def full(data: bytes) -> None:
        written(data)
        client.channel.pauseProducing()

    client.transport.write = full  # type: ignore[method-assign]
    return client


def test_the_largest_answer_that_is_not_read_goes(world: World, small: BoundedSite) -> None:
    little, much = clogged(Client(world, small)), clogged(Client(world, small))
    little.send(GET)
    assert not little.dropped
    for number in range(5):
        world.put(f"n{number}")
    much.send(GET)
    assert much.dropped
    assert not little.dropped


def test_an_answer_that_is_read_after_all_is_held_no_more(world: World, small: BoundedSite) -> None:
    world.put()
    client = clogged(Client(world, small))
    for _ in range(10):
        client.send(GET)
        client.channel.resumeProducing()
        assert not client.dropped


# Crowds


@pytest.fixture
def site(world: World) -> BoundedSite:
    api = Api(world.store, world.scheduler, world.clock, world.now, world.metrics)
    return BoundedSite(api.app.resource(), world.clock, max_connections=3)


def test_there_is_room_for_a_new_one_in_the_place_of_the_longest_idle(
    world: World, site: BoundedSite
) -> None:
    silent, idle, later = (Client(world, site) for _ in range(3))
    idle.send(GET)
    later.send(GET + GET)
    idle.send(GET[:5])
    idle.send(GET[5:])
    assert not silent.dropped
    new = Client(world, site)
    new.send(GET)
    assert new.status() == 200
    # Who asks slowly is let finish rather than who does not ask at all is kept.
    clients = (silent, idle, later, new)
    assert [one.transport.disconnecting for one in clients] == [False, False, True, False]
    # Not before its answers have left.
    assert not later.dropped
    later.hang_up()
    silent.send(GET)
    assert len(silent.answers()) == 1


def test_who_does_not_read_is_dropped_for_a_new_one(world: World, site: BoundedSite) -> None:
    idle, *_ = (Client(world, site) for _ in range(3))
    clogged(idle)
    idle.send(GET)
    Client(world, site)
    assert idle.dropped


def test_then_in_the_place_of_the_slowest(world: World, site: BoundedSite) -> None:
    first, second, third = (Client(world, site) for _ in range(3))
    second.send(GET[:5])
    third.send(put()[:-1])
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


def test_never_in_the_place_of_who_waits_for_an_answer(world: World, site: BoundedSite) -> None:
    page = world.store.page
    waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
    answers = iter(waiting)
    world.store.page = lambda **query: next(answers)
    clients = [Client(world, site) for _ in range(3)]
    for client in clients:
        client.send(GET)
    with pytest.raises(ConnectionRefusedError):
        Client(world, site)
    for answer in waiting:
        answer.callback(world.result(page()))
    assert [client.status() for client in clients] == [200] * 3
    Client(world, site)
    assert [client.transport.disconnecting for client in clients] == [True, False, False]


def test_who_was_refused_is_no_bar_to_others(world: World, site: BoundedSite) -> None:
    clients = [Client(world, site) for _ in range(3)]
    clients[2].send(put(b"/task/x", BODY, b"Origin: null"))
    assert clients[2].status() == 403
    Client(world, site)
    assert [client.dropped for client in clients] == [False, False, True]


def test_those_that_go_have_their_descriptors_until_they_are_gone(
    world: World, site: BoundedSite
) -> None:
    clients = [Client(world, site) for _ in range(3 + EVICTION_HEADROOM)]
    assert [client.dropped for client in clients] == [True] * EVICTION_HEADROOM + [False] * 3
    with pytest.raises(ConnectionRefusedError):
        Client(world, site)
    clients[0].hang_up()
    Client(world, site)


def test_the_log_says_now_and_then_that_it_is_full(world: World, site: BoundedSite) -> None:
    with capturedLogs() as events:
        for _ in range(10):
            Client(world, site)
        world.clock.advance(FULL_LOG_SECONDS)
        Client(world, site)
    said = "3 clients are connected, the maximum: the longest idle are disconnected"
    assert [formatEvent(event) for event in events] == [said, said]


def test_a_fault_outside_the_api_is_answered_in_json(
    client: Client, logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.site, "getResourceFor", lambda request: 1 / 0)
    client.send(GET)
    assert client.status() == 500
    assert logged_failures.flush(ZeroDivisionError) >= 1
