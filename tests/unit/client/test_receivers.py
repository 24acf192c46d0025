"""Endpoints that handle each call once: the gate, the stores and the decorators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastapi as fastapi_framework
import flask as flask_framework
import httpx
import klein as klein_framework
import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.http_headers import Headers
from twisted.web.server import Site

from callme.client.receivers import MemoryStore, OnceStore, SqliteStore, fastapi, flask, klein
from callme.client.receivers.gate import Gate, Refusal
from callme.client.receivers.store import LEASE_SECONDS
from callme.security.signing import SigningKeys

KEY = "whsec_" + "A" * 32
HEADERS = {"Idempotency-Key": '"a@60.1"'}
Post = Callable[[str, dict[str, str]], tuple[int, str]]


@pytest.fixture(params=["memory", "sqlite"])
def once_store(request: pytest.FixtureRequest, tmp_path: Path) -> OnceStore:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "once.sqlite")


# Stores


def test_claimed_key_is_running_until_it_is_finished(once_store: OnceStore) -> None:
    assert once_store.claim("a") == "new"
    assert once_store.claim("a") == "running"
    assert once_store.claim("b") == "new"
    once_store.finish("a", 204)
    assert once_store.claim("a") == 204


def test_forgotten_key_is_new(once_store: OnceStore) -> None:
    once_store.claim("a")
    once_store.forget("a")
    assert once_store.claim("a") == "new"


def test_sqlite_store_is_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "once.sqlite"
    SqliteStore(path).claim("a")
    SqliteStore(path).finish("a", 200)
    assert SqliteStore(path).claim("a") == 200


def test_claim_of_a_process_that_died_ends_with_its_lease(tmp_path: Path) -> None:
    now = [1000.0]
    once_store = SqliteStore(tmp_path / "once.sqlite", now=lambda: now[0])
    assert once_store.claim("a") == "new"
    now[0] += LEASE_SECONDS - 1
    assert once_store.claim("a") == "running"
    now[0] += 1
    assert once_store.claim("a") == "new"


def test_sqlite_store_forgets_old_keys(tmp_path: Path) -> None:
    now = [1000.0]
    once_store = SqliteStore(tmp_path / "once.sqlite", days=1, now=lambda: now[0])
    once_store.finish("a", 200)
    now[0] += 86401
    assert once_store.claim("a") == "new"


# The gate


def test_only_a_success_is_not_repeated(once_store: OnceStore) -> None:
    gate = Gate.of(once_store, None)
    for status in (500, 404, None):
        assert gate.enter(HEADERS, b"") == "a@60.1"
        gate.leave("a@60.1", status)
    assert gate.enter(HEADERS, b"") == "a@60.1"
    assert gate.enter(HEADERS, b"") == Refusal(
        409, "an earlier attempt of this call is still in progress"
    )
    gate.leave("a@60.1", 204)
    assert gate.enter(HEADERS, b"") == Refusal(204, "")


def test_call_without_key_is_refused() -> None:
    refused = Gate.of(MemoryStore(), None).enter({}, b"")
    assert refused == Refusal(400, "Idempotency-Key: the header is missing")


def test_forged_call_is_refused() -> None:
    refused = Gate.of(MemoryStore(), KEY).enter(HEADERS, b"")
    assert isinstance(refused, Refusal)
    assert refused.status == 401


def test_signed_identifier_counts_instead_of_the_unsigned_header() -> None:
    signed = dict(SigningKeys.parse(KEY).headers("a@60.1", time.time(), b"x"))
    gate = Gate.of(MemoryStore(), [KEY])
    assert gate.enter(signed | {"Idempotency-Key": '"other"'}, b"x") == "a@60.1"


@pytest.mark.parametrize("keys", ["", []])
def test_gate_without_any_key_is_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="no key"):
        Gate.of(MemoryStore(), keys)


# The decorators


class Handled:
    """A handler that fails at its first call, and counts all."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def status(self, body: bytes) -> int:
        self.bodies.append(body)
        return 500 if len(self.bodies) == 1 else 201


def flask_client(handled: Handled) -> Iterator[Post]:
    app = flask_framework.Flask(__name__)

    @app.post("/hook")
    @flask.once(MemoryStore())
    def hook() -> tuple[str, int]:
        return "done", handled.status(flask_framework.request.get_data())

    def post(text: str, headers: dict[str, str]) -> tuple[int, str]:
        response = app.test_client().post("/hook", data=text, headers=headers)
        return response.status_code, response.text

    yield post


def fastapi_client(handled: Handled) -> Iterator[Post]:
    app = fastapi_framework.FastAPI()

    @app.post("/hook")
    @fastapi.once(MemoryStore())
    async def hook(request: fastapi_framework.Request) -> fastapi_framework.Response:
        return fastapi_framework.Response("done", handled.status(await request.body()))

    def post(text: str, headers: dict[str, str]) -> tuple[int, str]:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
                return await client.post("/hook", content=text, headers=headers)

        response = asyncio.run(main())
        return response.status_code, response.text

    yield post


@pytest.mark.parametrize("client", [flask_client, fastapi_client])
def test_decorated_handler_runs_until_it_succeeds(
    client: Callable[[Handled], Iterator[Post]],
) -> None:
    handled = Handled()
    (post,) = client(handled)
    assert post("1", {}) == (400, "Idempotency-Key: the header is missing")
    assert post("2", HEADERS) == (500, "done")
    assert post("3", HEADERS) == (201, "done")
    assert post("4", HEADERS) == (201, "this call was handled before")
    assert handled.bodies == [b"2", b"3"]


def test_handler_that_raises_runs_again() -> None:
    app = flask_framework.Flask(__name__)
    calls: list[str] = []

    @app.post("/hook")
    @flask.once(MemoryStore())
    def hook() -> str:
        calls.append("")
        raise ValueError

    for _ in range(2):
        assert app.test_client().post("/hook", headers=HEADERS).status_code == 500
    assert len(calls) == 2


def test_fastapi_handler_without_request_is_refused() -> None:
    async def hook() -> None: ...

    with pytest.raises(TypeError, match="no parameter request"):
        fastapi.once(MemoryStore())(hook)


@pytest_twisted.ensureDeferred
async def test_decorated_route_of_klein_runs_until_it_succeeds() -> None:
    app = klein_framework.Klein()
    handled = Handled()

    @app.route("/hook", methods=["POST"])
    @klein.once(MemoryStore())
    async def hook(request: Any) -> bytes:
        request.setResponseCode(handled.status(request.content.read()))
        return b"done"

    listener: Any = reactor
    port = listener.listenTCP(0, Site(app.resource()), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/hook"
    try:
        found = []
        for text in (b"1", b"2", b"3"):
            response = await treq.post(
                url, text, headers=Headers({"Idempotency-Key": ['"a@60.1"']}), persistent=False
            )
            found.append((response.code, await response.text()))
        assert found == [(500, "done"), (201, "done"), (201, "this call was handled before")]
        assert handled.bodies == [b"1", b"2"]
    finally:
        await port.stopListening()
