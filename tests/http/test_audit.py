"""The audit log, and the identifiers of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from callme.process.log_limit import LINES_PER_SECOND
from callme.security.proxies import TrustedProxies, parse_proxy_network
from callme.server.auth import Gate
from callme.server.site import BoundedSite
from tests.helpers.credentials import gate_for
from tests.helpers.raw_client import Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World

TOKEN = b"a-token-of-operations"
LATER = NOON + 3600
TASK = {"trigger_at": str(LATER), "callback": "http://example.com/"}


@pytest.fixture
def client(world: World, tmp_path: Path) -> Client:
    gate = gate_for(tmp_path, f"{TOKEN.decode()} ops")
    return Client(world, BoundedSite(world.parts.site.resource, world.clock, gate))


def ask(client: Client, method: bytes, path: bytes, body: Any = None) -> list[str]:
    """Send a request; return the log lines that it causes."""
    data = b"" if body is None else json.dumps(body).encode()
    headers = [
        b"Authorization: Bearer " + TOKEN,
        b"X-Request-Id: r-1",
        b"Content-Length: %d" % len(data),
    ]
    with capturedLogs() as events:
        client.send(head(method, path, *headers) + data)
        client.world.clock.pump([0.0] * 50)
    return [str(formatEvent(event)) for event in events]


def test_each_change_is_logged_with_its_author_and_request(client: Client) -> None:
    key = f"x@{LATER}"
    assert ask(client, b"PUT", b"/task/x", TASK) == [f'ops created "{key}", request r-1']
    assert ask(client, b"PUT", b"/task/x", TASK) == []
    lines = ask(client, b"POST", b"/reschedule/x?all=true", {"trigger_at": str(LATER + 60)})
    assert lines == [f'ops rescheduled "{key}" to {LATER + 60}, request r-1']
    assert ask(client, b"DELETE", f"/task/x@{LATER + 60}".encode()) == [
        f'ops deleted "x@{LATER + 60}", request r-1'
    ]
    assert ask(client, b"DELETE", b"/task/x") == []


def test_acknowledgement_is_logged(client: Client) -> None:
    form = b"until_ms=%d" % (NOON * 1000)
    kind = b"Content-Type: application/x-www-form-urlencoded"
    authorization = b"Authorization: Bearer " + TOKEN
    length = b"Content-Length: %d" % len(form)
    request = head(b"POST", b"/page/acknowledge", authorization, kind, length, b"X-Request-Id: r-2")
    with capturedLogs() as events:
        client.send(request + form)
    assert [str(formatEvent(event)) for event in events] == [
        "ops acknowledged the failures until 2027-01-15T12:00:00.000Z, request r-2"
    ]


def test_replacement_is_logged_as_replacement(world: World) -> None:
    client = Client(world, BoundedSite(world.parts.site.resource, world.clock))
    for retry, verb in ((1, "created"), (2, "replaced")):
        data = json.dumps({**TASK, "retry": retry}).encode()
        with capturedLogs() as events:
            client.send(
                head(
                    b"PUT",
                    b"/task/x",
                    *([b"If-Match: *"] if verb == "replaced" else []),
                    b"X-Request-Id: abc",
                    b"Content-Length: %d" % len(data),
                )
                + data
            )
        (line,) = [str(formatEvent(event)) for event in events]
        assert line == f'192.168.1.1 {verb} "x@{LATER}", request abc'


def test_many_puts_in_a_second_get_one_line_for_all_beyond_the_limit(client: Client) -> None:
    batch = [{**TASK, "task_name": f"n{number}"} for number in range(LINES_PER_SECOND + 7)]
    lines = ask(client, b"POST", b"/batch", batch)
    assert len(lines) == LINES_PER_SECOND
    client.world.clock.advance(1)
    assert ask(client, b"PUT", b"/task/last", TASK) == [
        "ops created 7 more tasks in that second",
        f'ops created "last@{LATER}", request r-1',
    ]


def test_omitted_changes_are_logged_when_the_daemon_stops(client: Client) -> None:
    batch = [{**TASK, "task_name": f"n{number}"} for number in range(LINES_PER_SECOND + 7)]
    ask(client, b"POST", b"/batch", batch)
    with capturedLogs() as events:
        client.world.parts.audit.flush()
    assert [formatEvent(event) for event in events] == ["ops created 7 more tasks in that second"]


def test_change_of_a_host_is_logged_with_its_settings(client: Client) -> None:
    path = b"/hosts/example.com:443"
    settings = {"paused": True, "max_per_minute": 10}
    (line,) = ask(client, b"PUT", path, settings)
    assert line.startswith('ops set the host "example.com:443" to ')
    assert "paused=True" in line
    assert "max_per_minute=10" in line
    assert line.endswith(", request r-1")
    assert ask(client, b"DELETE", path) == [
        'ops set the host "example.com:443" to the defaults, request r-1'
    ]


@pytest.mark.parametrize("given", [b"7f3a", b"a/b=c", b"x" * 128])
def test_request_id_of_the_client_is_sent_back(client: Client, given: bytes) -> None:
    client.send(head(b"GET", b"/healthz", b"X-Request-Id: " + given))
    assert b"\r\nX-Request-Id: " + given + b"\r\n" in client.transport.value()


@pytest.mark.parametrize("given", [[], [b""], [b"x" * 129], [b"a b"]])
def test_request_without_a_usable_id_gets_one(client: Client, given: list[bytes]) -> None:
    found = set()
    for _ in range(3):
        client.send(head(b"GET", b"/nowhere", *(b"X-Request-Id: " + one for one in given)))
        sent = client.transport.value().partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0]
        client.transport.clear()
        assert len(sent) == 16
        found.add(sent)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("trusted", "author"),
    [
        (["192.168.1.1"], "198.51.100.7"),
        # Another address than the proxy's, and none.
        (["192.168.1.2"], "192.168.1.1"),
        ([], "192.168.1.1"),
    ],
)
@pytest.mark.parametrize(
    "header", [b"X-Forwarded-For: 198.51.100.7", b"Forwarded: for=198.51.100.7;proto=https"]
)
def test_author_behind_a_proxy_is_the_client_if_the_proxy_is_trusted(
    world: World, trusted: list[str], author: str, header: bytes
) -> None:
    proxies = TrustedProxies(networks=[parse_proxy_network(text) for text in trusted])
    site = BoundedSite(world.parts.site.resource, world.clock, Gate(proxies=proxies))
    data = json.dumps(TASK).encode()
    headers = [header, b"X-Request-Id: abc"]
    with capturedLogs() as events:
        request = head(b"PUT", b"/task/x", *headers, b"Content-Length: %d" % len(data))
        Client(world, site).send(request + data)
    (line,) = [str(formatEvent(event)) for event in events]
    assert line == f'{author} created "x@{LATER}", request abc'
