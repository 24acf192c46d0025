"""Tokens with a prefix: they neither show nor change any task whose name begins otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from callme.api.openapi.operations import document
from callme.core.times import Key
from callme.server.site import BoundedSite
from callme.store.listing import sources
from tests.helpers.credentials import gate_for
from tests.helpers.raw_client import Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World

TOKEN = b"a-token-of-the-team-a"
AUTHORIZATION = b"Authorization: Bearer " + TOKEN
LATER = NOON + 3600
FOREIGN = "someone-elses-task"
QUERIES = (
    "",
    "?wait=0",
    "?start_from=" + FOREIGN + "@0",
    "?all=true",
    "?dry_run=true",
    "?all=true&state=scheduled",
    "?all=true&prefix=some&dry_run=true",
    "?host=sink.example:80",
    "?prefix=" + FOREIGN,
)


def operations() -> Iterator[tuple[str, str]]:
    """Return the method and the path of every operation of the API, on a task of another team."""
    for path, item in document()["paths"].items():
        named = path.replace("{trigger_at}", str(LATER))
        for method in item.keys() - {"parameters", "summary", "description"}:
            yield method.upper(), re.sub(r"\{\w+\}", FOREIGN, named)


@pytest.fixture
def client(world: World, tmp_path: Path) -> Client:
    gate = gate_for(tmp_path, f"{TOKEN.decode()} team-a prefix=team-a.")
    assert gate.file is not None
    world.tokens = gate.file.value
    return Client(world, BoundedSite(world.parts.site.resource, world.clock, gate))


def ask(client: Client, method: str, path: str, body: object = None, *headers: bytes) -> str:
    """Send a request with the token; return the response as it was sent."""
    data = b"" if body is None else json.dumps(body).encode()
    length = b"Content-Length: %d" % len(data)
    client.send(head(method.encode(), path.encode(), AUTHORIZATION, length, *headers) + data)
    for _ in range(20):
        client.world.clock.advance(0)
    response: str = client.transport.value().decode()
    client.transport.clear()
    return response


def test_missing_task_reveals_no_name_of_another_prefix(client: Client) -> None:
    for name in ("team-A", "team-b", "team-a.own"):
        client.world.put(name, LATER)
    advice = {name: ask(client, "GET", f"/task/{name}") for name in ("team-a.", "team-a.owner")}
    assert r"did you mean \"team-a.own\"?" in advice["team-a.owner"]
    assert not any("team-A" in text or "team-b" in text for text in advice.values())


def new_task(name: str) -> dict[str, str]:
    return {"task_name": name, "trigger_at": str(LATER), "callback": "http://example.com/"}


@pytest.mark.parametrize(("method", "path"), sorted(operations()))
def test_no_operation_shows_or_changes_a_task_of_another_prefix(
    client: Client, method: str, path: str
) -> None:
    world = client.world
    before = world.put(FOREIGN, LATER)
    created_at_ms = world.task(Key(FOREIGN, LATER)).created_at_ms
    world.put("team-a.own", LATER)
    body = [new_task(FOREIGN)] if "batch" in path else new_task(FOREIGN)
    for accept in (b"application/json", b"text/calendar", b"text/html"):
        for query in QUERIES:
            sent = body if method in ("PUT", "POST") and "reschedule" not in path else None
            response = ask(client, method, path + query, sent, b"Accept: " + accept)
            if FOREIGN in response:
                # A text that repeats the request reveals nothing.
                assert response.split()[1] in ("400", "403", "422"), response
    stored = world.task(Key(FOREIGN, LATER))
    assert stored.definition == before
    assert stored.created_at_ms == created_at_ms


@pytest.mark.parametrize("path", ["/", "/page/find", "/metrics", "/forecast", "/%74ask/", "/new/"])
def test_path_about_all_tasks_is_refused(client: Client, path: str) -> None:
    response = ask(client, "GET", path)
    assert response.startswith("HTTP/1.1 403 ")
    assert 'limited to tasks whose names begin with \\"team-a.\\"' in response


@pytest.mark.parametrize("path", ["/status/", "/status", "/task/"])
@pytest.mark.parametrize("accept", [b"application/json", b"text/calendar"])
def test_list_has_only_the_tasks_of_the_prefix(client: Client, path: str, accept: bytes) -> None:
    for name in ("team-a", "team-a.one", "team-a.two", "team-b", FOREIGN):
        client.world.put(name, LATER)
    response = ask(client, "GET", path, None, b"Accept: " + accept)
    assert re.findall(r'"task_name":"([^"]*)"', response) == ["team-a.one", "team-a.two"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("prefix=team-a.t", ["team-a.two"]),
        ("prefix=team", ["team-a.one", "team-a.two"]),
        ("prefix=team-b", []),
        ("order=due", ["team-a.one", "team-a.two"]),
        ("state=scheduled&host=sink.example:80", ["team-a.one", "team-a.two"]),
    ],
)
def test_filters_select_among_the_tasks_of_the_prefix(
    client: Client, query: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_EXAMINED", 1)
    for name in ("team-a.one", "team-a.two", "team-b", FOREIGN):
        client.world.put(name, LATER)
    listed: list[str] = []
    path = f"/status/?{query}"
    while path:
        response = ask(client, "GET", path)
        assert FOREIGN not in response
        listed += re.findall(r'"task_name":"([^"]*)"', response)
        link = re.search(r"Link: <([^>]*)>", response)
        path = link[1] if link else ""
    assert listed == found
    assert (" 403 " in response) == (query == "prefix=team-b")


def test_own_tasks_can_be_put_read_moved_and_deleted(client: Client) -> None:
    name = "team-a.x"
    assert " 201 " in ask(client, "PUT", f"/task/{name}", new_task(name))
    results = ask(client, "POST", "/batch", [new_task("team-a.y"), new_task(FOREIGN)])
    assert re.findall(r'"status":([0-9]+)', results) == ["201", "403"]
    assert " 200 " in ask(client, "GET", f"/status/{name}@{LATER}")
    assert " 200 " in ask(client, "GET", f"/status/{name}.ics")
    assert " 200 " in ask(client, "POST", f"/reschedule/{name}?all=true")
    assert " 200 " in ask(client, "DELETE", f"/task/{name}")


def test_login_with_such_a_token_is_refused_with_the_reason(client: Client) -> None:
    form = b"token=" + TOKEN
    client.send(
        head(
            b"POST",
            b"/page/login",
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Length: %d" % len(form),
            b"Origin: http://localhost",
        )
        + form
    )
    response = client.transport.value().decode()
    assert response.startswith("HTTP/1.1 403 ")
    assert "limited to tasks whose names begin with team-a." in response
    assert "Set-Cookie" not in response
