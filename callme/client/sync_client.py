"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from . import requests
from .conversation import (
    Conversation,
    Reply,
    Step,
    connection_failed,
    exchange,
    until_final,
)
from .documents import (
    BatchResults,
    Deleted,
    Filters,
    Health,
    Host,
    HostSettings,
    NewHostSettings,
    Parameters,
    Rescheduled,
    Task,
    TaskFilters,
    When,
)
from .errors import ProblemError
from .repeats import Repeats
from .requests import Request

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class Client:
    """A client of one callme; close it, or use it in a ``with`` block.

    Threads may share it. Every method raises :class:`.ProblemError` for a response that is an
    error, and :class:`.ConnectionFailed` if there is no response.

    :param url: the address of callme, such as ``http://localhost:6777``.
    :param token: the bearer token, if callme runs with ``--token-file``.
    :param timeout: seconds for each request, besides the time that it waits for a change.
    :param repeats: how often, and after which delay, requests are repeated.
    :param transport: a transport of httpx, such as one with certificates of your own.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10,
        repeats: Repeats | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._timeout = timeout
        self._repeats = repeats or Repeats()
        self._sleep = sleep
        self._http = httpx.Client(**requests.client_arguments(url, token), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def put(
        self,
        name: str,
        at: When,
        callback: str,
        *,
        replace: bool = False,
        create: bool = False,
        **parameters: Unpack[Parameters],
    ) -> Task:
        """Create a task, and return it; an equal existing task is returned unchanged.

        :param name: the name of the task.
        :param at: the time of the call: a ``datetime`` with a zone, a ``timedelta`` from now, or
            any form that the API accepts.
        :param callback: the URL to call.
        :param replace: whether to replace a scheduled task, which must exist.
        :param create: whether to fail if the task exists, equal or not.
        :param parameters: the other parameters of the API, and ``json`` or ``data``.
        :raises Conflict: if a different task exists, or a condition is not met.
        :raises InvalidRequest: if a parameter is invalid.
        """
        definition = requests.definition(name, at, callback, parameters)
        task: Task = self._do(
            requests.put(definition, replace=replace, create=create, dry_run=False)
        )
        return task

    def preview(
        self, name: str, at: When, callback: str, **parameters: Unpack[Parameters]
    ) -> dict[str, Any]:
        """Return what :meth:`put` would do, and change nothing."""
        definition = requests.definition(name, at, callback, parameters)
        preview: dict[str, Any] = self._do(
            requests.put(definition, replace=False, create=False, dry_run=True)
        )
        return preview

    def batch(
        self, definitions: Iterable[Mapping[str, Any]], *, dry_run: bool = False
    ) -> BatchResults:
        """Create up to 10,000 tasks, and return one result for each, in order.

        :param definitions: objects as ``PUT`` accepts them; :func:`.definition` makes them.
        """
        return self._do(requests.batch(definitions, dry_run=dry_run))

    def get(self, key: str, *, wait: float | None = None, start_from: str | None = None) -> Task:
        """Return one task with its attempts.

        :param wait: seconds, at most 55, to wait for the task to change.
        :param start_from: the ``next`` of a task, for its earlier attempts.
        :raises NotFound: if there is no such task.
        """
        return self._do(requests.get(key, wait, start_from))

    def wait(self, key: str, timeout: float | None = None) -> Task:
        """Return a task as soon as it has succeeded or failed.

        :param timeout: the seconds after which the wait ends; ``None`` waits indefinitely.
        :raises WaitTimeout: if the task has not ended by then.
        :raises NotFound: if the task does not exist, or is moved or deleted in the meantime.
        """
        return self._run(until_final(key, timeout, self._repeats, time.monotonic))

    def list(self, name: str | None = None, **filters: Unpack[Filters]) -> Iterator[Task]:
        """Return the tasks of a name, or all tasks; pages are requested on demand."""
        for found in self._pages(requests.page(name, filters)):
            yield from found["tasks"]

    def reschedule(
        self, target: str, at: When | None = None, *, all_states: bool = False
    ) -> Rescheduled:
        """Move one failed task, or the failed tasks of a name; the default is the next minute.

        :param target: the key of a task, or a name.
        :param all_states: whether scheduled and succeeded tasks are moved too.
        """
        return self._do(requests.reschedule(target, at, all_states=all_states))

    def delete(self, target: str) -> Deleted:
        """Cancel and delete one task, or the tasks of a name.

        :param target: the key of a task, or a name.
        """
        return self._do(requests.delete(target))

    def reschedule_all(
        self,
        at: When | None = None,
        *,
        spread: int | None = None,
        all_states: bool = False,
        dry_run: bool = False,
        **filters: Unpack[TaskFilters],
    ) -> Rescheduled:
        """Move the failed tasks that match filters, as :meth:`reschedule` does; one is required.

        :param spread: the minutes over which the tasks are distributed, 1,000 tasks at a time.
        :param dry_run: whether to change nothing, and return what would be moved.
        """
        request = requests.reschedule_all(
            at, filters, spread=spread, all_states=all_states, dry_run=dry_run
        )
        return requests.joined_moves(self._pages(request))

    def delete_all(self, *, dry_run: bool = False, **filters: Unpack[TaskFilters]) -> Deleted:
        """Cancel and delete the tasks that match filters, of which one at least is required.

        :param dry_run: whether to change nothing, and return what would be deleted.
        """
        request = requests.delete_all(filters, dry_run=dry_run)
        return requests.joined_deletions(self._pages(request))

    def hosts(self, *, limit: int | None = None) -> Iterator[Host]:
        """Return the hosts that tasks call; pages are requested on demand."""
        for found in self._pages(requests.hosts(limit)):
            yield from found["hosts"]

    def put_host(self, host: str, **settings: Unpack[NewHostSettings]) -> HostSettings:
        """Pause a host or limit the calls to it, and return all its settings.

        :param host: the host and port, or ``*`` for all hosts.
        """
        return self._do(requests.put_host(host, settings))

    def delete_host(self, host: str) -> None:
        """Return a host, or all hosts with ``*``, to the defaults."""
        self._do(requests.delete_host(host))

    def forecast(self, hours: int | None = None) -> dict[str, Any]:
        """Return the forecast of the next hours, 24 by default."""
        return self._do(requests.forecast(hours))

    def health(self) -> Health:
        """Return the health of the daemon, whether it is ``ok`` or ``failing``."""
        try:
            return self._do(requests.health())
        except ProblemError as error:
            return requests.health_of(error)

    def _pages(self, request: Request[T] | None) -> Iterator[T]:
        """Yield the response to a request, and those that follow it."""
        while request is not None:
            found: Any = self._do(request)
            yield found
            request = requests.next_page(request, found)

    def _do(self, request: Request[T]) -> T:
        return self._run(exchange(request, self._repeats))

    def _run(self, conversation: Conversation[T]) -> T:
        reply: Reply = None
        try:
            while True:
                reply = self._take(conversation.send(reply))
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, step: Step) -> Reply:
        if not isinstance(step, Request):
            self._sleep(step)
            return None
        try:
            return self._http.request(**step.arguments(self._timeout))
        except httpx.TransportError as error:
            return connection_failed(step, error)
