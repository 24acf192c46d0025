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
    HostTasks,
    delete_settings,
    list_hosts,
    put_settings,
)
from ..hosts.settings import parse_host, parse_settings
from ..reports.audit_log import AuditLog
from ..server.auth import author_of
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

    async def page(self, request: IRequest, now: float) -> dict[str, Any]:
        """Return the page of hosts that a request asks for."""
        query = parse_query(request, ("start_from", "limit"))
        results = self._scheduler.host_results
        page = await self._store.read(
            list_hosts,
            start_from=query.get("start_from", ""),
            limit=parse_limit(query.get("limit")),
            now=now,
            others=tuple(results),
        )
        members: dict[str, Any] = {
            "all_hosts": page.all_hosts.to_dict(now),
            "hosts": [_host_to_dict(host, results, now) for host in page.hosts],
        }
        return members if page.next is None else {**members, "next": page.next}

    async def put(self, request: IRequest, path: str, now: float) -> dict[str, Any]:
        """Change the settings that a request names; return all of its host."""
        parse_query(request)
        host = _parse_path(request, path)
        changes = parse_settings(parse_body(request), now)
        settings = await self._store.write(put_settings, host, changes, now)
        if settings is None:
            raise Problem(
                409, f"{MAX_SETTINGS:,} hosts have settings already: DELETE those of another one"
            )
        members = settings.to_dict(now)
        self._audit.host_set(author_of(request), host, members)
        return {"host": host, **members}

    async def delete(self, request: IRequest, path: str) -> None:
        """Return a host to the defaults."""
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
