"""Both clients over a fake transport: results, errors, repetitions, pages and waits."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from callme.client import (
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    ProblemError,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)

URL = "http://callme.test:6777"
TASK = {"task": "a@1858809600", "state": "scheduled"}
Reply = tuple[int, object] | tuple[int, object, dict[str, str]] | Exception


class FakeDaemon:
    """A server that gives prepared responses in order, the last one again and again."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.requests: list[httpx.Request] = []
        self.delays: list[float] = []

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        status, body, *headers = reply
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, content=content, headers=headers[0] if headers else None)

    def client(self, token: str | None = None) -> Client:
        transport = httpx.MockTransport(self.respond)
        return Client(URL, token, transport=transport, sleep=self.delays.append)

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    def run(self, use: Callable[[AsyncClient], Any]) -> Any:
        async def main() -> Any:
            transport = httpx.MockTransport(self.respond)
            async with AsyncClient(URL, transport=transport, sleep=self.sleep) as client:
                return await use(client)

        return asyncio.run(main())


def test_put_sends_the_definition_and_the_token() -> None:
    daemon = FakeDaemon((201, TASK))
    with daemon.client("secret") as client:
        task = client.put("a", at="2028-11-26T00:00Z", callback="http://e/", json={"n": 1}, retry=3)
    (request,) = daemon.requests
    assert task["task"] == "a@1858809600"
    assert (request.method, request.url.path) == ("PUT", "/task/")
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.content) == {
        "task_name": "a",
        "trigger_at": "2028-11-26T00:00Z",
        "callback": "http://e/",
        "callback_method": "POST",
        "payload": {"n": 1},
        "retry": 3,
    }


@pytest.mark.parametrize(
    ("given", "header"),
    [({"replace": True}, "if-match"), ({"create": True}, "if-none-match")],
)
def test_condition_is_a_header(given: Any, header: str) -> None:
    daemon = FakeDaemon((201, TASK))
    with daemon.client() as client:
        client.put("a", at=60, callback="http://e/", **given)
    assert daemon.requests[0].headers[header] == "*"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (422, InvalidRequest),
        (431, ProblemError),
        (500, Unavailable),
    ],
)
def test_error_carries_the_problem(status: int, kind: type[ProblemError]) -> None:
    problem = {
        "title": "Wrong",
        "status": status,
        "detail": "retry: -1 is not accepted",
        "errors": [{"pointer": "/retry", "detail": "-1 is not accepted"}],
        "task": TASK,
    }
    with FakeDaemon((status, problem)).client() as client, pytest.raises(ProblemError) as caught:
        client.get("a@1858809600")
    error = caught.value
    assert type(error) is kind
    assert error.status == status
    assert error.errors[0]["pointer"] == "/retry"
    assert str(error) == f"GET /status/a@1858809600: {status} Wrong: retry: -1 is not accepted"
    if isinstance(error, Conflict):
        assert error.task == TASK


def test_error_page_of_a_proxy_is_a_problem_too() -> None:
    daemon = FakeDaemon((413, b"<html>too large</html>"))
    with daemon.client() as client, pytest.raises(InvalidRequest, match="too large"):
        client.get("a@60")


def test_put_is_repeated_after_503_and_lost_connections() -> None:
    replies: list[Reply] = [(503, {}, {"Retry-After": "7"}), httpx.ReadError("lost"), (200, TASK)]
    daemon = FakeDaemon(*replies)
    with daemon.client() as client:
        assert client.put("a", at=1858809600, callback="http://e/") == TASK
    assert daemon.delays == [7, 1]
    asynchronous = FakeDaemon(*replies)
    put = asynchronous.run(lambda client: client.put("a", at=1858809600, callback="http://e/"))
    assert put == TASK
    assert asynchronous.delays == [7, 1]


def test_put_with_a_relative_time_is_not_repeated_after_503() -> None:
    daemon = FakeDaemon((503, {"detail": "busy"}))
    with daemon.client() as client, pytest.raises(Unavailable, match="busy"):
        client.put("a", at="+5m", callback="http://e/")
    assert len(daemon.requests) == 1


def test_repetitions_end() -> None:
    daemon = FakeDaemon(httpx.ConnectError("refused"))
    expected = re.escape("GET /status/a@60 at callme.test:6777: refused")
    with daemon.client() as client, pytest.raises(ConnectionFailed, match=expected):
        client.get("a@60")
    assert len(daemon.requests) == 5


def test_list_requests_pages_on_demand() -> None:
    pages: list[Reply] = [
        (200, {"tasks": [{"task": "a@60"}, {"task": "a@120"}], "next": "a@180"}),
        (200, {"tasks": [{"task": "a@180"}]}),
    ]
    daemon = FakeDaemon(*pages)
    with daemon.client() as client:
        found = client.list("a", state="failed", limit=2)
        assert next(found)["task"] == "a@60"
        assert len(daemon.requests) == 1
        assert [task["task"] for task in found] == ["a@120", "a@180"]
    assert daemon.requests[1].url.query == b"state=failed&limit=2&start_from=a%40180"

    async def keys(client: AsyncClient) -> list[str]:
        return [task["task"] async for task in client.list("a")]

    assert FakeDaemon(*pages).run(keys) == ["a@60", "a@120", "a@180"]


def test_wait_returns_the_task_when_it_has_ended() -> None:
    replies: list[Reply] = [(200, TASK), (200, TASK | {"state": "failed"})]
    daemon = FakeDaemon(*replies)
    with daemon.client() as client:
        assert client.wait("a@1858809600")["state"] == "failed"
    assert [request.url.query for request in daemon.requests] == [b"wait=55", b"wait=55"]
    assert daemon.requests[0].extensions["timeout"]["read"] == 65
    ended = FakeDaemon(*replies).run(lambda client: client.wait("a@1858809600"))
    assert ended["state"] == "failed"


def test_wait_ends_after_its_timeout() -> None:
    daemon = FakeDaemon((200, TASK))
    with daemon.client() as client, pytest.raises(WaitTimeout, match="scheduled"):
        client.wait("a@1858809600", timeout=0)
    assert daemon.requests[0].url.query == b"wait=0"


def test_batch_is_sent_and_read_as_lines() -> None:
    lines = b'{"status":201,"task":"a@60"}\n{"status":422,"detail":"callback: ..."}\n'
    daemon = FakeDaemon((200, lines))
    with daemon.client() as client:
        results = client.batch([{"task_name": "a"}, {"task_name": "b"}], dry_run=True)
    assert [result["status"] for result in results] == [201, 422]
    assert daemon.requests[0].content == b'{"task_name":"a"}\n{"task_name":"b"}\n'
    assert daemon.requests[0].url.query == b"dry_run=true"


def test_deletion_of_one_task_has_the_result_of_a_bulk_deletion() -> None:
    with FakeDaemon((204, b"")).client() as client:
        assert client.delete("a@60") == {"deleted": 1, "skipped": []}


def test_health_that_fails_is_a_result() -> None:
    failing = {"status": "failing", "writable": False}
    with FakeDaemon((503, failing)).client() as client:
        assert client.health() == failing
    assert FakeDaemon((503, failing)).run(lambda client: client.health()) == failing


def test_health_of_a_proxy_that_fails_is_an_error() -> None:
    with FakeDaemon((503, b"no backend")).client() as client, pytest.raises(Unavailable):
        client.health()


@pytest.mark.parametrize("url", [f"{URL}/callme", f"{URL}/callme/"])
def test_url_with_a_path_precedes_each_path(url: str) -> None:
    tasks = {"tasks": [TASK], "next": "a@180"}
    daemon = FakeDaemon((200, TASK), (200, tasks), (200, {"tasks": []}))
    with Client(url, transport=httpx.MockTransport(daemon.respond)) as client:
        client.get("a@120")
        assert list(client.list()) == [TASK]
    assert [request.url.path for request in daemon.requests] == [
        "/callme/status/a@120",
        "/callme/status/",
        "/callme/status/",
    ]


@pytest.mark.parametrize("url", ["localhost:6777", "", "ftp://localhost"])
def test_url_without_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://"):
        Client(url)
