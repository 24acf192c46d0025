"""Requests of the client: pure functions that build one for each operation of the API."""

from __future__ import annotations

import base64
import json as jsonlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import httpx
from attrs import evolve, field, frozen

from .. import __version__
from .documents import (
    BatchResult,
    Deleted,
    Filters,
    Health,
    HostSettings,
    NewHostSettings,
    Parameters,
    Rescheduled,
    Task,
    TaskFilters,
    TaskList,
    When,
)
from .errors import ProblemError

T = TypeVar("T")
MAX_WAIT_SECONDS = 55
"""Maximum time in seconds for which callme delays its response to a request that waits."""
_ABSOLUTE = re.compile(r"[0-9]+(\.[0-9]*)?$|[0-9]{4}-[0-9]{2}-[0-9]{2}")


@frozen(kw_only=True)
class Request(Generic[T]):
    """A request, and a function that reads its response.

    :ivar query: the parameters of the query string; ``None`` omits a parameter.
    :ivar is_repeatable: whether the request has the same effect if callme receives it twice.
    :ivar wait_seconds: for how long callme may wait before it responds.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, object] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = None
    is_repeatable: bool = True
    wait_seconds: float = 0

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Return the parameters of the query string as text; a list gives several."""
        return [
            (name, "true" if value is True else str(value))
            for name, given in self.query.items()
            for value in (given if isinstance(given, list) else [given])
            if value is not None and value is not False
        ]

    def arguments(self, timeout: float) -> dict[str, Any]:
        """Return the arguments of a request of httpx.

        :param timeout: seconds for the request, besides the time that it waits for a change.
        """
        return {
            "method": self.method,
            "url": self.path,
            "params": self.parameters or None,
            "headers": dict(self.headers),
            "content": self.body,
            "timeout": timeout + self.wait_seconds,
        }


def client_arguments(url: str, token: str | None) -> dict[str, Any]:
    """Return the arguments of a client of httpx.

    :raises ValueError: if the URL is not absolute: the text names what is expected.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url: {url!r} is not accepted: expected http://host:port")
    headers = {"User-Agent": f"callme-client/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return {"base_url": parsed, "headers": headers}


def put(
    definition: Mapping[str, Any], *, replace: bool, create: bool, dry_run: bool
) -> Request[Any]:
    """Return the request that creates or replaces a task, or previews that.

    :param replace: whether a scheduled task with another definition is replaced.
    :param create: whether the task must not exist yet.
    """
    conditions = {"If-Match": "*"} if replace else {"If-None-Match": "*"} if create else {}
    return Request(
        method="PUT",
        path="/task/",
        read=httpx.Response.json,
        query={"dry_run": dry_run},
        headers={"Content-Type": "application/json", **conditions},
        body=_encode(definition),
        # After a lost response, "must not exist" and "must exist" have another meaning.
        is_repeatable=not conditions and is_absolute(definition["trigger_at"]),
    )


def batch(definitions: Iterable[Mapping[str, Any]], *, dry_run: bool) -> Request[list[BatchResult]]:
    """Return the request that creates many tasks."""
    items = list(definitions)
    return Request(
        method="POST",
        path="/batch",
        read=_ndjson,
        query={"dry_run": dry_run},
        headers={"Content-Type": "application/x-ndjson"},
        body=b"".join(_encode(item) + b"\n" for item in items),
        is_repeatable=all(is_absolute(item.get("trigger_at", "")) for item in items),
    )


def get(key: str, wait: float | None = None, start_from: str | None = None) -> Request[Task]:
    """Return the request for one task.

    :param wait: the seconds, at most, until the task changes.
    :param start_from: the ``next`` of a page, for earlier attempts.
    :raises ValueError: if it is a name and no key.
    """
    return Request(
        method="GET",
        path=f"/status/{key_path(key)}",
        read=httpx.Response.json,
        query={"wait": None if wait is None else math.ceil(wait), "start_from": start_from},
        wait_seconds=wait or 0,
    )


def page(name: str | None, filters: Filters) -> Request[TaskList]:
    """Return the request for one page of the tasks of a name, or of all tasks."""
    path = f"/status/{path_of(name)}" if name else "/status/"
    return Request(method="GET", path=path, read=httpx.Response.json, query=_query_of(filters))


def _query_of(filters: TaskFilters) -> dict[str, Any]:
    return cast("dict[str, Any]", filters) | {
        bound: time_of(at)
        for bound, at in cast("dict[str, Any]", filters).items()
        if bound in ("due_from", "due_before")
    }


def next_page(request: Request[Any], found: Mapping[str, Any]) -> Request[Any] | None:
    """Return the request for the page after one, or ``None`` after the last."""
    if "next" not in found:
        return None
    return evolve(request, query={**request.query, "start_from": found["next"]})


def reschedule(target: str, at: When | None, *, all_states: bool) -> Request[Rescheduled]:
    """Return the request that moves one task, or the tasks of a name."""
    return Request(
        method="POST",
        path=f"/reschedule/{path_of(target)}",
        read=httpx.Response.json,
        query={"all": all_states},
        headers={"Content-Type": "application/json"},
        body=None if at is None else _encode({"trigger_at": time_of(at)}),
        is_repeatable=False,
    )


def reschedule_all(
    at: When | None,
    filters: TaskFilters,
    *,
    spread: int | None,
    all_states: bool,
    dry_run: bool,
) -> Request[Rescheduled]:
    """Return the first request that moves the tasks that match filters."""
    return Request(
        method="POST",
        path="/reschedule/",
        read=httpx.Response.json,
        query={**_query_of(filters), "all": all_states, "spread": spread, "dry_run": dry_run},
        headers={"Content-Type": "application/json"},
        body=None if at is None else _encode({"trigger_at": time_of(at)}),
        is_repeatable=dry_run,
    )


def delete_all(filters: TaskFilters, *, dry_run: bool) -> Request[Deleted]:
    """Return the first request that deletes the tasks that match filters."""
    query = {**_query_of(filters), "dry_run": dry_run}
    return Request(method="DELETE", path="/task/", read=httpx.Response.json, query=query)


def joined_moves(results: Iterable[Rescheduled]) -> Rescheduled:
    """Return the result of several requests, one after the other, as that of one."""
    whole: Rescheduled = {"rescheduled": [], "skipped": []}
    for result in results:
        whole["rescheduled"] += result["rescheduled"]
        whole["skipped"] += result["skipped"]
        if "warnings" in result:
            whole["warnings"] = result["warnings"]
    return whole


def joined_deletions(results: Iterable[Deleted]) -> Deleted:
    """Return the result of several requests, one after the other, as that of one."""
    whole: Deleted = {"deleted": 0, "skipped": []}
    for result in results:
        whole["deleted"] += result["deleted"]
        whole["skipped"] += result["skipped"]
    return whole


def delete(target: str) -> Request[Deleted]:
    """Return the request that deletes one task, or the tasks of a name."""
    return Request(method="DELETE", path=f"/task/{path_of(target)}", read=_deleted)


def hosts(limit: int | None) -> Request[Any]:
    """Return the request for one page of the hosts."""
    return Request(method="GET", path="/hosts/", read=httpx.Response.json, query={"limit": limit})


def put_host(host: str, settings: NewHostSettings) -> Request[HostSettings]:
    """Return the request that changes settings of a host, or of all hosts."""
    body = dict(settings)
    if not isinstance(settings.get("paused"), bool | None):
        body["paused"] = time_of(cast("When", settings["paused"]))
    return Request(
        method="PUT",
        path=f"/hosts/{quote(host, safe=':*')}",
        read=httpx.Response.json,
        headers={"Content-Type": "application/json"},
        body=_encode(body),
        is_repeatable=is_absolute(body.get("paused") or 0),
    )


def delete_host(host: str) -> Request[None]:
    """Return the request that returns a host, or all hosts, to the defaults."""
    path = f"/hosts/{quote(host, safe=':*')}"
    return Request(method="DELETE", path=path, read=lambda _: None)


def forecast(hours: int | None) -> Request[dict[str, Any]]:
    """Return the request for the forecast of the next hours."""
    return Request(method="GET", path="/forecast", read=httpx.Response.json, query={"hours": hours})


def health() -> Request[Health]:
    """Return the request for the health of a daemon."""
    # A 503 is the result here, and its body says more than an exception.
    return Request(method="GET", path="/healthz", read=httpx.Response.json, is_repeatable=False)


def health_of(error: ProblemError) -> Health:
    """Return the health that a response with status 503 contains.

    :raises ProblemError: the error itself, if its document is not a health.
    """
    if error.problem.get("status") != "failing":
        raise error
    return cast("Health", error.problem)


def path_of(target: str) -> str:
    """Return a name or a key, encoded for the path of a URL.

    :raises ValueError: if it is empty: the path would name all tasks.
    """
    if not target:
        raise ValueError("the name of a task is empty: expected 1 to 255 characters")
    # The paths "." and ".." would be resolved before they are sent.
    return quote(target, safe="@") if target.strip(".") else target.replace(".", "%2E")


def key_path(key: str) -> str:
    """Return the key of a task, encoded for the path of a URL.

    :raises ValueError: if it is a name: the path would name all tasks of it.
    """
    if "@" not in key:
        raise ValueError(f"key: {key!r} is not accepted: expected NAME@MINUTE")
    return path_of(key)


def definition(
    name: str, at: When, callback: str, parameters: Parameters | None = None
) -> dict[str, Any]:
    """Return the definition of a task as the API accepts it.

    ``json`` becomes the payload, and the type of the request is then JSON. ``data`` becomes the
    payload as it is, as text or bytes. With either, the default of ``callback_method`` is POST.

    :raises ValueError: if more than one of ``json``, ``data``, ``payload`` and
        ``payload_base64`` is given, or if the time has no zone.
    """
    given: dict[str, Any] = dict(parameters or {})
    payloads = [key for key in ("json", "data", "payload", "payload_base64") if key in given]
    if len(payloads) > 1:
        raise ValueError(f"{' and '.join(payloads)} exclude each other: expected one of them")
    body = {"task_name": name, "trigger_at": time_of(at), "callback": callback}
    if "json" in given:
        body |= _json_payload(given.pop("json"), given)
    elif "data" in given:
        body |= _payload(given.pop("data"))
    return body | given


def _json_payload(value: object, given: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, dict | list):
        return {"payload": value, "callback_method": "POST"}
    given["headers"] = {"Content-Type": "application/json", **given.get("headers", {})}
    return _payload(jsonlib.dumps(value))


def _payload(data: str | bytes) -> dict[str, Any]:
    if isinstance(data, str):
        return {"payload": data, "callback_method": "POST"}
    return {"payload_base64": base64.b64encode(data).decode("ascii"), "callback_method": "POST"}


def time_of(at: When, now: Callable[[], datetime] | None = None) -> str | int | float:
    """Return a time as the API accepts it.

    A ``timedelta`` becomes the first minute that begins at that time or later, by the clock of
    this machine: a repeated request then names the same minute.

    :raises ValueError: for a ``datetime`` without a zone, and for a negative ``timedelta``.
    """
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise ValueError(f"at: {at.isoformat()} has no zone: expected an aware datetime")
        return math.floor(at.timestamp())
    if isinstance(at, timedelta):
        return _minute_after(at, now() if now else datetime.now().astimezone())
    return at


def _minute_after(delay: timedelta, now: datetime) -> int:
    if delay < timedelta(0):
        raise ValueError(f"at: {delay} is negative: expected a time from now on")
    if not delay:
        return math.floor(now.timestamp())
    return math.ceil((now + delay).timestamp() / 60) * 60


def is_absolute(at: object) -> bool:
    """Return whether a time means the same minute whenever callme receives it."""
    return isinstance(at, int | float) or bool(_ABSOLUTE.match(str(at)))


def _encode(value: object) -> bytes:
    return jsonlib.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _ndjson(response: httpx.Response) -> list[Any]:
    return [jsonlib.loads(line) for line in response.content.split(b"\n") if line]


def _deleted(response: httpx.Response) -> Deleted:
    """Return the result of a deletion: for one task, callme responds with 204 and no body."""
    if not response.content:
        return {"deleted": 1, "skipped": []}
    result: Deleted = response.json()
    return result
