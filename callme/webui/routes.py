"""The routes of the web UI: pages that display tasks, and forms that change them."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from attrs import define, evolve, field
from klein import Klein
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.template import flattenString, tags

from ..api.hosts import HostService
from ..api.problems import is_options, problem_for
from ..api.requests import (
    parse_attempts_from,
    parse_query,
    parse_selector,
)
from ..api.responses import json_response
from ..api.task_service import TaskService
from ..core.representation import task_to_dict
from ..core.task import Task
from ..core.times import Key, floor_to_minute, to_ms
from ..errors import Invalid, quoted
from ..reports.failures import open_failures
from ..security.address_policy import AddressPolicy
from ..security.login_throttle import LoginThrottle
from ..security.sessions import SESSION_SECONDS, open_session
from ..security.tokens import Tokens
from ..server.auth import (
    CHALLENGE,
    Author,
    access_of,
    author_of,
    base_url,
    check_name,
    client_name,
)
from ..server.paths import (
    DELETE_MANY,
    LOGIN,
    MAX_FORM,
    MAX_TASK_FORM,
    OVERVIEW,
    RESCHEDULE_MANY,
    TASK,
    safe_redirect_target,
    url_for,
)
from ..server.problem import Problem, set_head
from ..server.refusals import Refusal, mark_refused
from ..server.router import AnyPathConverter
from ..store import tasks
from ..store.database import Store
from ..store.listing.activity import failure_groups, upcoming
from ..store.stats import recent_activity, store_stats
from ..worker.scheduler import Scheduler
from .chart_panels import HOURS, ChartCache, insert_panels
from .dashboard import (
    DEFAULT_HOURS,
    MAX_ROWS,
    UNTIL_FIELD,
    DashboardData,
    failures_since_ms,
    render_dashboard,
)
from .forms import (
    Confirmation,
    ConfirmationForm,
    DeleteForm,
    RescheduleForm,
    RunForm,
    render_login,
)
from .layout import ASSETS, Layout, Viewer, redirect, serve_asset, set_page_headers
from .lists import failures as failure_lists
from .lists import upcoming as upcoming_lists
from .lists.bulk_pages import BulkPages
from .lists.pages import ListPages, MainPart
from .session import (
    MAX_FIELDS,
    LoginRequired,
    check_csrf,
    check_may_change,
    current_viewer,
    parse_form,
    set_session,
)
from .task.copying import Copying
from .task.new_form import NewTaskForm
from .task.new_task import ACTION_FIELD, GIVEN_TIME, PREVIEW, NewTaskPage, warnings_of
from .task.page import EXPECTED_STATE_FIELD, TaskDetail, render_task
from .task.time_fields import UTC, Meaning, TimeInput, local_minute, meaning_of
from .widgets import Renderable, escape_invisible, flash, name_of, query

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

WAIT_SECONDS = 0.02
"""Maximum time in seconds that the dashboard waits for fresh chart panels."""
MAX_TASK_FIELDS = 40
"""Maximum number of fields of the form for a new task."""
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_FLASHES = {
    "created": "The task was created.",
    "unchanged": "The same task exists already.",
    "rescheduled": "The task was rescheduled.",
    "run": "The task is due now.",
    "deleted": "The task was deleted.",
    "acknowledged": "The failures were acknowledged.",
}
"""The messages about a completed action, by the parameter ``done`` of the page after it."""


@define(eq=False, kw_only=True)
class WebUi:
    """The pages for the operator.

    :param tasks: performs the actions on tasks, as ``hosts`` does those on hosts.
    :param charts: the chart panels of the dashboard.
    :param clock: schedules other work while a page is rendered.
    :param now: the wall clock, seconds since 1970.
    :param node: returns the daemon's name.
    :param tokens: returns the tokens that open a session; ``None`` if no login is required.
    :param logins: limits failed logins.
    :param networks: the addresses that callbacks may go to.
    :param origins: the origins of these pages behind a proxy: see :class:`Gate`.
    """

    _store: Store
    _scheduler: Scheduler
    _tasks: TaskService
    _hosts: HostService
    _charts: ChartCache
    _clock: IReactorTime
    _now: Callable[[], float]
    _node: Callable[[], str]
    _tokens: Callable[[], Tokens | None] = field(default=lambda: None)
    _logins: LoginThrottle = field(factory=LoginThrottle)
    _networks: AddressPolicy = field(factory=AddressPolicy)
    _origins: frozenset[bytes] = frozenset()
    _lists: ListPages = field(init=False)
    _new_task: NewTaskPage = field(init=False)
    _bulk: BulkPages = field(init=False)

    def __attrs_post_init__(self) -> None:
        store, now = self._store, self._now
        self._lists = ListPages(store=store, hosts=self._hosts, clock=self._clock, now=now)
        self._new_task = NewTaskPage(
            store=store,
            tasks=self._tasks,
            capacity=self._scheduler.capacity,
            networks=self._networks,
            now=now,
        )
        self._bulk = BulkPages(store=store, tasks=self._tasks, now=now)

    app = Klein()
    app.url_map.merge_slashes = False
    app.url_map.converters["path"] = AnyPathConverter

    # Pages

    @app.route("/", methods=["GET"])
    async def dashboard(self, request: Request) -> bytes:
        """Return the dashboard."""
        viewer = current_viewer(request)
        parameters = parse_query(request, ("hours", "done"))
        hours = _parse_hours(parameters.get("hours"))
        now = self._now()
        stats, activity, opened, (past, ahead) = await _gather(
            self._store.read(store_stats, now),
            self._store.read(recent_activity, MAX_ROWS),
            self._store.read(open_failures, failures_since_ms(now, hours)),
            Deferred.fromCoroutine(self._charts.panels_within(hours, WAIT_SECONDS)),
        )
        groups = await self._store.read(failure_groups, failure_lists.RECENT)
        data = DashboardData(
            now=now,
            hours=hours,
            scheduler=self._scheduler.health(),
            stats=stats,
            activity=activity,
            groups=groups,
            upcoming=await self._store.read(upcoming, upcoming_lists.MAX_ROWS),
            history=None if past is None else past.snapshot,
            forecast=None if ahead is None else ahead.snapshot,
            open_failures=opened,
            viewer=viewer,
            first_steps=upcoming_lists.render_first_steps(
                base_url(request, self._origins), token=self._tokens() is not None
            ),
            flash=_FLASHES.get(parameters.get("done", ""), ""),
        )
        _, headline = data.health
        layout = self._layout(request, headline, render_dashboard(data), viewer, live=True)
        page = await flattenString(request, layout)
        return b"<!DOCTYPE html>" + await insert_panels(page, hours, past, ahead)

    @app.route("/page/task/<path:path>", methods=["GET"])
    async def task(self, request: Request, path: str) -> Layout:
        """Return the page of one task."""
        viewer = current_viewer(request)
        parameters = parse_query(request, ("done", "zone", GIVEN_TIME, "start_from"))
        attempts_to = parse_attempts_from(parameters.get("start_from"))
        task = await self._get_task(request, path, attempts_to)
        done = _task_flash(task, parameters, self._now())
        detail = TaskDetail(
            task=task,
            viewer=viewer,
            clock=self._clock,
            now=self._now(),
            copying=self._copying(request, task),
            flash=done,
        )
        page = render_task(detail)
        title = f"{name_of(task.key)}: {task.state.value}"
        return self._layout(request, title, page, viewer, live=True)

    @app.route("/page/json/<path:path>", methods=["GET"])
    async def raw(self, request: Request, path: str) -> bytes:
        """Return the API's JSON of one task, because a session gives no access to the API."""
        current_viewer(request)
        attempts_to = parse_attempts_from(parse_query(request, ("start_from",)).get("start_from"))
        task = await self._get_task(request, path, attempts_to)
        set_page_headers(request)
        return json_response(request, task_to_dict(task))

    @app.route("/page/curl/<path:path>", methods=["GET"])
    async def curl(self, request: Request, path: str) -> bytes:
        """Return the curl command that registers a task again, as text."""
        current_viewer(request)
        parse_query(request)
        task = await self._get_task(request, path)
        set_page_headers(request)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return self._copying(request, task).command().encode("ascii") + b"\n"

    def _copying(self, request: Request, task: Task) -> Copying:
        url = base_url(request, self._origins)
        return Copying(task=task, base_url=url, token=self._tokens() is not None)

    @app.route("/page/find", methods=["GET"])
    async def find(self, request: Request) -> Layout | bytes:
        """Return the tasks that filters match, or redirect to the task of a key."""
        return self._done(request, await self._lists.find(request, current_viewer(request)))

    @app.route("/page/failures", methods=["GET"])
    async def failures(self, request: Request) -> Layout:
        """Return the failed tasks in groups."""
        return self._page(request, await self._lists.failures(request, current_viewer(request)))

    @app.route("/page/reschedule-many", methods=["GET", "POST"])
    async def reschedule_many(self, request: Request) -> Layout | bytes:
        """Return the form that reschedules many tasks, or reschedule them."""
        return await self._change_many(request, RESCHEDULE_MANY)

    @app.route("/page/delete-many", methods=["GET", "POST"])
    async def delete_many(self, request: Request) -> Layout | bytes:
        """Return the form that confirms a deletion of many tasks, or delete them."""
        return await self._change_many(request, DELETE_MANY)

    async def _change_many(self, request: Request, path: str) -> Layout | bytes:
        viewer = current_viewer(request)
        return self._done(request, await self._bulk.confirm(request, path, viewer))

    @app.route("/page/hosts", methods=["GET"])
    async def hosts(self, request: Request) -> Layout:
        """Return the hosts that tasks call."""
        return self._page(request, await self._lists.hosts(request, current_viewer(request)))

    @app.route("/page/hosts/<path:path>", methods=["GET", "POST"])
    async def host(self, request: Request, path: str) -> Layout | bytes:
        """Return the form for the pause and the limits of a host, or save them."""
        return self._done(request, await self._lists.host(request, path, current_viewer(request)))

    @app.route("/page/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        """Return a static file."""
        if name not in ASSETS:
            raise Problem(404, "there is nothing at this path")
        return serve_asset(request, ASSETS[name])

    # Actions

    @app.route("/page/new", methods=["GET", "POST"])
    async def new(self, request: Request) -> Layout | bytes:
        """Return the form for a new task, perhaps a duplicate, or create or preview the task."""
        viewer = current_viewer(request)
        check_may_change(viewer)
        parameters = parse_query(request, ("from",))
        if request.method == b"POST":
            fields = self._parse_change(request, MAX_TASK_FORM, MAX_TASK_FIELDS)
            by, check = author_of(request), partial(check_name, request)
            result = await self._new_task.submit(fields, viewer, by, check)
            if isinstance(result, str):
                return redirect(request, result)
            content, status = result
            return self._layout(request, "New task", NewTaskForm(content), viewer, status=status)
        source = None
        if key := parameters.get("from"):
            source = await self._get_task(request, key)
            if source.damaged:
                raise Problem(409, f"{source.key} is damaged: it cannot be duplicated")
        form = NewTaskForm(self._new_task.blank(viewer, source))
        return self._layout(request, "New task", form, viewer)

    @app.route("/page/run/<path:path>", methods=["GET", "POST"])
    async def run(self, request: Request, path: str) -> Layout | bytes:
        """Return the form that confirms a call at once, or reschedule the task to this minute."""
        return await self._confirm(request, path, RunForm, self._run)

    async def _run(self, task: Task, fields: dict[str, str], by: Author) -> str:
        return await self._move(task, floor_to_minute(self._now()), by, "run")

    @app.route("/page/reschedule/<path:path>", methods=["GET", "POST"])
    async def reschedule(self, request: Request, path: str) -> Layout | bytes:
        """Return the form for a new minute, or reschedule the task."""
        return await self._confirm(request, path, RescheduleForm, self._reschedule)

    async def _reschedule(self, task: Task, fields: dict[str, str], by: Author) -> str | Meaning:
        time = TimeInput.of(fields)
        try:
            meaning = meaning_of(time, self._now())
        except Invalid as error:
            # The error omits the name of the field, which is not on the page.
            raise Problem(422, "; ".join(one.detail for one in error.errors)) from None
        if fields.get(ACTION_FIELD) == PREVIEW:
            return meaning
        path = await self._move(task, meaning.trigger_at, by, "rescheduled")
        return path if time.zone == UTC else f"{path}&{query(zone=time.zone)[1:]}"

    async def _move(self, task: Task, trigger_at: int, by: Author, done: str) -> str:
        """Reschedule a task; return the path of its page."""
        result = await self._tasks.reschedule(task.key, trigger_at, include_all_states=True, by=by)
        if not result.moved:
            raise Problem(409, f"{task.key} is running: it cannot be rescheduled now")
        (_, new_key), *_ = result.moved
        return url_for(TASK, new_key) + query(done=done)

    @app.route("/page/acknowledge", methods=["POST"])
    async def acknowledge(self, request: Request) -> bytes:
        """Acknowledge the failures up to the latest one on the page."""
        fields = self._parse_change(request)
        # The headline is about the tasks of all names.
        check_name(request, "")
        await self._tasks.acknowledge(self._parse_until(fields), by=author_of(request))
        return redirect(request, OVERVIEW + query(done="acknowledged"))

    def _parse_until(self, fields: dict[str, str]) -> int:
        text = fields.get(UNTIL_FIELD, "")
        until_ms = int(text) if _MILLISECONDS.fullmatch(text) else -1
        if not 0 <= until_ms <= to_ms(self._now()):
            detail = f"{UNTIL_FIELD} is {quoted(text)}: expected a time up to now, in ms since 1970"
            raise Problem(400, detail)
        return until_ms

    def _parse_change(
        self, request: Request, max_bytes: int = MAX_FORM, max_fields: int = MAX_FIELDS
    ) -> dict[str, str]:
        """Return the fields of a form that changes something.

        :raises Problem: if the viewer may not change anything, or the form is not of its session.
        """
        check_may_change(current_viewer(request))
        fields = parse_form(request, max_bytes, max_fields)
        check_csrf(request, fields)
        return fields

    @app.route("/page/delete/<path:path>", methods=["GET", "POST"])
    async def delete(self, request: Request, path: str) -> Layout | bytes:
        """Return the form that confirms a deletion, or delete the task."""
        return await self._confirm(request, path, DeleteForm, self._delete)

    async def _delete(self, task: Task, fields: dict[str, str], by: Author) -> str:
        await self._tasks.delete(task.key, by=by)
        return OVERVIEW + query(done="deleted")

    async def _confirm(
        self,
        request: Request,
        path: str,
        form: type[ConfirmationForm],
        act: Callable[[Task, dict[str, str], Author], Coroutine[Deferred[Any], Any, str | Meaning]],
    ) -> Layout | bytes:
        """Return the form that confirms an action on a task, or perform the action.

        :param act: performs it, given the task, the form's fields and the client; returns the
            next path, or the meaning of a time to display with the form.
        """
        viewer = current_viewer(request)
        check_may_change(viewer)
        task = await self._get_task(request, path)
        confirmation, status = Confirmation(task=task, viewer=viewer, now=self._now()), 200
        if request.method == b"POST":
            fields = self._parse_change(request)
            try:
                _check_state(fields, task)
                result = await act(task, fields, author_of(request))
                if isinstance(result, str):
                    return redirect(request, result)
                confirmation = evolve(confirmation, meaning=result, time=TimeInput.of(fields))
            except (Problem, Invalid) as error:
                problem = error if isinstance(error, Problem) else Problem.of(error)
                time, status = TimeInput.of(fields), problem.status
                confirmation = evolve(confirmation, error=_message(problem), time=time)
        title = f"{form.verb}?"
        return self._layout(request, title, form(confirmation), viewer, status=status)

    # Login and logout

    @app.route("/page/login", methods=["GET", "POST"])
    def login(self, request: Request) -> Layout | bytes:
        """Return the login form, or open a session."""
        tokens = self._tokens()
        if tokens is None:
            return redirect(request, OVERVIEW)
        if request.method != b"POST":
            return self._login_form(request, OVERVIEW, 200)
        fields = parse_form(request)
        after = safe_redirect_target(fields.get("next", OVERVIEW))
        token = fields.get("token", "").strip().encode("utf-8", "replace")
        peer = client_name(request)
        if wait := self._logins.seconds_to_wait(peer):
            mark_refused(request, Refusal.LOGIN_TOO_OFTEN)
            request.setHeader(b"retry-after", b"%d" % math.ceil(wait))
            message = f"Too many failed logins. Try again in {math.ceil(wait)} s."
            return self._login_form(request, after, 429, message)
        access = tokens.access_by(token)
        if access is not None and access.prefix:
            message = (
                f"This token is limited to tasks whose names begin with {access.prefix}: "
                "these pages show all tasks. Use it with the API."
            )
            return self._login_form(request, after, 403, message)
        session = open_session(tokens, token, self._now(), secrets.token_urlsafe(16))
        if session is None:
            self._logins.failed(peer)
            mark_refused(request, Refusal.LOGIN_WRONG)
            return self._login_form(request, after, 401, "Invalid token.")
        set_session(request, session, SESSION_SECONDS)
        return redirect(request, after)

    @app.route("/page/logout", methods=["POST"])
    def logout(self, request: Request) -> bytes:
        """Delete the session cookie."""
        check_csrf(request, parse_form(request))
        set_session(request, "", 0)
        return redirect(request, LOGIN)

    def _login_form(self, request: IRequest, after: str, status: int, error: str = "") -> Layout:
        linked = request.getHeader(b"sec-fetch-site") in (b"cross-site", b"same-site")
        page = render_login(after, error, linked=linked)
        if status == 401:
            request.setHeader(b"www-authenticate", CHALLENGE.encode())
        return self._layout(request, "Log in", page, None, status=status)

    async def _get_task(self, request: Request, path: str, attempts_to: int | None = None) -> Task:
        key = parse_selector(request, path)
        if not isinstance(key, Key):
            raise Problem(404, "this address names no task: expected NAME@MINUTE at its end")
        check_name(request, key)
        task = await self._store.read(tasks.get, key, attempts_to)
        if task is None:
            raise Problem(
                404,
                f"there is no task {key}: it may have been rescheduled, deleted, or removed after "
                "its retention",
            )
        return task

    def _done(self, request: IRequest, result: MainPart | str) -> Layout | bytes:
        """Return a page, or a redirect to a path."""
        return redirect(request, result) if isinstance(result, str) else self._page(request, result)

    def _page(self, request: IRequest, part: MainPart) -> Layout:
        viewer = current_viewer(request)
        return self._layout(request, part.title, part.content, viewer, status=part.status)

    def _layout(
        self,
        request: IRequest,
        title: str,
        main: Renderable,
        viewer: Viewer | None,
        *,
        live: bool = False,
        status: int = 200,
    ) -> Layout:
        set_page_headers(request, status)
        return Layout(f"{title} \u00b7 callme", main, viewer, self._node(), live=live)

    # Errors

    @app.handle_errors(LoginRequired)
    def _login_required(self, request: IRequest, failure: Failure) -> Layout:
        path = request.uri.decode("latin-1") if request.method == b"GET" else OVERVIEW
        return self._login_form(request, safe_redirect_target(path), 401)

    @app.handle_errors(Exception)
    def _failed(self, request: IRequest, failure: Failure) -> Layout | bytes:
        problem = problem_for(request, failure)
        if is_options(request, problem):
            return b""
        # A page that was only displayed loads again by itself once the database is available.
        live = problem.status == 503 and request.method == b"GET"
        return self._error_page(request, problem, live=live)

    def _error_page(self, request: IRequest, problem: Problem, *, live: bool = False) -> Layout:
        title = problem.title
        viewer = None if access_of(request).is_anonymous else current_viewer(request)
        layout = self._layout(
            request,
            title,
            [
                tags.div(tags.h1(title), class_="head"),
                flash(escape_invisible(_message(problem)), "wrong"),
            ],
            viewer,
            live=live,
            status=problem.status,
        )
        set_head(request, problem.status, problem.headers)
        if problem.refusal is not None:
            mark_refused(request, problem.refusal)
        return layout


def _task_flash(task: Task, parameters: dict[str, str], now: float) -> Renderable:
    """Return the message about an action on a task, with its minute in the zone of the form."""
    done = _FLASHES.get(parameters.get("done", ""), "")
    if not done:
        return ""
    zone = parameters.get("zone", UTC)
    local = local_minute(task.key.trigger_at, zone)
    found: list[Renderable] = [flash(f"{done} It is due at {local} in {zone}." if local else done)]
    if GIVEN_TIME in parameters and not task.damaged:
        warnings = warnings_of(task.definition, parameters[GIVEN_TIME], now)
        found += [flash(f"Warning: {escape_invisible(one.detail)}.", "wrong") for one in warnings]
    return found


def _parse_hours(value: str | None) -> int:
    if value is None:
        return DEFAULT_HOURS
    if value not in map(str, HOURS):
        choices = ", ".join(map(str, HOURS))
        raise Problem(400, f"hours is {quoted(value)}: expected one of {choices}")
    return int(value)


def _check_state(fields: dict[str, str], task: Task) -> None:
    """Reject a form that was rendered when the task had another state.

    A call may have been made since, which a late click must not repeat.

    :raises Problem: 409.
    """
    if fields.get(EXPECTED_STATE_FIELD) != task.state.value:
        raise Problem(409, f"the task is {task.state.value} now: confirm again to continue")


def _message(problem: Problem) -> str:
    """Return the detail of a problem together with that of each of its errors."""
    errors = [error.detail for error in problem.errors]
    return "; ".join([problem.detail, *(text for text in errors if text not in problem.detail)])


async def _gather(
    first: Deferred[A], second: Deferred[B], third: Deferred[C], fourth: Deferred[D]
) -> tuple[A, B, C, D]:
    """Wait for four Deferreds at once; raise the first failure."""
    deferreds: list[Deferred[Any]] = [first, second, third, fourth]
    try:
        result: tuple[A, B, C, D] = tuple(await defer.gatherResults(deferreds, consumeErrors=True))
    except defer.FirstError as error:
        error.subFailure.raiseException()
    return result
