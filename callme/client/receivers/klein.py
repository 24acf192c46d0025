"""The decorator for routes of Klein."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IRequest

from .gate import Gate, Refusal
from .store import OnceStore

Route = Callable[..., Any]


def once(store: OnceStore, keys: str | Iterable[str] | None = None) -> Callable[[Route], Route]:
    """Return a decorator: the route runs once for each task, and only for genuine calls.

    It belongs below ``@app.route``, on a function or on a method.

    :param store: the store of the calls that were handled; it is used in threads.
    :param keys: the signing keys; without them, signatures are not checked.
    """
    gate = Gate.of(store, keys)

    def decorate(route: Route) -> Route:
        @wraps(route)
        async def handle(*args: Any, **kwargs: Any) -> Any:
            request = next(one for one in args if IRequest.providedBy(one))
            return await _handle(gate, request, lambda: _started(route(*args, **kwargs)))

        return handle

    return decorate


async def _handle(gate: Gate, request: Any, run: Callable[[], Any]) -> Any:
    headers = {
        name.decode("latin-1"): values[-1].decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    entered = await deferToThread(gate.enter, headers, request.content.read())
    request.content.seek(0)
    if isinstance(entered, Refusal):
        request.setResponseCode(entered.status)
        return entered.text.encode()
    status = None
    try:
        result = await maybeDeferred(run)
        status = request.code
    finally:
        await deferToThread(gate.leave, entered, status)
    return result


def _started(result: Any) -> Any:
    return ensureDeferred(result) if inspect.iscoroutine(result) else result
