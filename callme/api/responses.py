"""How an answer is written: a task, a page of tasks, a problem."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from ..core.representation import task_summary
from ..core.task import Task
from ..core.times import Key
from ..server.problem import CALENDAR_TYPE, JSON_TYPE, NDJSON_TYPE, encode, set_head
from ..store.database import shield
from ..store.interface import Page
from .requests import is_ndjson

AT_ONCE = 2
"""Pages that are read and written at once: that leaves one of the connections which read."""
TURN_BYTES = 16 * 1024
"""Bytes that are written before others have a turn: up to a millisecond of work."""


@define(eq=False)
class PageReader:
    """Reads pages and writes their tasks.

    :param clock: what gives others a turn.
    """

    _clock: IReactorTime
    _room: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    async def page(
        self, read: Callable[[], Deferred[Page | None]], pretty: bool
    ) -> tuple[Page, list[bytes]] | None:
        """Return a page and its tasks, encoded; ``None`` where there is no page.

        :param read: begins to read it.
        """
        # Who hangs up here is forgotten.
        await self._room.acquire()
        reading = read()
        try:
            page = await shield(reading)
            if page is None:
                return None
            return page, [task_summary async for task_summary in self._items(page, pretty)]
        finally:
            # Whoever has hung up, the database is busy until it has read the page.
            reading.addBoth(lambda _: self._room.release())

    async def _items(self, page: Page, pretty: bool) -> AsyncIterator[bytes]:
        written = 0
        for task in page.tasks:
            if written > TURN_BYTES:
                written = 0
                await deferLater(self._clock, 0)
            encoded = encode_item(task, pretty)
            written += len(encoded)
            yield encoded


JSON = dict[str, Any]
VARIES = {"Vary": "Accept"}
"""Says that another answer stands at the same path (RFC 9110, section 12.5.5)."""


def json_response(
    request: IRequest, members: object, status: int = 200, headers: dict[str, str] | None = None
) -> bytes:
    """Set what an answer needs, and return its body."""
    return _write(request, JSON_TYPE, status, headers or {}, members)


def encoded_response(request: IRequest, encoded: Callable[[bool], bytes]) -> bytes:
    """Answer with JSON that is there already, indented or not."""
    return _send(request, JSON_TYPE, 200, {}, encoded(wants_pretty(request)))


def text_response(request: IRequest, kind: bytes, text: bytes) -> bytes:
    """Answer with what is no JSON.

    :param kind: its content type.
    """
    return _send(request, kind, 200, {}, text)


def calendar_response(request: IRequest, calendar: bytes) -> bytes:
    """Answer with a calendar, as who asked for one at the same path has it."""
    return _send(request, CALENDAR_TYPE + b"; charset=utf-8", 200, VARIES, calendar)


def _write(
    request: IRequest, kind: bytes, status: int, headers: dict[str, str], members: object
) -> bytes:
    return _send(request, kind, status, headers, encode(members, wants_pretty(request)))


def _send(
    request: IRequest, kind: bytes, status: int, headers: dict[str, str], body: bytes
) -> bytes:
    length = str(len(body))
    set_head(
        request,
        status,
        {"Content-Type": kind.decode("ascii"), "Content-Length": length, **headers},
    )
    return body


def wants_pretty(request: IRequest) -> bool:
    """Whether to indent; for errors too, so it must take any query string."""
    parts = request.uri.partition(b"?")[2].split(b"&")
    return any(part in (b"pretty", b"pretty=", b"pretty=true") for part in parts)


def task_url(prefix: str, key: Key) -> str:
    """Return the path of a task, percent-encoded."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def encode_item(task: Task, pretty: bool) -> bytes:
    """Write a task as :func:`page_response` puts it into its list."""
    encoded = encode(task_summary(task), pretty)[:-1]
    # No string has a line feed in it: JSON escapes it.
    return encoded.replace(b"\n", b"\n    ") if pretty else encoded


def page_response(
    request: IRequest, page: Page, items: Sequence[bytes], name: str | None, query: dict[str, str]
) -> bytes:
    """Answer with a page of tasks, and say where the next one begins.

    :param items: its tasks, as :func:`encode_item` wrote them.
    """
    members: dict[str, Any] = {"tasks": []}
    headers = dict(VARIES)
    if page.next is not None:
        members["next"] = str(page.next)
        following = urlencode(query | {"start_from": members["next"]}, quote_via=quote, safe="@")
        path = f"/status/{quote(name or '', safe='')}"
        headers["Link"] = f'<{path}?{following}>; rel="next"'
    pretty = wants_pretty(request)
    before, _, after = encode(members, pretty).partition(b"[]")
    if items and pretty:
        body = b"".join([before, b"[\n    ", b",\n    ".join(items), b"\n  ]", after])
    else:
        body = b"".join([before, b"[", b",".join(items), b"]", after])
    return _send(request, JSON_TYPE, 200, headers, body)


def encode_answers(request: IRequest, answers: list[JSON]) -> bytes:
    """Write some of a batch's answers: items of a JSON array, or an object a line."""
    if is_ndjson(request):
        return b"".join(encode(one) for one in answers)
    if wants_pretty(request):
        return b",\n  ".join(encode(one).rstrip() for one in answers)
    return encode(answers).strip()[1:-1]


def batch_response(request: IRequest, parts: Sequence[bytes]) -> bytes:
    """Answer a batch with what :func:`encode_answers` wrote."""
    if is_ndjson(request):
        return _send(request, NDJSON_TYPE, 200, {}, b"".join(parts))
    if wants_pretty(request):
        return _send(request, JSON_TYPE, 200, {}, b"[\n  " + b",\n  ".join(parts) + b"\n]\n")
    return _send(request, JSON_TYPE, 200, {}, b"[" + b",".join(parts) + b"]\n")


def skipped_items(skipped: Iterable[tuple[Key, str]]) -> list[dict[str, str]]:
    """Return what was left alone, and why."""
    return [{"task": str(key), "reason": why} for key, why in skipped]
