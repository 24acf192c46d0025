"""The decorator for views of Django."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse

from .gate import Gate, Refusal
from .store import OnceStore

View = Callable[..., Any]


def once(store: OnceStore, keys: str | Iterable[str] | None = None) -> Callable[[View], View]:
    """Return a decorator: the view runs once for each task, and only for genuine calls.

    The view is a function, ``async`` or not. With ``ATOMIC_REQUESTS``, its transaction is committed
    before the call counts as handled. A view with this decorator needs no CSRF token.

    :param store: the store of the calls that were handled; ``async`` views use it in threads.
    :param keys: the signing keys; without them, signatures are not checked.
    """
    gate = Gate.of(store, keys)
    return lambda view: _decorated(gate, view)


def _decorated(gate: Gate, view: View) -> View:
    make = _async_view if iscoroutinefunction(view) else _sync_view
    decorated = wraps(view)(make(gate, view))
    attributes = vars(decorated)
    # A form of another site can send neither a signature nor the header Idempotency-Key.
    attributes["csrf_exempt"] = True
    # Django would commit its transaction after the record that the call was handled.
    attributes["_non_atomic_requests"] = set(connections)
    return decorated


def _sync_view(gate: Gate, view: View) -> View:
    def handle(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        entered = gate.enter(dict(request.headers), request.body)
        if isinstance(entered, Refusal):
            return _refused(entered)
        status = None
        try:
            response = _atomic(view)(request, *args, **kwargs)
            status = response.status_code
        finally:
            gate.leave(entered, status)
        return response

    return handle


def _async_view(gate: Gate, view: View) -> View:
    enter = sync_to_async(gate.enter, thread_sensitive=False)
    leave = sync_to_async(gate.leave, thread_sensitive=False)

    async def handle(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        entered = await enter(dict(request.headers), request.body)
        if isinstance(entered, Refusal):
            return _refused(entered)
        status = None
        try:
            response = await _atomic(view)(request, *args, **kwargs)
            status = response.status_code
        finally:
            await leave(entered, status)
        return response

    return handle


def _atomic(view: View) -> View:
    """Return a view in the transaction that ``ATOMIC_REQUESTS`` requires, if it does."""
    atomic: View = BaseHandler().make_view_atomic(view)
    return atomic


def _refused(refusal: Refusal) -> HttpResponse:
    return HttpResponse(refusal.text, status=refusal.status, content_type="text/plain")
