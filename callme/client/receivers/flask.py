"""The decorator for views of Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any

from flask import Response, current_app, request

from .gate import Gate, Refusal
from .store import OnceStore

View = Callable[..., Any]


def once(store: OnceStore, keys: str | Iterable[str] | None = None) -> Callable[[View], View]:
    """Return a decorator: the view runs once for each task, and only for genuine calls.

    :param store: the store of the calls that were handled.
    :param keys: the signing keys; without them, signatures are not checked.
    """
    gate = Gate.of(store, keys)
    return lambda view: wraps(view)(partial(_handle, gate, view))


def _handle(gate: Gate, view: View, *args: Any, **kwargs: Any) -> Any:
    entered = gate.enter(dict(request.headers), request.get_data())
    if isinstance(entered, Refusal):
        return Response(entered.text, entered.status, content_type="text/plain")
    status = None
    try:
        # A view may return a text, a tuple or a dict; Flask knows the status of each.
        response = current_app.make_response(current_app.ensure_sync(view)(*args, **kwargs))
        status = response.status_code
    finally:
        gate.leave(entered, status)
    return response
