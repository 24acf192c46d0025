"""Idempotency keys: one for each definition, the same on all of its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from callme.caller.request import idempotency_key, request_headers
from tests.helpers.api_client import ask
from tests.helpers.tasks import NOON
from tests.helpers.world import World

KEY = f"charge@{NOON}"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.caller.status = 500
    made.scheduler.start()
    yield made
    made.close()


def put(world: World, payload: str, **headers: str) -> int:
    body = {
        "trigger_at": str(NOON),
        "callback": "http://sink.example/",
        "callback_method": "POST",
        "payload": payload,
        "retry": 9,
        "max_delay": 60,
    }
    return ask(world, "PUT", "/task/charge", body, headers).status


def sent(world: World) -> list[tuple[Any, str]]:
    """Return the key and the payload of each request."""
    requests = []
    for _, claim in world.caller.calls:
        key = idempotency_key(claim.definition.key, claim.created_at_ms)
        headers = dict(request_headers(claim, key))
        requests.append((headers["Idempotency-Key"], claim.definition.payload))
    return requests


def test_idempotency_key_is_constant_per_definition_and_differs_between_definitions(
    world: World,
) -> None:
    """The task is put, replaced and deleted between attempts."""
    assert put(world, "4900") == 201
    world.turn_to(NOON + 60)
    assert put(world, "4900") == 200
    world.turn_to(NOON + 90)
    assert put(world, "9900", **{"If-Match": "*"}) == 200
    world.turn_to(NOON + 180)
    assert ask(world, "DELETE", f"/task/{KEY}").status == 204
    assert put(world, "100") == 201
    world.turn_to(NOON + 240)
    by_payload: dict[str, set[str]] = {}
    for key, payload in sent(world):
        by_payload.setdefault(payload, set()).add(key)
    assert {payload: len(keys) for payload, keys in by_payload.items()} == {
        "4900": 1,
        "9900": 1,
        "100": 1,
    }
    assert len(set().union(*by_payload.values())) == 3
    assert all(key.startswith(f'"{KEY}.') for keys in by_payload.values() for key in keys)
    payloads = [payload for _, payload in sent(world)]
    assert min(payloads.count(payload) for payload in by_payload) > 1
