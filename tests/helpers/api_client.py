"""A client of the API in memory: its responses are checked against the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from tests.helpers.openapi_checks import check_response
from tests.helpers.tasks import NOON
from tests.helpers.world import World

BASE = "http://callme:6777"
BODY = {"trigger_at": "+1h", "callback": "http://sink.example/"}
AT = NOON + 3600
KEY = f"task@{AT}"


@frozen
class Response:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


def ask(
    world: World,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Make a request; a ``body`` that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    pending = world.http.request(method, BASE + path, data=data, headers=headers or {})
    world.http.flush()
    response = world.result(pending)
    text = world.result(response.text("utf-8"))
    answer = Response(response.code, response.headers, text)
    raw_headers = response.headers.getAllRawHeaders()
    if method != "HEAD" and answer.status != 204:
        kind = answer.header("content-type")
        assert kind == ("application/json" if answer.status < 400 else "application/problem+json")
        assert isinstance(answer.json, dict)
        assert text.endswith("\n")
        if kind == "application/problem+json":
            assert {"type", "title", "status", "detail"} <= set(answer.json)
            assert answer.status == answer.json["status"]
    given = {name.decode().lower(): values[0].decode() for name, values in raw_headers}
    check_response(method, path, answer.status, given, text)
    return answer


def put(world: World, name: str = "task", **more: Any) -> Response:
    return ask(world, "PUT", f"/task/{name}", {**BODY, **more})


def pointers(answer: Response) -> list[str]:
    return [error["pointer"] for error in answer.json["errors"]]
