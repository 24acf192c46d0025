"""The decorator for path operations of FastAPI, and for endpoints of Starlette."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .gate import Gate, Refusal
from .store import OnceStore

Handler = Callable[..., Awaitable[Any]]


def once(store: OnceStore, keys: str | Iterable[str] | None = None) -> Callable[[Handler], Handler]:
    """Return a decorator: the handler runs once for each task, and only for genuine calls.

    The handler is ``async`` and has a parameter ``request: Request``. If it returns no
    ``Response``, its status counts as 200.

    :param store: the store of the calls that were handled; it is used in threads.
    :param keys: the signing keys; without them, signatures are not checked.
    """
    gate = Gate.of(store, keys)
    return lambda handler: _decorated(gate, handler)


def _decorated(gate: Gate, handler: Handler) -> Handler:
    # FastAPI would look for the names of annotations in this module.
    signature = inspect.signature(handler, eval_str=True)
    if "request" not in signature.parameters:
        raise TypeError(f"{handler.__name__}: it has no parameter request: Request")

    @wraps(handler)
    async def handle(*args: Any, **kwargs: Any) -> Any:
        request = signature.bind(*args, **kwargs).arguments["request"]
        return await _handle(gate, request, lambda: handler(*args, **kwargs))

    vars(handle)["__signature__"] = signature
    return handle


async def _handle(gate: Gate, request: Request, run: Callable[[], Awaitable[Any]]) -> Any:
    body = await request.body()
    entered = await run_in_threadpool(gate.enter, dict(request.headers), body)
    if isinstance(entered, Refusal):
        return PlainTextResponse(entered.text, entered.status)
    status = None
    try:
        result = await run()
        status = result.status_code if isinstance(result, Response) else 200
    finally:
        await run_in_threadpool(gate.leave, entered, status)
    return result
