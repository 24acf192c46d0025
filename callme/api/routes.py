"""Handlers of the HTTP API, which parse a request, use the store, and build the response."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from ..core.parameters import parse_definition
from ..core.task import State, Task
from ..core.text.query_hints import LABEL
from ..core.times import Key, rfc3339, to_ms
from ..core.transitions import PutOutcome
from ..errors import FieldError
from ..metrics.exporter import MetricsExporter
from ..reports.audit_log import AuditLog
from ..reports.forecast import Forecaster
from ..security.address_policy import AddressPolicy
from ..server.auth import access_of, author_of, check_name, narrow_prefix
from ..server.negotiation import wants_calendar
from ..server.paths import base_path_of
from ..server.problem import problem_response
from ..server.router import AnyPathConverter, AppResource
from ..store import queue, tasks
from ..store.database import Store
from ..store.interface import Deleted, Rescheduled, StoreUnavailable
from ..store.listing.selection import Selection
from ..worker.scheduler import Scheduler
from .batch import Batch
from .dry_run import DryRun, forecast_to_dict
from .hosts import HostService
from .ical import ICS, Calendars
from .long_poll import LongPoll
from .openapi.operations import served as openapi_document
from .openapi.operations import service_document
from .problems import is_options, no_task, problem_for
from .requests import (
    BULK,
    PAGING,
    check_batch_condition,
    check_movable_state,
    check_task_exists_condition,
    describe_filters,
    parse_attempts_from,
    parse_body,
    parse_bulk_limit,
    parse_condition,
    parse_filters,
    parse_flag,
    parse_hours,
    parse_labels,
    parse_limit,
    parse_new_time,
    parse_order,
    parse_query,
    parse_selector,
    parse_spread,
    parse_start_from,
    parse_wait,
    strip_trailing_slash,
)
from .responses import (
    SERVICE_LINK,
    VARIES,
    PageReader,
    add_warnings,
    batch_response,
    encoded_response,
    json_response,
    next_link,
    page_response,
    skipped_items,
    sliced_response,
    task_response,
    task_url,
    text_response,
    wants_pretty,
)
from .task_service import Bulk, Move, TaskService


@define(eq=False, kw_only=True)
class Api:
    """Handlers of all paths of the API.

    :param clock: schedules other work between the parts of a long response.
    :param now: returns the wall-clock time: seconds since 1970.
    :param audit: logs changes.
    :param metrics: exports the metrics.
    :param networks: the policy about the addresses that callbacks may be sent to.
    :param long_poll: the requests that wait for a task to change.
    :param forecaster: makes and caches forecasts.
    :param task_service: changes tasks.
    :param hosts: reads and changes the settings of hosts.
    """

    _store: Store
    _scheduler: Scheduler
    _clock: IReactorTime
    _now: Callable[[], float]
    _audit: AuditLog
    _metrics: MetricsExporter
    _networks: AddressPolicy = field(factory=AddressPolicy)
    _long_poll: LongPoll
    _forecaster: Forecaster
    _task_service: TaskService
    _hosts: HostService
    _page_reader: PageReader = field(init=False)
    _calendars: Calendars = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._page_reader = PageReader(self._clock)
        self._calendars = Calendars(store=self._store, clock=self._clock, now=self._now)

    app = Klein()
    # By default, Werkzeug redirects paths that contain //, which are ordinary paths here.
    app.url_map.merge_slashes = False
    app.url_map.converters["path"] = AnyPathConverter

    # Handlers

    @app.route("/task", methods=["PUT"], strict_slashes=False)
    @app.route("/task/<path:path>", methods=["PUT"])
    async def put(self, request: IRequest, path: str = "") -> bytes:
        """Create or replace a task, or preview the put."""
        dry_run = parse_flag(parse_query(request, ("dry_run",)), "dry_run")
        body = parse_body(request)
        now = self._now()
        warnings: list[FieldError] = []
        name, at, trigger_at = strip_trailing_slash(request, path).partition("@")
        definition = parse_definition(
            body,
            now,
            task_name=name or None,
            trigger_at=trigger_at if at else None,
            networks=self._networks,
            warnings=warnings,
        )
        check_name(request, definition.task_name)
        condition = parse_condition(request)
        if dry_run:
            dry_runs = DryRun(self._scheduler.capacity(), now)
            forecast = await dry_runs.preview(self._store, definition, condition)
            members = dry_runs.response(definition, forecast)
            add_warnings(members, warnings)
            return json_response(request, members)
        by = author_of(request)
        result = await self._task_service.put(definition, condition, now, by=by)
        assert result.task is not None
        if result.outcome is not PutOutcome.CREATED:
            return task_response(request, result.task, warnings=warnings)
        location = {"Location": task_url("/task/", definition.key)}
        return task_response(request, result.task, status=201, headers=location, warnings=warnings)

    @app.route("/batch", methods=["POST"], strict_slashes=False)
    async def batch(self, request: IRequest) -> bytes:
        """Create many tasks, or preview the batch."""
        check_batch_condition(request)
        dry_run = parse_flag(parse_query(request, ("dry_run",)), "dry_run")
        now = self._now()
        batch = Batch(
            store=self._store,
            clock=self._clock,
            now=now,
            networks=self._networks,
            check_name=partial(check_name, request),
            audit=self._audit,
            by=author_of(request),
            dry_run=DryRun(self._scheduler.capacity(), now) if dry_run else None,
        )
        return batch_response(request, await batch.put(request))

    @app.route("/status", methods=["GET"], strict_slashes=False)
    @app.route("/status/<path:path>", methods=["GET"])
    @app.route("/task", methods=["GET"], strict_slashes=False)
    @app.route("/task/<path:path>", methods=["GET"])
    async def status(self, request: IRequest, path: str = "") -> bytes:
        """Return one task, or a list or a calendar of the tasks of a name or of all tasks."""
        target = parse_selector(request, path, ICS)
        prefix = access_of(request).prefix
        if prefix and target in (None, ICS):
            # A calendar of all tasks is not restricted to a prefix, unlike a list.
            target = None
        elif target is not None:
            check_name(request, target)
        if isinstance(target, Key):
            return await self._task(request, target)
        if target == ICS:
            return await self._calendars.of(request, None)
        if wants_calendar(request.getHeader(b"accept")) and (target or not prefix):
            return await self._calendars.of(request, target)
        query = parse_query(request, PAGING)
        labels = parse_labels(request)
        filters = parse_filters(query, labels, self._now())
        filters["prefix"] = narrow_prefix(request, filters["prefix"])
        read = partial(
            self._store.read,
            tasks.list_page,
            task_name=target,
            start_from=parse_start_from(query.get("start_from"), target),
            limit=parse_limit(query.get("limit")),
            by_due=parse_order(query.get("order")),
            **filters,
        )
        found = await self._page_reader.page(read, wants_pretty(request))
        if found is None:
            return await self._calendars.at(request, target)
        return page_response(request, *found, target, {**query, LABEL: labels})

    async def _task(self, request: IRequest, key: Key) -> bytes:
        query = parse_query(request, ("wait", "start_from"))
        attempts_to = parse_attempts_from(query.get("start_from"))
        task: Task | None = None
        wait = parse_wait(query.get("wait"))
        # A task with a damaged key never changes, because callme does not call it.
        seconds = wait if key.row_number is None else 0
        if seconds:
            task = await self._long_poll.wait(key, seconds)
        if not seconds or attempts_to is not None:
            task = await self._store.read(tasks.get, key, attempts_to)
        if task is None:
            raise await no_task(self._store, key, access_of(request).prefix)
        query.pop("wait", None)
        earlier = task.earlier_attempts
        start_from = None if earlier is None else str(earlier)
        headers = next_link(task_url("/status/", key), query, start_from)
        return task_response(request, task, headers=headers)

    @app.route("/reschedule/<path:path>", methods=["POST"])
    async def reschedule(self, request: IRequest, path: str) -> bytes:
        """Move failed tasks, or tasks in any state, to another minute."""
        check_task_exists_condition(request)
        query = parse_query(request, ("all",))
        include_all_states = parse_flag(query, "all")
        target = parse_selector(request, path)
        now = self._now()
        warnings: list[FieldError] = []
        trigger_at = parse_new_time(parse_body(request, required=False), now, warnings)
        assert target is not None
        check_name(request, target)
        result = await self._task_service.reschedule(
            target,
            trigger_at,
            include_all_states=include_all_states,
            by=author_of(request),
        )
        return await self._rescheduled_response(request, result, warnings)

    @app.route("/reschedule", methods=["POST"], strict_slashes=False)
    async def reschedule_all(self, request: IRequest) -> bytes:
        """Move the tasks that match filters to other minutes, or preview the move."""
        check_task_exists_condition(request)
        query = parse_query(request, ("all", "spread", *BULK))
        include_all_states = parse_flag(query, "all")
        warnings: list[FieldError] = []
        trigger_at = parse_new_time(parse_body(request, required=False), self._now(), warnings)
        spread = parse_spread(query.get("spread"), trigger_at)
        result = await self._task_service.reschedule_all(
            self._bulk(request, query, include_all_states=include_all_states),
            Move(trigger_at=trigger_at, spread=spread, include_all_states=include_all_states),
            by=author_of(request),
        )
        return await self._rescheduled_response(request, result, warnings)

    def _bulk(
        self, request: IRequest, query: dict[str, str], *, include_all_states: bool = True
    ) -> Bulk:
        """Return the requested bulk action."""
        labels = parse_labels(request)
        text = describe_filters(query, labels)
        filters = parse_filters(query, labels, self._now())
        check_movable_state(filters, include_all_states=include_all_states)
        filters["prefix"] = narrow_prefix(request, filters["prefix"])
        return Bulk(
            selection=Selection(**filters),
            filters=text,
            start_from=parse_start_from(query.get("start_from"), None),
            limit=parse_bulk_limit(query.get("limit")),
            is_dry_run=parse_flag(query, "dry_run"),
        )

    async def _rescheduled_response(
        self, request: IRequest, result: Rescheduled, warnings: list[FieldError]
    ) -> bytes:
        members: dict[str, Any] = {
            "rescheduled": ({"from": str(old), "to": str(new)} for old, new in result.moved),
            "skipped": skipped_items(result.skipped),
        }
        if result.next is not None:
            members["next"] = str(result.next)
        add_warnings(members, warnings)
        return await sliced_response(request, members, self._clock)

    @app.route("/task/<path:path>", methods=["DELETE"])
    async def delete(self, request: IRequest, path: str) -> bytes:
        """Cancel and delete one task, or all tasks of a name."""
        check_task_exists_condition(request)
        parse_query(request)
        target = parse_selector(request, path)
        assert target is not None
        check_name(request, target)
        deleted = await self._task_service.delete(target, by=author_of(request))
        if not isinstance(target, Key):
            return await self._deleted_response(request, deleted)
        request.setResponseCode(204)
        return b""

    @app.route("/task", methods=["DELETE"], strict_slashes=False)
    async def delete_all(self, request: IRequest) -> bytes:
        """Cancel and delete the tasks that match filters, or preview the deletion."""
        check_task_exists_condition(request)
        bulk = self._bulk(request, parse_query(request, BULK))
        deleted = await self._task_service.delete_all(bulk, by=author_of(request))
        return await self._deleted_response(request, deleted)

    async def _deleted_response(self, request: IRequest, deleted: Deleted) -> bytes:
        running = [(key, State.RUNNING.value) for key in deleted.running]
        members: dict[str, Any] = {"deleted": deleted.count, "skipped": skipped_items(running)}
        if deleted.next is not None:
            members["next"] = str(deleted.next)
        return await sliced_response(request, members, self._clock)

    @app.route("/hosts", methods=["GET"], strict_slashes=False)
    async def hosts(self, request: IRequest) -> bytes:
        """Return a page of hosts."""
        return json_response(request, await self._hosts.page(request, self._now()))

    @app.route("/hosts/<path:path>", methods=["PUT"])
    async def put_host(self, request: IRequest, path: str) -> bytes:
        """Change the settings of a host, or of all hosts."""
        return json_response(request, await self._hosts.put(request, path, self._now()))

    @app.route("/hosts/<path:path>", methods=["DELETE"])
    async def delete_host(self, request: IRequest, path: str) -> bytes:
        """Reset a host, or all hosts, to the defaults."""
        await self._hosts.delete(request, path)
        request.setResponseCode(204)
        return b""

    @app.route("/forecast", methods=["GET"], strict_slashes=False)
    async def forecast(self, request: IRequest) -> bytes:
        """Return the forecast."""
        hours = parse_hours(parse_query(request, ("hours",)).get("hours"))
        members = forecast_to_dict(await self._forecaster.forecast(hours))
        return await sliced_response(request, members, self._clock)

    @app.route("/healthz", methods=["GET"], strict_slashes=False)
    async def healthz(self, request: IRequest) -> bytes:
        """Return whether the scheduler ticks and the database can be read and written."""
        parse_query(request)
        health = self._scheduler.health()
        backlog: int | None
        try:
            backlog = await self._store.read(queue.backlog, self._now())
        except StoreUnavailable:
            backlog = None
        writable = self._store.is_writable
        healthy = health.ticking and writable and backlog is not None
        status = "ok" if healthy else "failing"
        if access_of(request).is_anonymous:
            return json_response(request, {"status": status}, 200 if healthy else 503)
        last_tick = None if health.last_tick is None else rfc3339(to_ms(health.last_tick))
        return json_response(
            request,
            {
                "status": status,
                "ticking": health.ticking,
                "writable": writable,
                "last_tick": last_tick,
                "backlog": backlog,
                "calls_in_flight": health.calls_in_flight,
                "saturated_seconds": int(health.saturated_seconds),
                "all_paused": health.all_paused,
                "paused_hosts": health.paused_hosts,
            },
            200 if healthy else 503,
        )

    @app.route("/metrics", methods=["GET"], strict_slashes=False)
    async def metrics(self, request: IRequest) -> bytes:
        """Return the metrics for Prometheus."""
        parse_query(request)
        page, kind = await self._metrics.write(request.getHeader(b"accept"))
        return text_response(request, kind, page)

    @app.route("/openapi.json", methods=["GET"], strict_slashes=False)
    def openapi(self, request: IRequest) -> bytes:
        """Return the OpenAPI document."""
        parse_query(request)
        return encoded_response(request, partial(openapi_document, base_path_of(request)))

    @app.route("/", methods=["GET"])
    def service(self, request: IRequest) -> bytes:
        """Return the name, the version and the paths of the service.

        The path ``/`` serves programs such as monitors; browsers get the web UI.
        """
        parse_query(request)
        members = service_document(base_path_of(request))
        return json_response(request, members, headers=VARIES | SERVICE_LINK)

    # Errors

    def resource(self) -> IResource:
        """Return the resource of all paths of the API."""
        return AppResource(self.app, self._failed)

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        problem = problem_for(request, failure)
        if is_options(request, problem):
            return b""
        return problem_response(request, problem, pretty=wants_pretty(request))
