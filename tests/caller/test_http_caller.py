"""Calls to endpoints of every kind, over real sockets on this machine."""

from __future__ import annotations

import gc
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from service_identity import CertificateError, SubjectAltNameWarning, VerificationError
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from twisted.internet import error, reactor, tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.ssl import Certificate
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from callme import __version__
from callme.caller import resolver, tls
from callme.caller.agent import Exchange
from callme.caller.call import Call, HttpCaller
from callme.caller.connection import Connection as CallersConnection
from callme.caller.egress import EgressFilteringReactor, ForbiddenAddress
from callme.caller.failures import describe_failure
from callme.caller.request import idempotency_key
from callme.caller.response import MAX_BODY, STORED_BODY, NotHTTP, Response
from callme.core.task import Claim, ClaimLost, Outcome, Reason
from callme.core.times import Key
from callme.security.address_policy import AddressPolicy, parse_network
from callme.security.signing import SigningKeys
from tests.helpers.certificates import Context, make_certificate
from tests.helpers.credentials import webhook_secret
from tests.helpers.endpoint import OK, Connection, Endpoint, listen, shut
from tests.helpers.tasks import NOON, definition


@pytest_twisted.async_yield_fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    made.port = listen(made)
    yield made
    await shut(made)


@pytest_twisted.async_yield_fixture
async def caller() -> AsyncIterator[HttpCaller]:
    made = HttpCaller(reactor, time.time, 10)
    yield made
    await made.close()


@pytest_twisted.async_yield_fixture
async def patient() -> AsyncIterator[HttpCaller]:
    """A caller whose deadlines are fired by the test."""
    made = HttpCaller(reactor, time.time, 10, clock=Clock())
    yield made
    await made.close()


async def some_turns() -> None:
    """Let the reactor handle the events of sockets, some of which cause others."""
    for _ in range(20):
        await deferLater(reactor, 0.001)


async def expire(caller: HttpCaller, endpoint: Endpoint, seen: int = 0) -> Outcome:
    """Make a call and fire its deadline once the endpoint has written something."""
    clock = caller.clock
    assert isinstance(clock, Clock)
    calling = caller.call(claim(endpoint, timeout=7))
    while not endpoint.requests or endpoint.connections[0].written < seen:
        await deferLater(reactor, 0.001)
    # The bytes need a moment to arrive.
    await some_turns()
    clock.advance(6.9)
    assert not calling.called
    clock.advance(0.1)
    outcome = await calling
    assert outcome.duration_ms == 7000
    await endpoint.connections[0].lost
    assert clock.getDelayedCalls() == []
    return outcome


def claim(endpoint: Endpoint, path: str = "/", **more: Any) -> Claim:
    made = definition(**{"callback": endpoint.url(path), "timeout": 5, **more})
    return Claim(
        task_id=1,
        number=1,
        definition=made,
        attempts_used=1,
        claimed_at_ms=NOON * 1000,
        host="host",
    )


async def call(caller: HttpCaller, endpoint: Endpoint, **more: Any) -> Outcome:
    return await caller.call(claim(endpoint, **more))


async def test_request_has_method_headers_and_body_of_the_task(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    outcome = await call(
        caller,
        endpoint,
        path="/%7Ea//b/../c;x?q=a%20b&&q=\"|`{}^'&=é".replace("é", "%E9") + "#fragment",
        callback_method="patch",
        payload='{"é": 1}',
        headers={"X-Custom": "ünï", "authorization": "Bearer hunter2"},
    )
    assert (outcome.status, outcome.reason, outcome.body) == (200, None, "ok")
    head, _, body = endpoint.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"PATCH /%7Ea//b/../c;x?q=a%20b&&q=\"|`{}^'&=%E9 HTTP/1.1"
    assert body == '{"é": 1}'.encode()
    port = endpoint.port.getHost().port
    assert sorted(headers) == sorted(
        [
            b"Host: localhost:%d" % port,
            b"X-Custom: " + "ünï".encode(),
            b"authorization: Bearer hunter2",
            b"Content-Type: application/json",
            b"Content-Length: 9",
            b"User-Agent: callme/" + __version__.encode(),
            b"Accept-Encoding: identity",
            b'Idempotency-Key: "task@%d.0"' % NOON,
            b"Callme-Attempt: 1",
            b"Callme-Trigger-At: %d" % NOON,
        ]
    )


async def test_payload_in_base64_is_sent_as_bytes(caller: HttpCaller, endpoint: Endpoint) -> None:
    await call(caller, endpoint, callback_method="POST", payload_base64="AP8BgA==")
    head, _, body = endpoint.requests[0].partition(b"\r\n\r\n")
    assert body == b"\x00\xff\x01\x80"
    assert b"\r\nContent-Type: application/octet-stream\r\n" in head


async def test_connection_in_use_is_not_dropped_as_idle() -> None:
    caller = HttpCaller(reactor, time.time, 10, max_idle_connections=1)
    slow, other = Endpoint(), Endpoint()
    slow.port, other.port = listen(slow), listen(other)
    await call(caller, slow)
    asked: Deferred[Connection] = Deferred()
    slow.answer = asked.callback
    calling = caller.call(claim(slow))
    connection = await asked
    await call(caller, other)
    connection.write(OK)
    assert (await calling).status == 200
    assert len(slow.connections) == 1
    await caller.close()
    await shut(slow)
    await shut(other)


async def test_idle_connections_are_limited_across_hosts() -> None:
    caller = HttpCaller(reactor, time.time, 10, max_idle_connections=2)
    endpoints = [Endpoint() for _ in range(4)]
    for endpoint in endpoints:
        endpoint.port = listen(endpoint)
        await call(caller, endpoint)
    # The pool closes the connections that were used longest ago.
    for endpoint in endpoints[:2]:
        await endpoint.connections[0].lost
    await some_turns()
    lost = [endpoint.connections[0].lost.called for endpoint in endpoints]
    assert lost == [True, True, False, False]
    for endpoint in (endpoints[3], endpoints[2], endpoints[0]):
        assert (await call(caller, endpoint)).status == 200
    assert [len(endpoint.connections) for endpoint in endpoints] == [2, 1, 1, 1]
    await caller.close()
    for endpoint in endpoints:
        await shut(endpoint)


async def test_connection_being_dropped_is_not_reused() -> None:
    caller = HttpCaller(reactor, time.time, 10, max_idle_connections=1)
    endpoints = [Endpoint(), Endpoint()]
    for endpoint in endpoints:
        endpoint.port = listen(endpoint)
        await call(caller, endpoint)
    # The first connection is being dropped in favour of the second: the reactor has not run yet.
    outcome = await call(caller, endpoints[0])
    assert (outcome.status, outcome.detail) == (200, "")
    assert [len(endpoint.connections) for endpoint in endpoints] == [2, 1]
    await caller.close()
    for endpoint in endpoints:
        await shut(endpoint)


@pytest.mark.parametrize(
    ("after", "line"),
    [
        ("", b"GET / HTTP/1.1"),
        ("?x=1", b"GET /?x=1 HTTP/1.1"),
        ("#top", b"GET / HTTP/1.1"),
        ("/?x=1?/y#top", b"GET /?x=1?/y HTTP/1.1"),
    ],
)
async def test_url_without_path_requests_slash(
    caller: HttpCaller, endpoint: Endpoint, after: str, line: bytes
) -> None:
    await call(caller, endpoint, path=after)
    assert endpoint.requests[0].startswith(line + b"\r\n")


async def test_get_has_neither_body_nor_content_length(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    await call(caller, endpoint)
    assert b"Content" not in endpoint.requests[0]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", 302, ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 599, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na\0\xff", 200, "a\ufffd\ufffd"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
        ),
    ],
)
async def test_response_status_and_body_are_recorded(
    caller: HttpCaller, endpoint: Endpoint, answer: bytes, status: int, body: str
) -> None:
    endpoint.answer = answer
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.reason, outcome.body) == (status, None, body)
    assert outcome.duration_ms is not None
    assert 0 <= outcome.duration_ms < 5000
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 200 OK\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"],
)
async def test_body_that_ends_early_keeps_its_status(
    caller: HttpCaller, endpoint: Endpoint, answer: bytes
) -> None:
    endpoint.answer = answer
    endpoint.close = True
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.reason, outcome.body) == (200, None, "ok")


async def test_head_that_ends_early_keeps_its_status(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    endpoint.answer, endpoint.close = b"HTTP/1.1 200 OK\r\nContent-Le", True
    assert (await call(caller, endpoint)).status == 200


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda c: c.hang_up(), "closed the connection without a response"),
        (lambda c: c.reset(), "the connection broke before a response came"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 banana OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: banana\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 99999999999999999999999 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 -5 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"HTTQ/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "not HTTP"),
    ],
)
async def test_malformed_response_is_a_failed_connection(
    caller: HttpCaller, endpoint: Endpoint, answer: Any, message: str
) -> None:
    endpoint.answer = answer
    endpoint.close = True
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.reason) == (None, Reason.CONNECTION_FAILED)
    assert any(one in outcome.detail for one in message.split("|")), outcome.detail
    assert len(endpoint.requests) == 1


async def test_connection_of_a_malformed_response_is_closed(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    endpoint.answer = b"SSH-2.0-OpenSSH_9\r\n\r\n"
    await call(caller, endpoint)
    await endpoint.connections[0].lost.addTimeout(60, reactor)


async def test_closed_port_is_a_failed_connection(caller: HttpCaller, endpoint: Endpoint) -> None:
    made = claim(endpoint)
    await maybeDeferred(endpoint.port.stopListening)
    outcome = await caller.call(made)
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert outcome.detail == "the connection was refused"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("nowhere.invalid", "the name of the host was not found"),
        ("x" * 63 + ".invalid", "the name of the host was not found"),
        ("ab--c.invalid", "the name of the host was not found"),
    ],
)
async def test_unknown_host_name_is_a_failed_connection(
    caller: HttpCaller, host: str, message: str
) -> None:
    made = definition(callback=f"http://{host}/", timeout=20)
    outcome = await caller.call(
        Claim(
            task_id=1,
            number=1,
            definition=made,
            attempts_used=1,
            claimed_at_ms=NOON * 1000,
            host="host",
        )
    )
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert outcome.detail == message


@pytest.mark.parametrize(
    "answer",
    [
        lambda c: None,
        lambda c: c.write(b"HTTP/1.1 200"),
        lambda c: c.drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.005),
    ],
)
async def test_deadline_covers_the_response_head(
    patient: HttpCaller, endpoint: Endpoint, answer: Any
) -> None:
    endpoint.answer = answer
    outcome = await expire(patient, endpoint)
    assert (outcome.status, outcome.reason) == (None, Reason.TIMEOUT)
    assert outcome.detail == "no response within 7 s"


async def test_endless_response_head_ends_at_the_deadline(
    patient: HttpCaller, endpoint: Endpoint
) -> None:
    def endless(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\n")
        connection.drip(b"X: y\r\n", 0.005)

    endpoint.answer = endless
    outcome = await expire(patient, endpoint, 50)
    assert (outcome.status, outcome.reason) == (200, None)


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X: " + b"y" * 10_000 + b"\r\n", b" folded\r\n"])
@pytest.mark.parametrize("status", [200, 500])
async def test_endless_response_head_is_cut_off_at_its_limit(
    caller: HttpCaller, endpoint: Endpoint, line: bytes, status: int
) -> None:
    """The status line has arrived, so the call has a status."""
    endpoint.answer = b"HTTP/1.1 %d OK\r\nA: b\r\n" % status + line * (1_000_000 // len(line))
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.reason, outcome.body) == (status, None, "")
    await endpoint.connections[0].lost


async def test_endless_interim_responses_are_no_response(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    endpoint.answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40_000
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.reason) == (None, Reason.CONNECTION_FAILED)
    await endpoint.connections[0].lost


async def test_unsolicited_response_is_not_used(caller: HttpCaller, endpoint: Endpoint) -> None:
    await call(caller, endpoint)
    endpoint.connections[0].write(OK.replace(b"200 OK", b"500 No"))
    await endpoint.connections[0].lost
    assert (await call(caller, endpoint)).status == 200
    assert len(endpoint.connections) == 2


async def test_size_limit_applies_to_each_response(caller: HttpCaller, endpoint: Endpoint) -> None:
    endpoint.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
    for _ in range(10):
        assert (await call(caller, endpoint)).reason is None
    assert len(endpoint.connections) == 1


async def test_deadline_during_the_body_keeps_the_status(
    patient: HttpCaller, endpoint: Endpoint
) -> None:
    def slow(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        connection.drip(b".", 0.005)

    endpoint.answer = slow
    outcome = await expire(patient, endpoint, 50)
    assert (outcome.status, outcome.reason) == (200, None)
    assert outcome.body.startswith("....")


async def test_large_response_body_is_truncated(caller: HttpCaller, endpoint: Endpoint) -> None:
    endpoint.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * (
        MAX_BODY + 5
    )
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.body) == (200, "x" * STORED_BODY)
    await endpoint.connections[0].lost


async def test_connection_is_reused_until_the_endpoint_closes_it(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    for _ in range(3):
        await call(caller, endpoint)
    assert (len(endpoint.requests), len(endpoint.connections)) == (3, 1)
    endpoint.connections[0].hang_up()
    await endpoint.connections[0].lost
    await some_turns()
    await call(caller, endpoint)
    assert (len(endpoint.requests), len(endpoint.connections)) == (4, 2)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_request_is_not_resent_when_a_reused_connection_drops(
    caller: HttpCaller, endpoint: Endpoint, method: str
) -> None:
    await call(caller, endpoint)
    endpoint.answer = lambda connection: connection.hang_up()
    outcome = await call(caller, endpoint, callback_method=method)
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert outcome.detail == "the endpoint closed a connection just as callme used it again"
    assert len(endpoint.requests) == 2


# Reused connections


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nConnection: TE, close\r\n\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\nConnection: CLOSE\r\n\r\n"),
    ],
)
async def test_connection_that_the_response_ends_is_not_reused(
    caller: HttpCaller, endpoint: Endpoint, answer: bytes
) -> None:
    """Its endpoint closes 20 ms later, just as the connection would be used again."""

    def reply(connection: Connection) -> None:
        connection.write(answer)
        reactor.callLater(0.02, connection.hang_up)

    endpoint.answer = reply
    for _ in range(4):
        assert (await call(caller, endpoint, callback_method="POST")).status == 200
    assert len(endpoint.connections) == 4
    for connection in endpoint.connections:
        await connection.lost


@pytest.mark.parametrize(("retry", "used"), [(0, 1), (2, 3)])
async def test_last_attempt_takes_a_new_connection_and_closes_it(
    caller: HttpCaller, endpoint: Endpoint, retry: int, used: int
) -> None:
    await call(caller, endpoint)
    made = claim(endpoint, retry=retry)
    outcome = await caller.call(evolve(made, attempts_used=used))
    assert outcome.status == 200
    assert len(endpoint.connections) == 2
    assert [b"\r\nConnection: close\r\n" in one for one in endpoint.requests] == [False, True]
    await call(caller, endpoint)
    assert len(endpoint.connections) == 2


async def test_stale_connection_is_reported_and_its_host_distrusted(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    """The attempt records it, and connections of that host are not reused for a while."""
    await call(caller, endpoint)
    endpoint.answer = lambda connection: connection.hang_up()
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.stale_connection) == (None, True)
    endpoint.answer = OK
    for _ in range(2):
        outcome = await call(caller, endpoint)
        assert (outcome.status, outcome.stale_connection) == (200, False)
        assert b"\r\nConnection: close\r\n" in endpoint.requests[-1]
    assert len(endpoint.connections) == 3


@pytest.mark.parametrize("answer", [b"H", b"HTTP/1.1 200"])
async def test_connection_closed_within_a_response_is_not_stale(
    caller: HttpCaller, endpoint: Endpoint, answer: bytes
) -> None:
    await call(caller, endpoint)
    endpoint.answer, endpoint.close = answer, True
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.stale_connection) == (None, False)
    endpoint.answer, endpoint.close = lambda connection: connection.hang_up(), False
    # Nor is a new one.
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.stale_connection) == (None, False)


async def test_connection_without_further_calls_is_closed_by_request(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    for _ in range(2):
        outcome = await caller.call(claim(endpoint), lambda host: False)
        assert outcome.status == 200
    assert len(endpoint.connections) == 2
    assert all(b"\r\nConnection: close\r\n" in one for one in endpoint.requests)


async def test_connection_without_further_calls_is_closed_after_its_response(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    waiting = iter([True, False])
    outcome = await caller.call(claim(endpoint), lambda host: next(waiting))
    assert outcome.status == 200
    await endpoint.connections[0].lost
    assert b"\r\nConnection:" not in endpoint.requests[0]


async def test_connection_left_to_the_endpoint_is_closed_in_time(
    endpoint: Endpoint,
) -> None:
    """The endpoint is to close first; one that does not is not waited for."""
    clock = Clock()
    caller = HttpCaller(reactor, time.time, 10, clock=clock)
    await caller.call(claim(endpoint, callback=numeric(endpoint)), lambda host: False)
    await deferLater(reactor, 0.05)
    assert not endpoint.connections[0].lost.called
    clock.advance(1.1)
    await endpoint.connections[0].lost
    assert clock.getDelayedCalls() == []
    await caller.close()


def numeric(endpoint: Endpoint) -> str:
    return endpoint.url().replace("localhost", "127.0.0.1")


async def test_idle_connection_is_closed_in_time(endpoint: Endpoint) -> None:
    clock = Clock()
    caller = HttpCaller(reactor, time.time, 10, clock=clock)
    await call(caller, endpoint, callback=numeric(endpoint))
    clock.advance(0.9)
    await call(caller, endpoint, callback=numeric(endpoint))
    clock.advance(0.9)
    await deferLater(reactor, 0.02)
    assert not endpoint.connections[0].lost.called
    clock.advance(0.3)
    await endpoint.connections[0].lost
    assert clock.getDelayedCalls() == []
    await caller.close()


# Unsolicited, early and late data


async def test_second_response_is_not_taken_for_the_next_call(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    endpoint.answer = OK + OK.replace(b"200 OK", b"500 No")
    for _ in range(3):
        assert (await call(caller, endpoint)).status == 200
    assert len(endpoint.connections) == 3


async def test_data_on_an_idle_connection_prevents_its_reuse(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    """Though the reactor has not turned since."""
    await call(caller, endpoint)
    transport: Any = endpoint.connections[0].transport
    transport.socket.send(OK.replace(b"200 OK", b"500 No"))
    assert (await call(caller, endpoint)).status == 200
    assert len(endpoint.connections) == 2


async def test_data_before_the_request_is_no_response(
    caller: HttpCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint()
    monkeypatch.setattr(Connection, "connectionMade", eager)
    endpoint.port = listen(endpoint)
    # It is accepted, and has spoken, before the caller's side is looked at.
    monkeypatch.setattr(CallersConnection, "connectionMade", slow(CallersConnection.connectionMade))
    outcome = await call(caller, endpoint)
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert outcome.detail == "the endpoint sent data before it was sent a request"
    assert endpoint.requests == []
    await shut(endpoint)


def eager(connection: Connection) -> None:
    connection.endpoint.connections.append(connection)
    connection.write(OK)


def slow(made: Callable[[CallersConnection], None]) -> Callable[[CallersConnection], None]:
    def connection_made(self: CallersConnection) -> None:
        made(self)
        # As if this side took a while to learn that it is connected.
        transport: Any = self.transport
        deadline = time.monotonic() + 5
        for reader in reactor.getReaders():
            if isinstance(reader, tcp.Port) and reader.getHost().port == self.origin.port:
                reader.doRead()
        while self.unread() is None and time.monotonic() < deadline:
            for writer in reactor.getWriters():
                if isinstance(writer, tcp.Server) and writer is not transport:
                    writer.doWrite()

    return connection_made


@pytest.mark.parametrize("secure", [False, True])
async def test_response_before_the_payload_is_read_counts(secure: bool) -> None:
    """The endpoint responds and closes; the system resets the connection because of unread data."""
    endpoint, pem = await secure_endpoint("localhost") if secure else (Endpoint(), b"")
    if not secure:
        endpoint.port = listen(endpoint)
    caller = HttpCaller(reactor, time.time, 99, authority(pem) if secure else None)

    def reply(connection: Connection, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            transport: Any = connection.transport
            transport.pauseProducing()
            connection.write(OK)
            connection.hang_up()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Connection, "dataReceived", reply)
        made = claim(endpoint, callback_method="POST", payload="x" * 200_000, retry=0)
        outcomes = [await caller.call(made) for _ in range(75)]
    assert {(outcome.status, outcome.detail) for outcome in outcomes} == {(200, "")}
    await caller.close()
    await shut(endpoint)


async def test_response_that_has_arrived_counts_when_a_write_fails(
    endpoint: Endpoint, caller: HttpCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twisted would drop the connection, and with it the data that has not been read."""
    arrived: Deferred[Connection] = Deferred()
    monkeypatch.setattr(Connection, "dataReceived", lambda self, _: at_once(arrived, self))
    made = claim(endpoint, callback_method="POST")
    # More than the system takes at once.
    large = made.definition._replace(payload="x" * 20_000_000)
    calling = caller.call(evolve(made, definition=large))
    connection = await arrived
    transport: Any = connection.transport
    transport.pauseProducing()
    await deferLater(reactor, 0.05)
    # In one go, so that the caller's reactor learns of the answer and of the end together.
    transport.socket.send(OK)
    transport.socket.close()
    for writer in reactor.getWriters():
        if isinstance(writer, tcp.Client):
            failure = writer.doWrite()
            assert failure is not None
            # As the reactor does then, which has not looked for what is to be read.
            reactor.removeReader(writer)
            reactor.removeWriter(writer)
            writer.connectionLost(Failure(failure))
    assert (await calling).status == 200


def at_once(arrived: Deferred[Connection], connection: Connection) -> None:
    if not arrived.called:
        arrived.callback(connection)


async def test_connection_of_a_large_payload_is_not_reused(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    for _ in range(2):
        await call(caller, endpoint, callback_method="POST", payload="x" * 20_000)
    assert len(endpoint.connections) == 2


async def test_connection_with_an_unread_payload_is_closed_in_time(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint responds, and neither reads on nor closes."""
    clock = Clock()
    caller = HttpCaller(reactor, time.time, 10, clock=clock)
    responded: Deferred[Connection] = Deferred()

    def reply(connection: Connection, _: bytes) -> None:
        if not responded.called:
            responded.callback(connection)

    monkeypatch.setattr(Connection, "dataReceived", reply)
    made = claim(endpoint, callback_method="POST", callback=numeric(endpoint))
    large = made.definition._replace(payload="x" * 20_000_000)
    calling = caller.call(evolve(made, definition=large))
    connection = await responded
    transport: Any = connection.transport
    transport.pauseProducing()
    connection.write(OK)
    assert (await calling).status == 200
    clock.advance(1.1)
    await deferLater(reactor, 0.05)
    transport.resumeProducing()
    await connection.lost
    await caller.close()


@pytest.mark.parametrize(
    "answer", [OK, b"SSH-2.0-x\r\n", lambda c: c.hang_up(), b"HTTP/1.1 200 OK\r\n\r\nx"]
)
async def test_call_leaves_nothing_behind(
    caller: HttpCaller, endpoint: Endpoint, answer: Any
) -> None:
    """Not even for the garbage collector, which looks for cycles seldom."""
    endpoint.answer = answer
    endpoint.close = True
    await call(caller, endpoint)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await call(caller, endpoint)
        await some_turns()
        left = [one for one in gc.get_objects() if type(one) in (Call, Exchange, Response)]
        assert left == []
    finally:
        gc.enable()


async def test_tcp_keepalive_is_enabled(
    caller: HttpCaller, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = CallersConnection.serve

    def serve(self: CallersConnection, request: Any) -> None:
        made.append(self)
        real(self, request)

    monkeypatch.setattr(CallersConnection, "serve", serve)
    await call(caller, endpoint)
    handle = made[0].transport.getHandle()
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("host", ["qa--site.test", "xn--i-7iq.test", "my_service", "MY-Host.test"])
async def test_unusual_host_name_is_called_if_it_resolves(endpoint: Endpoint, host: str) -> None:
    caller = confined({host.lower(): ["127.0.0.1"]})
    made = claim_of(endpoint, host)
    assert (await caller.call(made)).status == 200
    assert b"\r\nHost: %b:" % host.encode() in endpoint.requests[0]
    await caller.close()


async def test_cookies_are_not_stored(caller: HttpCaller, endpoint: Endpoint) -> None:
    endpoint.answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
    await call(caller, endpoint)
    await call(caller, endpoint, headers={"Cookie": "own=1"})
    assert b"Cookie" not in endpoint.requests[0]
    assert b"\r\nCookie: own=1\r\n" in endpoint.requests[1]


@pytest.mark.parametrize(
    ("value", "after"),
    [
        (b"120", 120),
        (b"9\r\nRetry-After: 120", 120),
        (b"Fri, 15 Jan 2100 12:00:00 GMT", None),
        (b"x", 0),
        (b"\xff", 0),
    ],
)
async def test_retry_after_header_is_parsed(
    caller: HttpCaller, endpoint: Endpoint, value: bytes, after: int | None
) -> None:
    head = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + value
    endpoint.answer = head + b"\r\n\r\n"
    before = time.time()
    outcome = await call(caller, endpoint)
    if after is None:
        assert outcome.retry_after == 4_103_697_600
    elif after:
        assert outcome.retry_after is not None
        assert before + 119 < outcome.retry_after < time.time() + 121
    else:
        assert outcome.retry_after is None


async def test_cancelled_call_closes_its_connection(caller: HttpCaller, endpoint: Endpoint) -> None:
    arrived: Deferred[None] = Deferred()
    endpoint.answer = lambda connection: arrived.callback(None)
    calling = caller.call(claim(endpoint))
    await arrived
    calling.cancel()
    await endpoint.connections[0].lost
    await calling.addErrback(lambda _: None)


async def test_cancelled_call_keeps_a_status_that_has_arrived(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    arrived: Deferred[None] = Deferred()

    def begin(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        reactor.callLater(0.05, arrived.callback, None)

    endpoint.answer = begin
    calling = caller.call(claim(endpoint))
    await arrived
    calling.cancel()
    outcome = await calling
    assert (outcome.status, outcome.reason, outcome.body) == (200, None, "ab")
    await endpoint.connections[0].lost


async def test_request_is_not_sent_after_max_delay(endpoint: Endpoint) -> None:
    """Connecting took longer than max_delay."""
    made = claim(endpoint, max_delay=1)
    moments = iter([NOON + 59.0, NOON + 60.0])
    caller = HttpCaller(reactor, lambda: next(moments), 10)
    outcome = await caller.call(made)
    assert (outcome.reason, outcome.status) == (Reason.TOO_LATE, None)
    assert outcome.started_at_ms == (NOON + 60) * 1000
    assert endpoint.requests == []
    await endpoint.connections[0].lost
    await caller.close()


async def lose_claim(caller: HttpCaller, endpoint: Endpoint) -> None:
    """Make a call whose daemon loses its claim before the request."""
    with pytest.raises(ClaimLost):
        await caller.call(claim(endpoint), keeps_claim=lambda: False)


async def test_request_is_not_sent_if_another_daemon_may_have_the_claim(
    endpoint: Endpoint,
) -> None:
    clock = Clock()
    caller = HttpCaller(reactor, time.time, 10, clock=clock)
    await lose_claim(caller, endpoint)
    await endpoint.connections[0].lost
    assert endpoint.requests == []
    assert clock.getDelayedCalls() == []
    await caller.close()


async def test_kept_connection_is_not_used_if_another_daemon_may_have_the_claim(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    assert (await call(caller, endpoint)).status == 200
    await lose_claim(caller, endpoint)
    assert len(endpoint.requests) == len(endpoint.connections) == 1
    assert (await call(caller, endpoint)).status == 200


async def test_attempt_starts_when_its_connection_is_established(endpoint: Endpoint) -> None:
    moments = iter([NOON + 1.0, NOON + 3.0])
    caller = HttpCaller(reactor, lambda: next(moments), 10)
    assert (await caller.call(claim(endpoint))).started_at_ms == (NOON + 3) * 1000
    await caller.close()


async def test_ipv6_and_numeric_hosts_are_called(caller: HttpCaller, endpoint: Endpoint) -> None:
    port = endpoint.port.getHost().port
    made = definition(callback=f"http://127.0.0.1:{port}/")
    assert (
        await caller.call(
            Claim(task_id=1, number=1, definition=made, attempts_used=1, claimed_at_ms=0, host="h")
        )
    ).status == 200
    made = definition(callback="http://[::1]:1/")
    outcome = await caller.call(
        Claim(task_id=1, number=1, definition=made, attempts_used=1, claimed_at_ms=0, host="h")
    )
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert "refused" in outcome.detail or "no" in outcome.detail


async def test_invalid_stored_callback_is_a_failed_outcome(
    caller: HttpCaller, endpoint: Endpoint
) -> None:
    """Another program may have written such a callback into the database."""
    for callback, method in [("mailto:x", "GET"), ("http://é/", "GET"), ("http://a/", "G\r\nT")]:
        made = claim(endpoint)
        broken = made.definition._replace(callback=callback, callback_method=method)
        outcome = await caller.call(evolve(made, definition=broken))
        assert outcome.reason is Reason.CONNECTION_FAILED
        assert outcome.detail.startswith("the ")


# Allowed addresses


def confined(names: dict[str, list[str]], deny: str = "", **more: Any) -> HttpCaller:
    """Return a caller that denies some networks beside those denied by default."""
    networks = AddressPolicy(denied=[parse_network(one) for one in deny.split()])
    return HttpCaller(
        reactor, time.time, 10, networks=networks, lookup=lambda name: names[name], **more
    )


def claim_of(endpoint: Endpoint, host: str) -> Claim:
    port = endpoint.port.getHost().port
    return claim(endpoint, callback=f"{endpoint.scheme}://{host}:{port}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
async def test_host_name_of_a_denied_address_is_not_called(
    endpoint: Endpoint, address: str, scheme: str
) -> None:
    endpoint.scheme = scheme
    caller = confined({"rebound.example": [address]}, "127.0.0.0/8")
    outcome = await caller.call(claim_of(endpoint, "rebound.example"))
    assert (outcome.status, outcome.reason) == (None, Reason.FORBIDDEN_ADDRESS)
    assert outcome.detail.startswith(address)
    assert outcome.detail.endswith(
        "must not be called: it is in 127.0.0.0/8, which --deny-network denies"
    )
    assert endpoint.connections == []
    await caller.close()


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1"])
async def test_stored_address_is_checked_when_it_is_called(endpoint: Endpoint, host: str) -> None:
    """The address rules may have changed since the task was put."""
    made = claim_of(endpoint, "localhost")
    there = evolve(
        made,
        definition=made.definition._replace(
            callback=made.definition.callback.replace("localhost", host)
        ),
    )
    free = HttpCaller(reactor, time.time, 10)
    assert (await free.call(there)).status == 200
    caller = HttpCaller(
        reactor, time.time, 10, networks=AddressPolicy(denied=[parse_network("127.0.0.0/8")])
    )
    outcome = await caller.call(there)
    assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    assert outcome.detail.startswith("127.0.0.1 must not be called")
    assert len(endpoint.requests) == 1
    await free.close()
    await caller.close()


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[::]", "0.0.0.0"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_numeric_address_is_checked_without_a_lookup(
    endpoint: Endpoint, host: str, scheme: str
) -> None:
    made = claim(endpoint, callback=f"{scheme}://{host}:{endpoint.port.getHost().port}/")
    caller = confined({}, "127.0.0.0/8 ::1")
    outcome = await caller.call(made)
    assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    assert "which leads to" in outcome.detail or host == "[::ffff:127.0.0.1]"
    assert endpoint.connections == []
    await caller.close()


async def test_allowed_addresses_of_a_host_are_called(endpoint: Endpoint) -> None:
    names = {"mixed.example": ["169.254.169.254", "fe80::1", "127.0.0.1", "100.100.100.200"]}
    caller = confined(names)
    outcome = await caller.call(claim_of(endpoint, "mixed.example"))
    assert (outcome.status, outcome.detail) == (200, "")
    await caller.close()


async def test_host_with_denied_addresses_only_reports_the_first(
    endpoint: Endpoint,
) -> None:
    caller = confined({"evil.example": ["169.254.169.254", "::1"]}, "::1/128")
    outcome = await caller.call(claim_of(endpoint, "evil.example"))
    assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    assert outcome.detail.startswith("169.254.169.254 must not be called")
    await caller.close()


async def test_refused_connection_is_not_reported_as_forbidden(endpoint: Endpoint) -> None:
    made = claim_of(endpoint, "mixed.example")
    await maybeDeferred(endpoint.port.stopListening)
    caller = confined({"mixed.example": ["127.0.0.1", "169.254.169.254"]})
    outcome = await caller.call(made)
    assert (outcome.reason, outcome.detail) == (
        Reason.CONNECTION_FAILED,
        "the connection was refused",
    )
    await caller.close()


async def test_changed_address_of_a_host_is_checked_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "TTL_SECONDS", 0)
    names = {"rebound.example": ["127.0.0.1"]}
    caller = confined(names)
    # The endpoint closes each connection: the next call needs a new one.
    endpoint.answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (await caller.call(claim_of(endpoint, "rebound.example"))).status == 200
    names["rebound.example"] = ["169.254.169.254"]
    outcome = await caller.call(claim_of(endpoint, "rebound.example"))
    assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    await caller.close()


def test_reactor_connects_to_allowed_addresses_only() -> None:
    """Every connection passes through this reactor, however its address was found."""
    reached: list[str] = []

    class Reactor(Clock):
        def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> None:
            reached.append(host)

    made = EgressFilteringReactor(Reactor(), AddressPolicy())
    made.connectTCP("127.0.0.1", 80, None)
    for host in ("169.254.169.254", "::ffff:169.254.169.254", "localhost", "127.1"):
        with pytest.raises(ForbiddenAddress):
            made.connectTCP(host, 80, None)
    assert reached == ["127.0.0.1"]


# Signatures


def headers_of(request: bytes) -> dict[str, str]:
    head = request.partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


@pytest.mark.parametrize("payload", ["", '{"é": 1}', "plain"])
async def test_signature_is_verified_by_the_standard_webhooks_library(
    endpoint: Endpoint, payload: str
) -> None:
    keys = SigningKeys.parse(f"{webhook_secret('a')}\n{webhook_secret('b')}")
    caller = HttpCaller(reactor, time.time, 10, keys=lambda: keys)
    made = claim(endpoint, payload=payload, callback_method="POST")
    for number in (1, 2):
        # The second call uses the same connection.
        await caller.call(evolve(made, number=number))
    for request in endpoint.requests:
        headers, body = headers_of(request), request.partition(b"\r\n\r\n")[2]
        assert body == payload.encode()
        for letter in "ab":
            Webhook(webhook_secret(letter)).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook_secret("c")).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook_secret("a")).verify(body + b" ", headers, json_parse=False)
    first, second = (headers_of(request) for request in endpoint.requests)
    assert first["Webhook-Id"] == second["Webhook-Id"] == f"task@{NOON}.0"
    assert (first["Callme-Attempt"], second["Callme-Attempt"]) == ("1", "2")
    assert len(endpoint.connections) == 1
    await caller.close()


async def test_signed_timestamp_is_when_the_request_starts(endpoint: Endpoint) -> None:
    """A slow connection must not age the signature: verifiers allow five minutes."""
    moments = iter([NOON + 1.0, NOON + 301.9])
    keys = SigningKeys.parse(webhook_secret("a"))
    caller = HttpCaller(reactor, lambda: next(moments), 10, keys=lambda: keys)
    outcome = await caller.call(claim(endpoint))
    assert outcome.started_at_ms == (NOON + 301.9) * 1000
    headers = headers_of(endpoint.requests[0])
    assert headers["Webhook-Timestamp"] == str(NOON + 301)
    identifier = idempotency_key(Key("task", NOON), 0)
    assert headers.items() >= dict(keys.headers(identifier, NOON + 301, b"")).items()
    await caller.close()


async def test_changed_keys_sign_the_next_call(endpoint: Endpoint) -> None:
    keys = [SigningKeys.parse(webhook_secret("a"))]
    caller = HttpCaller(reactor, time.time, 10, keys=lambda: keys[0])
    await call(caller, endpoint)
    keys[0] = SigningKeys.parse(webhook_secret("b"))
    await call(caller, endpoint)
    for letter, request in zip("ab", endpoint.requests, strict=True):
        Webhook(webhook_secret(letter)).verify(b"", headers_of(request), json_parse=False)
    await caller.close()


async def test_call_without_keys_is_not_signed(caller: HttpCaller, endpoint: Endpoint) -> None:
    await call(caller, endpoint)
    assert b"webhook" not in endpoint.requests[0].lower()


# TLS


def authority(pem: bytes) -> Certificate:
    """Return a trust root with one certificate."""
    return Certificate.loadPEM(pem)


async def secure_endpoint(name: str, **more: Any) -> tuple[Endpoint, bytes]:
    key, made = make_certificate(name, **more)
    endpoint = Endpoint(scheme="https")
    endpoint.port = listen(endpoint, Context(key, made))
    return endpoint, made.public_bytes(serialization.Encoding.PEM)


async def test_https_endpoint_is_called() -> None:
    endpoint, pem = await secure_endpoint("localhost")
    caller = HttpCaller(reactor, time.time, 10, authority(pem))
    outcome = await call(caller, endpoint)
    assert (outcome.status, outcome.body) == (200, "ok")
    await caller.close()
    await shut(endpoint)


@pytest.mark.parametrize(
    ("made", "trusted", "message"),
    [
        ({}, False, "the certificate is self-signed"),
        ({"name": "other.example"}, True, "the certificate is for another host"),
        (
            {"names": []},
            True,
            "the certificate is for another host: it has no valid subjectAltName",
        ),
        (
            {"names": [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]},
            True,
            "the certificate is for another host",
        ),
        ({"days": (-2, -1)}, True, "the certificate has expired"),
        ({"days": (1, 2)}, True, "the certificate is not valid yet"),
    ],
)
async def test_tls_failure_is_explained(made: dict[str, Any], trusted: bool, message: str) -> None:
    endpoint, pem = await secure_endpoint(**{"name": "localhost", **made})
    caller = HttpCaller(reactor, time.time, 10, authority(pem) if trusted else None)
    outcome = await call(caller, endpoint)
    assert (outcome.reason, outcome.detail) == (Reason.CONNECTION_FAILED, message)
    assert not outcome.stale_connection
    assert endpoint.requests == []
    await caller.close()
    await shut(endpoint)


@pytest.mark.parametrize("trusts_other", [False, True])
async def test_certificate_of_an_unknown_issuer_is_refused(trusts_other: bool) -> None:
    issuer = make_certificate("authority", names=[], is_authority=True)
    other = make_certificate("another authority", names=[], is_authority=True)
    endpoint, _ = await secure_endpoint("localhost", issuer=issuer)
    pem = (other if trusts_other else issuer)[1].public_bytes(serialization.Encoding.PEM)
    caller = HttpCaller(reactor, time.time, 10, authority(pem))
    outcome = await call(caller, endpoint)
    if trusts_other:
        assert outcome.detail.startswith("the issuer of the certificate is unknown")
        assert endpoint.requests == []
    else:
        assert outcome.status == 200
    await caller.close()
    await shut(endpoint)


@pytest.mark.parametrize(
    "failure",
    [
        VerificationError(errors=[]),
        CertificateError("x"),
        SubjectAltNameWarning("x"),
        ValueError("x"),
        AttributeError("x"),
        SSL.Error([]),
        type("Unheard", (Exception,), {})(),
    ],
)
async def test_any_error_of_the_name_check_refuses_the_call(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """No byte of the request has left: the name is checked before, and not only by OpenSSL."""
    endpoint, pem = await secure_endpoint("localhost")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(tls, "verify_hostname", fail)
    caller = HttpCaller(reactor, time.time, 10, authority(pem))
    for _ in range(2):
        outcome = await call(caller, endpoint)
        assert (outcome.status, outcome.reason) == (None, Reason.CONNECTION_FAILED)
        assert outcome.detail.startswith("the certificate ")
    assert [connection.buffer for connection in endpoint.connections] == [b"", b""]
    await caller.close()
    await shut(endpoint)


async def test_certificate_without_the_address_is_refused() -> None:
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    for names, status in (([address], 200), ([x509.DNSName("127.0.0.1")], None)):
        endpoint, pem = await secure_endpoint("localhost", names=names)
        caller = HttpCaller(reactor, time.time, 10, authority(pem))
        outcome = await call(caller, endpoint, callback=numeric(endpoint))
        assert outcome.status == status
        assert status or outcome.detail.startswith("the certificate is for another host")
        await caller.close()
        await shut(endpoint)


@pytest.mark.parametrize(
    ("host", "server_name"),
    [
        ("qa--site.test", b"qa--site.test"),
        ("my_service", b"my_service"),
        ("Mixed.Test.", b"mixed.test"),
        ("xn--i-7iq.test", b"xn--i-7iq.test"),
        ("127.0.0.1", None),
    ],
)
async def test_server_name_is_sent_unless_it_is_an_address(
    host: str, server_name: bytes | None
) -> None:
    """RFC 6066, section 3."""
    name = host.lower().rstrip(".")
    names: list[Any] = [x509.DNSName(name)]
    if server_name is None:
        names = [x509.IPAddress(ipaddress.ip_address(host))]
    key, made = make_certificate(name, names=names)
    context = Context(key, made)
    heard: list[bytes | None] = []
    context.context.set_tlsext_servername_callback(lambda c: heard.append(c.get_servername()))
    endpoint = Endpoint(scheme="https")
    endpoint.port = listen(endpoint, context)
    pem = made.public_bytes(serialization.Encoding.PEM)
    caller = HttpCaller(
        reactor,
        time.time,
        10,
        authority(pem),
        lookup=lambda asked: {host.lower(): ["127.0.0.1"]}[asked],
    )
    outcome = await caller.call(claim_of(endpoint, host))
    assert (outcome.status, outcome.detail) == (200, "")
    assert heard == [server_name]
    await caller.close()
    await shut(endpoint)


async def test_tls_connections_are_reused() -> None:
    endpoint, pem = await secure_endpoint("localhost")
    caller = HttpCaller(reactor, time.time, 10, authority(pem))
    for _ in range(3):
        assert (await call(caller, endpoint)).status == 200
    assert len(endpoint.connections) == 1
    endpoint.connections[0].hang_up()
    await endpoint.connections[0].lost
    await some_turns()
    assert (await caller.call(claim(endpoint), lambda host: False)).status == 200
    assert len(endpoint.connections) == 2
    await caller.close()
    await shut(endpoint)


async def test_claim_that_is_lost_during_the_tls_handshake_leads_to_no_request() -> None:
    endpoint, pem = await secure_endpoint("localhost")
    caller = HttpCaller(reactor, time.time, 10, authority(pem))
    await lose_claim(caller, endpoint)
    await endpoint.connections[0].lost
    assert endpoint.requests == []
    await caller.close()
    await shut(endpoint)


async def test_https_to_a_plain_http_endpoint_fails(caller: HttpCaller, endpoint: Endpoint) -> None:
    endpoint.scheme = "https"
    calling = caller.call(claim(endpoint))
    while not endpoint.connections:
        await deferLater(reactor, 0.001)
    endpoint.connections[0].write(b"220 mail.example ESMTP\r\n")
    outcome = await calling
    assert outcome.reason is Reason.CONNECTION_FAILED
    assert "TLS handshake failed" in outcome.detail


async def test_hanging_tls_handshake_ends_at_the_deadline() -> None:
    endpoint, pem = await secure_endpoint("localhost")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
    endpoint.answer = answer
    caller = HttpCaller(reactor, time.time, 10, authority(pem), Clock())
    outcome = await expire(caller, endpoint, len(answer))
    assert (outcome.status, outcome.body) == (200, "ab")
    await caller.close()
    await shut(endpoint)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (error.ConnectionRefusedError(), "the connection was refused"),
        (error.NoRouteError(), "there is no route to the host"),
        (error.TimeoutError(), "the host did not accept a connection in time"),
        (error.ConnectError("x"), "no connection could be made"),
        (SSL.Error([("lib", "f", "unsafe")]), "the TLS handshake failed: unsafe"),
        (SSL.Error(), "the TLS handshake failed: no reason given"),
        (ValueError("secret"), "the call failed: ValueError"),
        (NotHTTP(), "the endpoint's response is not HTTP"),
    ],
)
def test_failure_is_explained_in_words(failure: Exception, message: str) -> None:
    assert describe_failure(failure) == message
