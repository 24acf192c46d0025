"""Secrets reach their endpoint and nothing else: no log, list or error."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import (
    ILogObserver,
    LogEvent,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface import implementer

from callme.store import queue, tasks
from callme.tap import makeService
from tests.helpers.api_client import BODY, KEY, Response, ask, put
from tests.helpers.endpoint import Connection, Endpoint, listen, shut
from tests.helpers.html import visit
from tests.helpers.logs import LoggedFailures
from tests.helpers.service import options, port_of
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World

CANARY = "hunter2canary"
HEADERS = {"Authorization": f"Bearer {CANARY}", "X-Plain": CANARY}
SECRETS: dict[str, Any] = {
    "headers": HEADERS,
    "payload": json.dumps({"password": CANARY}),
    "callback": f"http://sink.example/hook?token={CANARY}",
    "on_failure": f"http://told.example/bad?token={CANARY}",
    "on_success": f"http://told.example/good?token={CANARY}",
}


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines of the log file, with tracebacks."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEventAsClassicLogText(event) or "")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)
    assert CANARY not in "".join(lines)


WRONG: list[Any] = [
    {"payload": {"password": CANARY, "more": "x" * 262_144}},
    {"payload": [f"{CANARY}\ud800"]},
    {"payload": {f"{CANARY}\ud800": 1}},
    {"payload_base64": CANARY + "!"},
    {"payload_base64": [CANARY]},
    {"payload": "a", "payload_base64": CANARY},
    {"payload": CANARY + "x" * 262_144},
    {"payload": f"{CANARY}\ud800"},
    {"headers": CANARY},
    {"headers": [CANARY]},
    {"headers": {"X-A": {"value": CANARY}}},
    {"headers": {"X-A": [CANARY]}},
    {"headers": {"X-A": f"{CANARY}\r\nX-B: c"}},
    {"headers": {"X-A": f" {CANARY}"}},
    {"headers": {"X-A": f"{CANARY}\ud800"}},
    {"headers": {"X-A": CANARY + "x" * 8_192}},
    {"headers": {"Host": CANARY}},
    {"headers": {"Webhook-Signature": CANARY}},
    {"headers": {"X-A": "1", "x-a": CANARY}},
    {"headers": {f"Authorization: Bearer {CANARY}": ""}},
    {"headers": {f"X-A\r\nX-B: {CANARY}": ""}},
    {"callback": f"http://me:{CANARY}@sink.example/"},
    {"callback": f"http://{CANARY}@sink.example/"},
    {"callback": f"http://me:{CANARY}@[::1/"},
    {"callback": f"http://me:{CANARY}%40sink.example/"},
    {"callback": f"http://me:{CANARY}@169.254.169.254/"},
    {"callback": f"http://169.254.169.254/?token={CANARY}"},
    {"callback": f"ftp://sink.example/?token={CANARY}"},
    {"callback": f"http://sink.example:0/#{CANARY}"},
    {"callback": f"http://sink.example:x/?{CANARY}"},
    {"callback": f"http://sink.example/é?{CANARY}"},
    *(
        {name: url}
        for name in ("on_failure", "on_success")
        for url in (
            f"http://me:{CANARY}@sink.example/",
            f"http://{CANARY}@sink.example/",
            f"http://169.254.169.254/?token={CANARY}",
            f"http://sink.example:x/?{CANARY}",
            {"url": CANARY},
            [CANARY],
        )
    ),
    {"callback": {"url": "http://sink.example/", "headers": HEADERS}},
    {"retry": HEADERS},
    {"timeout": [CANARY]},
    {"trigger_at": {"payload": CANARY}},
    {"task_name": {"payload": CANARY}},
    {"retry_delay": {"payload": CANARY}},
    {"expected_http_status": [{"payload": CANARY}]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(wrong)[:60])
def test_validation_error_contains_no_secret(
    world: World, log: list[str], wrong: dict[str, Any]
) -> None:
    for response in (put(world, **wrong), _batch(world, [{**BODY, "task_name": "task", **wrong}])):
        assert response.status in (200, 400, 422)
        assert CANARY not in response.text
    assert ask(world, "GET", "/task/").json == {"tasks": []}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.dumps(SECRETS)),
        json.dumps([SECRETS]),
        json.dumps(SECRETS)[:-1],
        json.dumps(SECRETS)[:-1] + ",}",
        json.dumps(SECRETS) + json.dumps(SECRETS),
        json.dumps({"a": SECRETS})[:-1] + ', "a": 1}',
        f'{{"payload": {CANARY}}}',
        f'{{"payload": "{CANARY}}}',
        f"payload={CANARY}",
        f'"{CANARY}\ud800"',
    ],
)
def test_unreadable_body_is_not_repeated_in_the_error(
    world: World, log: list[str], body: str
) -> None:
    for kind in ("application/json", "application/x-ndjson"):
        data = body.encode("utf-8", "surrogatepass")
        response = ask(world, "PUT", "/task/task", data, {"Content-Type": kind})
        assert response.status in (400, 415)
        assert CANARY not in response.text
        assert CANARY not in _batch(world, data, kind).text


def _batch(world: World, body: Any, kind: str = "application/json") -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    pending = world.http.request(
        "POST", "http://callme/batch", data=data, headers={"Content-Type": kind}
    )
    world.clock.advance(0)
    world.http.flush()
    response = world.result(pending)
    return Response(response.code, response.headers, world.result(response.text("utf-8")))


def test_secrets_stay_hidden_through_every_failure(
    world: World, log: list[str], logged_failures: LoggedFailures
) -> None:
    """No error message quotes the secret."""
    told: list[Response] = []
    made = definition("task", NOON + 3600, **SECRETS, retry=5)

    def broken(*arguments: Any, **named: Any) -> Deferred[Any]:
        return fail(RuntimeError(f"about {made!r} {arguments!r} {named!r}"))

    world.scheduler.start()
    store, caller = world.store, world.caller
    store.overrides[tasks.put] = broken
    told.append(put(world, **SECRETS))
    assert told[-1].status == 500
    del store.overrides[tasks.put]
    created = put(world, **SECRETS, retry=5)
    assert created.status == 201
    told.append(put(world, **SECRETS))
    told.append(ask(world, "PUT", "/task/task", {**BODY, **SECRETS}, {"If-None-Match": "*"}))
    told.append(_batch(world, [{**BODY, **SECRETS, "task_name": "task", "retry": 2}]))
    assert [response.status for response in told[1:]] == [409, 412, 200]
    assert told[-1].json[0]["status"] == 409
    operations = (queue.claim, queue.expire_overdue, queue.take_orphans, queue.purge)
    store.overrides.update(dict.fromkeys((*operations, queue.record), broken))
    world.turn_to(NOON + 3600)
    for operation in operations:
        del store.overrides[operation]
    caller.status = 500
    world.turn_to(NOON + 3610)
    del store.overrides[queue.record]
    world.turn_to(NOON + 3660)
    caller.failing = broken
    world.turn_to(NOON + 3720)
    caller.failing = None
    store.is_broken = True
    told.append(ask(world, "GET", "/status/"))
    assert told[-1].status == 503
    world.turn_to(NOON + 3800)
    store.is_broken = False
    world.restart()
    world.turn_to(NOON + 4200)
    state = ask(world, "GET", f"/status/{KEY}").json["state"]
    assert state == "failed"
    told += [
        ask(world, "GET", "/status/"),
        ask(world, "GET", "/status/task?pretty"),
        put(world, payload="other"),
        ask(world, "POST", "/reschedule/task", {"trigger_at": "+1m"}),
    ]
    key = told[-1].json["rescheduled"][0]["to"]
    pages = [visit(world, path) for path in ("/", "/page/find")]
    pages += [visit(world, f"/page/{one}/{key}") for one in ("reschedule", "delete")]
    pages.append(
        visit(world, f"/page/reschedule/{key}", {"trigger_at": "x", "expected_state": "y"})
    )
    assert [page.status for page in pages] == [200, 200, 200, 200, 409]
    for text in [response.text for response in told] + [page.text for page in pages]:
        assert CANARY not in without_urls(text)
    assert "task.1800018000.on_failure@" in ask(world, "GET", "/status/").text
    text = "".join(log)
    assert "attempt 1 failed: unexpected_status" in text
    assert "about Definition(task_name='task'" in text
    assert "Claim(task_id=1" in text
    assert logged_failures.flush(RuntimeError) > 5


def without_urls(text: str) -> str:
    """Return a text without the URLs of a task, which every reader may see."""
    for name in ("callback", "on_failure", "on_success"):
        text = text.replace(SECRETS[name], "")
    return text


def test_notification_contains_no_more_than_the_task(world: World, log: list[str]) -> None:
    world.scheduler.start()
    headers = {"Authorization": f"Bearer {CANARY}"}
    put(world, **SECRETS | {"headers": headers, "payload": "", "retry": 0})
    world.caller.status = 500
    world.turn_to(NOON + 3600)
    (_, (_, notice)) = world.caller.calls
    assert '"Authorization":"***"' in notice.definition.payload
    assert CANARY not in without_urls(notice.definition.payload)


def test_task_page_contains_no_more_than_the_api_response(world: World, log: list[str]) -> None:
    """The page contains the payload, folded up, and the headers that look harmless."""
    secret = {"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY, "X-Plain": "plain"}
    key = world.put("task", NOON, headers=secret).key
    page = visit(world, f"/page/task/{key}")
    assert CANARY not in page.text
    assert page.rows("Request headers") == [
        ["Authorization", "***"],
        ["X-Api-Key", "***"],
        ["X-Plain", "plain"],
    ]


def test_unreadable_row_is_not_repeated_in_the_log(world: World, log: list[str]) -> None:
    world.scheduler.start()
    put(world, **SECRETS)
    world.store.connection.execute("UPDATE task SET headers = ?", (json.dumps([HEADERS]),))
    world.turn_to(NOON + 3700)
    task = ask(world, "GET", f"/task/{KEY}").json
    assert (task["state"], task["reason"]) == ("failed", "connection_failed")
    assert CANARY not in task["detail"]
    payload = json.dumps(json.loads(SECRETS["payload"]), indent=2)
    for text in (
        ask(world, "GET", "/status/").text,
        visit(world, "/").text,
        visit(world, f"/page/task/{KEY}").text.replace(payload, ""),
    ):
        assert CANARY not in without_urls(text)


async def test_secrets_of_signed_failing_calls_stay_hidden(tmp_path: Path, log: list[str]) -> None:
    """Over real sockets: the requests contain the secrets, callme's own output does not."""
    secret = base64.b64encode(CANARY.encode() * 3).decode()
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"whsec_{secret}\n")
    daemon = makeService(options(tmp_path, "--signing-key-file=keys"))
    daemon.startService()

    def echo(connection: Connection) -> None:
        request = endpoint.requests[-1]
        status = b"200 Told" if request.startswith(b"POST ") else b"500 No"
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(request))
        connection.write(head + request)

    endpoint = Endpoint(echo)
    endpoint.port = listen(endpoint)
    pool = HTTPConnectionPool(reactor, persistent=False)
    client = treq.client.HTTPClient(Agent(reactor, pool=pool))
    base = f"http://127.0.0.1:{port_of(daemon)}"
    urls = {
        "echo": endpoint.url(f"/?token={CANARY}"),
        "refused": f"http://127.0.0.1:1/?token={CANARY}",
        "tls": endpoint.url(f"/?token={CANARY}").replace("http:", "https:"),
        "nowhere": f"http://nowhere.invalid/?token={CANARY}",
    }
    told = endpoint.url(f"/told?token={CANARY}")
    for name, url in urls.items():
        body = {**SECRETS, "callback": url, "trigger_at": "+0m", "retry": 0, "timeout": 2}
        body["on_failure"] = told
        assert (await client.put(f"{base}/task/{name}", json=body)).code == 201
    keys.write_text(f"whsec_{secret[:8]}\n{CANARY}\n")
    assert daemon.key_file is not None
    daemon.key_file.reload()
    while True:
        listed = await (await client.get(f"{base}/status/")).text()
        if listed.count('"failed"') == listed.count('"succeeded"') == len(urls):
            break
        await deferLater(reactor, 0.02)
    for url in (*urls.values(), told):
        listed = listed.replace(url, "")
    assert CANARY not in without_urls(listed)
    assert f"X-Plain: {CANARY}".encode() in endpoint.requests[0]
    notices = [request for request in endpoint.requests if request.startswith(b"POST /told")]
    assert len(notices) == len(urls)
    for request in (endpoint.requests[0], *notices):
        assert b"Webhook-Signature: v1," in request
    text = "".join(log)
    assert secret not in text
    assert "signing keys not reloaded" in text
    assert text.count("attempt 1 failed: ") == len(urls)
    await daemon.stopService()
    await maybeDeferred(endpoint.port.stopListening)
    await shut(endpoint)
