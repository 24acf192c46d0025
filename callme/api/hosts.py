"""Hosts in the API: their tasks, the results of their latest calls, their pauses and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define
from twisted.web.iweb import IRequest

from ..core.times import rfc3339, to_ms
from ..errors import FieldError, InvalidValue
from ..hosts.operations import (
    MAX_SETTINGS,
    HostPage,
    HostTasks,
    delete_settings,
    get_settings,
    list_hosts,
    put_settings,
)
from ..hosts.settings import HostSettings, parse_host, parse_settings
from ..reports.audit_log import AuditLog
from ..server.auth import Author, author_of
from ..server.problem import Problem
from ..store.database import Store
from ..worker.host_memory import HostResults
from ..worker.scheduler import Scheduler
from .requests import parse_body, parse_limit, parse_query, strip_trailing_slash


@define(eq=False, kw_only=True)
class HostService:
    """Commands and queries on hosts."""

    _store: Store
    _scheduler: Scheduler
    _audit: AuditLog

    @property
    def results(self) -> Mapping[str, HostResults]:
        """The results of the latest calls of this daemon, by host."""
        return self._scheduler.host_results

    async def read(self, start_from: str, limit: int, now: float) -> HostPage:
        """Return a page of hosts."""
        return await self._store.read(
            list_hosts, start_from=start_from, limit=limit, now=now, others=tuple(self.results)
        )

    async def settings(self, host: str) -> HostSettings:
        """Return the settings of a host, or of all hosts."""
        return await self._store.read(get_settings, host)

    async def change(
        self, host: str, changes: Mapping[str, int | None], *, by: Author, now: float
    ) -> HostSettings:
        """Change some settings of a host, and return all of them.

        :param changes: the result of :func:`callme.hosts.settings.parse_settings`.
        :param by: the client.
        :raises Problem: when too many hosts have settings.
        """
        settings = await self._store.write(put_settings, host, changes, now)
        if settings is None:
            raise Problem(
                409, f"{MAX_SETTINGS:,} hosts have settings already: delete those of another host"
            )
        self._audit.host_set(by, host, settings.to_dict(now))
        return settings

    async def page(self, request: IRequest, now: float) -> dict[str, Any]:
        """Return the requested page of hosts as JSON."""
        query = parse_query(request, ("start_from", "limit"))
        start_from, limit = query.get("start_from", ""), parse_limit(query.get("limit"))
        page, results = await self.read(start_from, limit, now), self.results
        members: dict[str, Any] = {
            "all_hosts": page.all_hosts.to_dict(now),
            "hosts": [_host_to_dict(host, results, now) for host in page.hosts],
        }
        return members if page.next is None else {**members, "next": page.next}

    async def put(self, request: IRequest, path: str, now: float) -> dict[str, Any]:
        """Change the settings in a request; return all settings of the host as JSON."""
        parse_query(request)
        host = _parse_path(request, path)
        changes = parse_settings(parse_body(request), now)
        settings = await self.change(host, changes, by=author_of(request), now=now)
        return {"host": host, **settings.to_dict(now)}

    async def delete(self, request: IRequest, path: str) -> None:
        """Reset a host to the defaults."""
        parse_query(request)
        host = _parse_path(request, path)
        await self._store.write(delete_settings, host)
        self._audit.host_set(author_of(request), host, {})


def _parse_path(request: IRequest, path: str) -> str:
    try:
        return parse_host(strip_trailing_slash(request, path))
    except InvalidValue as error:
        raise Problem(400, str(error), errors=[FieldError("host", str(error))]) from None


def _host_to_dict(
    tasks: HostTasks, results: Mapping[str, HostResults], now: float
) -> dict[str, Any]:
    result = results.get(tasks.host, HostResults())
    return {
        "host": tasks.host,
        "scheduled": tasks.scheduled,
        "due": tasks.due,
        "in_flight": tasks.running,
        "last_success_at": _time(result.last_success_at),
        "last_failure_at": _time(result.last_failure_at),
        "failures_in_a_row": result.failures,
        **tasks.settings.to_dict(now),
    }


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(to_ms(at))
