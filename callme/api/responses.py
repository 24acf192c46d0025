"""Builders of responses: JSON, pages of tasks, batches, calendars and other text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http import datetimeToString
from twisted.web.iweb import IRequest

from ..core.representation import encode_task, task_summary, task_to_dict
from ..core.task import Task
from ..core.times import Key
from ..errors import FieldError
from ..server.problem import (
    CALENDAR_TYPE,
    JSON_TYPE,
    NDJSON_TYPE,
    encode,
    set_head,
)
from ..store.interface import Page
from .requests import is_ndjson

T = TypeVar("T")
MAX_CONCURRENT_PAGES = 2
"""Maximum number of pages that are read and encoded at a time, which leaves a read connection for
other queries."""
ITEMS_PER_TURN = 200
"""Number of items of a list after which the reactor runs other work."""
BYTES_PER_TURN = 16 * 1024
"""Number of encoded bytes after which the reactor runs other work: up to a millisecond."""


@define(eq=False)
class PageReader:
    """Reader of pages of tasks, which bounds the number of pages in memory.

    :param clock: schedules other work while a page is encoded.
    """

    _clock: IReactorTime
    _slots: DeferredSemaphore = field(
        factory=lambda: DeferredSemaphore(MAX_CONCURRENT_PAGES), init=False
    )

    async def page(
        self, read: Callable[[], Deferred[Page | None]], pretty: bool
    ) -> tuple[Page, list[bytes]] | None:
        """Return a page and its encoded tasks; ``None`` if no task has the name.

        :param read: starts the query.
        """
        # A client that disconnects here leaves the queue.
        await self._slots.acquire()
        reading = read()
        try:
            page = await shield(reading)
            if page is None:
                return None
            return page, [item async for item in self._items(page, pretty)]
        finally:
            # The query occupies a connection until it ends, even if the client disconnects.
            reading.addBoth(lambda _: self._slots.release())

    async def _items(self, page: Page, pretty: bool) -> AsyncIterator[bytes]:
        written = 0
        for task in page.tasks:
            if written > BYTES_PER_TURN:
                written = 0
                await deferLater(self._clock, 0)
            encoded = encode_item(task, pretty)
            written += len(encoded)
            yield encoded


def shield(reading: Deferred[T]) -> Deferred[T]:
    """Return a Deferred with the same result whose cancellation does not cancel the read.

    Klein cancels a handler, and the Deferred that it awaits, when its client disconnects.
    """
    waiting: Deferred[T] = Deferred()
    reading.addCallbacks(waiting.callback, waiting.errback)
    return waiting


JSON = dict[str, Any]
VARIES = {"Vary": "Accept"}
"""Header of a resource with several representations (RFC 9110, section 12.5.5)."""
SERVICE_LINK = {"Link": '</openapi.json>; rel="service-desc"; type="application/json"'}
"""Header that links to the description of the API (RFC 8631, section 4.2)."""


def json_response(
    request: IRequest, members: object, status: int = 200, headers: dict[str, str] | None = None
) -> bytes:
    """Set the head of a JSON response; return its body."""
    body = encode(members, wants_pretty(request))
    return _send(request, JSON_TYPE, status, headers or {}, body)


def task_response(
    request: IRequest,
    task: Task,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    warnings: Sequence[FieldError] = (),
) -> bytes:
    """Set the head of a response with one task; return its body."""
    if warnings or wants_pretty(request):
        members = task_to_dict(task)
        add_warnings(members, warnings)
        return json_response(request, members, status, headers)
    return _send(request, JSON_TYPE, status, headers or {}, encode_task(task).encode() + b"\n")


async def sliced_response(request: IRequest, members: JSON, clock: IReactorTime) -> bytes:
    """Set the head of a JSON response; return its body, encoded in slices.

    :param members: the members; a value that is an iterator becomes a list of any length.
    :param clock: schedules other work between two slices.
    """
    pretty = wants_pretty(request)
    colon, comma = (b": ", b",\n  ") if pretty else (b":", b",")
    parts: list[bytes] = []
    for name, value in members.items():
        parts += [comma if parts else b"", encode(name).strip(), colon]
        if isinstance(value, Iterator):
            parts += [part async for part in _list_parts(value, pretty, clock)]
        else:
            parts.append(_indented(encode(value, pretty).strip(), pretty))
    ends = (b"{\n  ", b"\n}\n") if pretty else (b"{", b"}\n")
    return _send(request, JSON_TYPE, 200, {}, b"".join([ends[0], *parts, ends[1]]))


async def _list_parts(
    items: Iterator[object], pretty: bool, clock: IReactorTime
) -> AsyncIterator[bytes]:
    """Yield the parts of a list that is a member of an object."""
    before = b"["
    while some := list(islice(items, ITEMS_PER_TURN)):
        if before != b"[":
            await deferLater(clock, 0)
        # The brackets are removed, while the line feed before the first item stays.
        encoded = _indented(encode(some, pretty).strip(), pretty)[1:-1]
        yield before + encoded.rstrip()
        before = b","
    yield b"[]" if before == b"[" else b"\n  ]" if pretty else b"]"


def _indented(encoded: bytes, pretty: bool) -> bytes:
    # JSON escapes line feeds in strings, so that line feeds here separate members.
    return encoded.replace(b"\n", b"\n  ") if pretty else encoded


def encoded_response(request: IRequest, encoded: Callable[[bool], bytes]) -> bytes:
    """Set the head of a response whose JSON is already encoded; return its body.

    :param encoded: returns the JSON, indented if its argument is true.
    """
    return _send(request, JSON_TYPE, 200, {}, encoded(wants_pretty(request)))


def text_response(request: IRequest, content_type: bytes, text: bytes) -> bytes:
    """Set the head of a text response with a negotiated media type; return its body."""
    return _send(request, content_type, 200, VARIES, text)


def calendar_response(
    request: IRequest, calendar: bytes, etag: str, modified_at: int | None
) -> bytes:
    """Set the head of the response to a request for a calendar; return its body.

    The status is 304, without a body, if the client has the current version.

    :param etag: the entity tag of the calendar.
    :param modified_at: its last change: seconds since 1970; ``None`` if unknown.
    """
    headers = {**VARIES, "ETag": etag, "Cache-Control": "private, no-cache"}
    if modified_at is not None:
        headers["Last-Modified"] = datetimeToString(modified_at).decode("ascii")
    if _is_current(request, etag, headers.get("Last-Modified")):
        set_head(request, 304, headers)
        return b""
    return _send(request, CALENDAR_TYPE + b"; charset=utf-8", 200, headers, calendar)


def _is_current(request: IRequest, etag: str, modified: str | None) -> bool:
    """Return whether a client has the current version of a resource (RFC 9110, section 13.2.2)."""
    tags: bytes | None = request.getHeader(b"if-none-match")
    if tags is not None:
        # If-None-Match uses the weak comparison.
        given = {tag.strip().removeprefix("W/") for tag in tags.decode("latin-1").split(",")}
        return not given.isdisjoint((etag, "*"))
    since: bytes | None = request.getHeader(b"if-modified-since")
    return since is not None and since.decode("latin-1").strip() == modified


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


_PRETTY = frozenset({b"pretty", b"pretty=", b"pretty=true", b"pretty=1", b"pretty=yes"})


def wants_pretty(request: IRequest) -> bool:
    """Return whether to indent a response, which may be an error for an invalid query."""
    parts = request.uri.partition(b"?")[2].split(b"&")
    return any(part.lower() in _PRETTY for part in parts)


def task_url(prefix: str, key: Key) -> str:
    """Return the path of a task, percent-encoded."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def encode_item(task: Task, pretty: bool) -> bytes:
    """Return a task as JSON for the list of :func:`page_response`."""
    encoded = encode(task_summary(task), pretty)[:-1]
    # JSON escapes line feeds in strings, so that line feeds here separate members.
    return encoded.replace(b"\n", b"\n    ") if pretty else encoded


Query = Mapping[str, str | Sequence[str]]
"""The parameters of a query string; a repeated parameter has a list of values."""


def next_link(path: str, query: Query, start_from: str | None) -> dict[str, str]:
    """Return the header that links to the next page (RFC 8288), if there is a next page.

    :param query: the parameters of the request.
    """
    if start_from is None:
        return {}
    parameters = {**query, "start_from": start_from}
    following = urlencode(parameters, doseq=True, quote_via=quote, safe="@")
    return {"Link": f'<{path}?{following}>; rel="next"'}


def page_response(
    request: IRequest, page: Page, items: Sequence[bytes], name: str | None, query: Query
) -> bytes:
    """Set the head of a response with a page of tasks and a link to the next one; return its body.

    :param items: the tasks, encoded by :func:`encode_item`.
    :param name: the name that the list is restricted to, if any.
    :param query: the parameters of the request.
    """
    members: dict[str, Any] = {"tasks": []}
    if page.next is not None:
        members["next"] = str(page.next)
    path = f"/status/{quote(name or '', safe='')}"
    headers = VARIES | next_link(path, query, members.get("next"))
    pretty = wants_pretty(request)
    before, _, after = encode(members, pretty).partition(b"[]")
    if items and pretty:
        body = b"".join([before, b"[\n    ", b",\n    ".join(items), b"\n  ]", after])
    else:
        body = b"".join([before, b"[", b",".join(items), b"]", after])
    return _send(request, JSON_TYPE, 200, headers, body)


def encode_results(request: IRequest, results: list[JSON]) -> bytes:
    """Return some results of a batch as items of a JSON array, or as NDJSON."""
    if is_ndjson(request):
        return b"".join(encode(result) for result in results)
    if wants_pretty(request):
        return b",\n  ".join(encode(result).rstrip() for result in results)
    return encode(results).strip()[1:-1]


def batch_response(request: IRequest, parts: Sequence[bytes]) -> bytes:
    """Set the head of a response to a batch; return its body.

    :param parts: the results, encoded by :func:`encode_results`.
    """
    if is_ndjson(request):
        return _send(request, NDJSON_TYPE, 200, {}, b"".join(parts))
    if wants_pretty(request):
        return _send(request, JSON_TYPE, 200, {}, b"[\n  " + b",\n  ".join(parts) + b"\n]\n")
    return _send(request, JSON_TYPE, 200, {}, b"[" + b",".join(parts) + b"]\n")


def add_warnings(members: JSON, warnings: Iterable[FieldError]) -> None:
    """Add warnings to the members of a response, if there are any."""
    items = [{"pointer": warning.pointer, "detail": warning.detail} for warning in warnings]
    if items:
        members["warnings"] = items


def skipped_items(skipped: Iterable[tuple[Key, str]]) -> Iterator[dict[str, str]]:
    """Yield the skipped tasks as JSON, each with the reason."""
    return ({"task": str(key), "reason": reason} for key, reason in skipped)
