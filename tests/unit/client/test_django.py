"""The decorator for views of Django: CSRF, transactions, and async views."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import IntegrityError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import clear_url_caches, path
from django.utils.decorators import method_decorator
from django.views import View

from callme.client.receivers import MemoryStore
from callme.security.signing import SigningKeys

URLS = "callme_urls_of_a_test"
settings.configure(
    ROOT_URLCONF=URLS,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="secret",
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "ATOMIC_REQUESTS": True,
        }
    },
)
django.setup()

# Django must be configured before.
from callme.client.receivers.django import once  # noqa: E402

KEY = '"a@60.1"'
WITH_KEY = {"HTTP_IDEMPOTENCY_KEY": KEY}


@pytest.fixture(autouse=True)
def urls() -> Iterator[None]:
    """Make the module of URLs, whose ``urlpatterns`` a test sets with :func:`serve`."""
    sys.modules[URLS] = ModuleType(URLS)
    try:
        yield
    finally:
        del sys.modules[URLS]
        connections.close_all()


def serve(view: Any) -> Client:
    """Serve a view; return a client of which Django demands CSRF tokens, as of a browser."""
    clear_url_caches()
    module: Any = sys.modules[URLS]
    module.urlpatterns = [path("hook/<int:number>", view)]
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


def post(client: Client, body: str, **headers: str) -> tuple[int, str]:
    response = client.post("/hook/7", body, content_type="application/json", **headers)
    return response.status_code, response.content.decode()


class Calls:
    """A view that fails at its first call, and records all bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, request: HttpRequest, number: int) -> HttpResponse:
        assert number == 7
        self.bodies.append(request.body)
        return HttpResponse("done", status=500 if len(self.bodies) == 1 else 201)


def check_once(handled: Calls, client: Client) -> None:
    assert post(client, "1") == (400, "Idempotency-Key: the header is missing")
    assert post(client, "2", **WITH_KEY) == (500, "done")
    assert post(client, "3", **WITH_KEY) == (201, "done")
    assert post(client, "4", **WITH_KEY) == (201, "this call was handled before")
    assert handled.bodies == [b"2", b"3"]


def test_view_runs_until_it_succeeds_and_needs_no_csrf_token() -> None:
    handled = Calls()

    @once(MemoryStore())
    def hook(request: HttpRequest, number: int) -> HttpResponse:
        return handled(request, number)

    assert hook.__name__ == "hook"
    check_once(handled, serve(hook))


def test_view_of_a_class_runs_until_it_succeeds() -> None:
    handled = Calls()

    @method_decorator(once(MemoryStore()), name="dispatch")
    class Hook(View):  # type: ignore[misc]  # Django has no types
        def post(self, request: HttpRequest, number: int) -> HttpResponse:
            return handled(request, number)

    check_once(handled, serve(Hook.as_view()))


def test_async_view_runs_until_it_succeeds() -> None:
    handled = Calls()

    @once(MemoryStore())
    @transaction.non_atomic_requests
    async def hook(request: HttpRequest, number: int) -> HttpResponse:
        await asyncio.sleep(0)
        return handled(request, number)

    serve(hook)

    async def main() -> list[tuple[int, str]]:
        client = AsyncClient(enforce_csrf_checks=True)
        found = []
        for body in ("1", "2", "3"):
            headers = {"Idempotency-Key": KEY}
            response = await client.post("/hook/7", body, content_type="text/plain", **headers)
            found.append((response.status_code, response.content.decode()))
        return found

    assert asyncio.run(main()) == [
        (500, "done"),
        (201, "done"),
        (201, "this call was handled before"),
    ]
    assert handled.bodies == [b"1", b"2"]


def test_async_view_with_atomic_requests_is_refused_as_by_django() -> None:
    @once(MemoryStore())
    async def hook(request: HttpRequest, number: int) -> HttpResponse:
        raise AssertionError

    with pytest.raises(RuntimeError, match="ATOMIC_REQUESTS"):
        asyncio.run(_call(serve(hook)))


async def _call(_: Client) -> None:
    await AsyncClient().post("/hook/7", "", content_type="text/plain", **{"Idempotency-Key": KEY})


def test_view_that_raises_runs_again() -> None:
    calls = []

    @once(MemoryStore())
    def hook(request: HttpRequest, number: int) -> HttpResponse:
        calls.append(number)
        raise ValueError

    client = serve(hook)
    for _ in range(2):
        assert post(client, "", **WITH_KEY)[0] == 500
    assert calls == [7, 7]


def test_call_whose_transaction_cannot_be_committed_is_not_handled() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE row (id INTEGER PRIMARY KEY,"
            " parent INTEGER REFERENCES row DEFERRABLE INITIALLY DEFERRED)"
        )
    parents = [99, None]

    @once(MemoryStore())
    def hook(request: HttpRequest, number: int) -> HttpResponse:
        assert connection.in_atomic_block
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO row (parent) VALUES (%s)", [parents.pop(0)])
        return HttpResponse("done")

    client = serve(hook)
    client.raise_request_exception = True
    with pytest.raises(IntegrityError):
        post(client, "", **WITH_KEY)
    assert post(client, "", **WITH_KEY) == (200, "done")
    assert post(client, "", **WITH_KEY) == (200, "this call was handled before")
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM row").fetchone() == (1,)


def test_forged_call_is_refused() -> None:
    key = "whsec_" + "A" * 32
    handled = Calls()

    @once(MemoryStore(), keys=key)
    def hook(request: HttpRequest, number: int) -> HttpResponse:
        return handled(request, number)

    client = serve(hook)
    assert post(client, "x", **WITH_KEY)[0] == 401
    signed = SigningKeys.parse(key).headers("a@60.1", time.time(), b"x")
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in signed}
    assert post(client, "y", **headers)[0] == 401
    assert post(client, "x", **headers) == (500, "done")
    assert handled.bodies == [b"x"]
