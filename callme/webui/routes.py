"""The pages: ask the store, show what it says; take what a person sends, and do it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from attrs import define, field
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.template import Tag, flattenString, tags

from ..api.problems import problem_for
from ..api.requests import (
    parse_new_time,
    parse_query,
    parse_selector,
    parse_start_from,
    parse_state,
)
from ..api.task_service import TaskService
from ..core.task import Task
from ..core.times import Key
from ..errors import Invalid, quoted
from ..reports.forecaster import Forecaster
from ..reports.history_cache import HistoryCache
from ..security.sessions import SESSION_SECONDS, open_session
from ..security.tokens import Tokens
from ..server.auth import IAnonymous
from ..server.paths import LOGIN, OVERVIEW, TASK, safe_redirect_target, url_for
from ..server.problem import Problem, set_head
from ..server.router import AnyPathConverter
from ..store.interface import Store
from ..worker.scheduler import Scheduler
from .chart_panels import HOURS, ChartCache, insert
from .dashboard import MOST_LISTED, USUAL_HOURS, Dashboard, DashboardData
from .forms import EXPECTED_STATE_FIELD, TIME_FIELD, Confirmation, DeleteForm, LogIn, RescheduleForm
from .layout import ASSETS, Layout, Viewer, redirect, serve_asset, set_page_headers
from .search import MOST_FOUND, SearchResults, render_results
from .session import LoginRequired, check_session, current_viewer, parse_form, set_session
from .task_page import TaskDetail, TaskPage
from .widgets import Renderable, escape_invisible, flash, query

WAIT_SECONDS = 0.02
"""How long a page waits for what is being counted."""
_DONE = {
    "moved": "The task was rescheduled.",
    "deleted": "The task was deleted.",
}
"""What can have been done just before a page is shown."""


@define(eq=False)
class WebUi:
    """callme's pages for people.

    :param outlook: tells what is ahead.
    :param hindsight: tells what happened, by how many hours it looks back.
    :param now: the wall clock: seconds since 1970.
    :param node: gives the daemon's name.
    :param tokens: gives those that people log in with; ``None`` where nobody does.
    """

    _store: Store
    _scheduler: Scheduler
    _changes: TaskService
    _outlook: Forecaster
    _hindsight: dict[int, HistoryCache]
    _now: Callable[[], float]
    _node: Callable[[], str]
    _tokens: Callable[[], Tokens | None] = field(default=lambda: None)

    _drawings: ChartCache = field(factory=ChartCache, init=False)

    app = Klein()
    app.url_map.merge_slashes = False
    app.url_map.converters["path"] = AnyPathConverter

    # What is shown

    @app.route("/", methods=["GET"])
    async def overview(self, request: Request) -> bytes:
        """Show what happened, what is going on and what is due."""
        who = current_viewer(request)
        asked = parse_query(request, ("hours", "done"))
        hours = _hours(asked.get("hours"))
        now = self._now()
        # Both at once: neither waits for the other.
        happening = Deferred.fromCoroutine(self._hindsight[hours].within(WAIT_SECONDS))
        forecast = await self._outlook.forecast_within(hours, WAIT_SECONDS)
        happened = await happening
        figures = await self._store.figures(now)
        glance = await self._store.glance(MOST_LISTED)
        page = Dashboard(
            DashboardData(
                now,
                hours,
                self._scheduler.health(),
                figures,
                glance,
                happened,
                forecast,
                who,
                _DONE.get(asked.get("done", ""), ""),
            )
        )
        frame = self._frame(request, page.headline, page, who, live=True)
        drawn = await self._drawings.past(hours, happened)
        drawn += await self._drawings.ahead(hours, forecast)
        return insert(await flattenString(request, frame), drawn)

    @app.route("/page/task/<path:path>", methods=["GET"])
    async def task(self, request: Request, path: str) -> Layout:
        """Show one task."""
        who = current_viewer(request)
        done = parse_query(request, ("done",)).get("done", "")
        task = await self._task(request, path)
        story = TaskPage(TaskDetail(task, who, _DONE.get(done, "")))
        title = f"{task.key.task_name}: {task.state.value}"
        return self._frame(request, title, story, who, live=True)

    @app.route("/page/find", methods=["GET"])
    async def find(self, request: Request) -> Layout | bytes:
        """Show the tasks whose names begin as somebody says."""
        who = current_viewer(request)
        asked = parse_query(request, ("name", "state", "start_from"))
        prefix = asked.get("name", "").strip()
        # What no name has, no store is asked for: PostgreSQL takes no NUL.
        target = parse_selector(request, prefix)
        if isinstance(target, Key):
            return redirect(request, url_for(TASK, target))
        only = parse_state(asked.get("state"))
        page = await self._store.page(
            start_from=parse_start_from(asked.get("start_from"), None),
            limit=MOST_FOUND,
            state=only,
            prefix=prefix,
        )
        assert page is not None
        title = f"{prefix}\u2026" if prefix else "All tasks"
        return self._frame(request, title, render_results(SearchResults(prefix, only, page)), who)

    @app.route("/page/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        """Serve what a page needs besides itself."""
        if name not in ASSETS:
            raise Problem(404, "there is nothing at this path")
        return serve_asset(request, ASSETS[name])

    # What is done

    @app.route("/page/reschedule/<path:path>", methods=["GET", "POST"])
    async def reschedule(self, request: Request, path: str) -> Layout | bytes:
        """Ask for a new minute; move the task to it."""
        who = current_viewer(request)
        task = await self._task(request, path)
        asked = Confirmation(task, who)
        if request.method != b"POST":
            return self._frame(request, "Reschedule?", RescheduleForm(asked), who)
        fields = parse_form(request)
        check_session(request, fields)
        given = fields.get(TIME_FIELD, "").strip()
        try:
            _check_seen(fields, task)
            trigger_at = parse_new_time({TIME_FIELD: given} if given else {}, self._now())
            moved = await self._changes.reschedule(task.key, trigger_at, include_all_states=True)
            if not moved.moved:
                raise Problem(409, f"{task.key} is running: it cannot be moved now")
        except (Problem, Invalid) as error:
            problem = error if isinstance(error, Problem) else Problem.of(error)
            asked = Confirmation(task, who, _said(problem), given)
            page = RescheduleForm(asked)
            return self._frame(request, "Reschedule?", page, who, status=problem.status)
        return redirect(request, url_for(TASK, moved.moved[0][1]) + query(done="moved"))

    @app.route("/page/delete/<path:path>", methods=["GET", "POST"])
    async def delete(self, request: Request, path: str) -> Layout | bytes:
        """Ask whether a task is to be forgotten; forget it."""
        who = current_viewer(request)
        task = await self._task(request, path)
        if request.method != b"POST":
            return self._frame(request, "Delete?", DeleteForm(Confirmation(task, who)), who)
        fields = parse_form(request)
        check_session(request, fields)
        try:
            _check_seen(fields, task)
            await self._changes.delete(task.key)
        except Problem as problem:
            page = DeleteForm(Confirmation(task, who, _said(problem)))
            return self._frame(request, "Delete?", page, who, status=problem.status)
        return redirect(request, OVERVIEW + query(done="deleted"))

    # Who comes and goes

    @app.route("/page/login", methods=["GET", "POST"])
    def login(self, request: Request) -> Layout | bytes:
        """Ask for a token; give a session for it."""
        tokens = self._tokens()
        if tokens is None:
            return redirect(request, OVERVIEW)
        if request.method != b"POST":
            return self._ask_for_token(request, OVERVIEW, 200)
        fields = parse_form(request)
        after = safe_redirect_target(fields.get("next", OVERVIEW))
        token = fields.get("token", "").strip().encode("utf-8", "replace")
        session = open_session(tokens, token, self._now(), secrets.token_urlsafe(16))
        if session is None:
            return self._ask_for_token(request, after, 401, "callme does not know this token.")
        set_session(request, session, SESSION_SECONDS)
        return redirect(request, after)

    @app.route("/page/logout", methods=["POST"])
    def logout(self, request: Request) -> bytes:
        """Have a browser forget its session."""
        check_session(request, parse_form(request))
        set_session(request, "", 0)
        return redirect(request, LOGIN)

    def _ask_for_token(self, request: IRequest, after: str, status: int, wrong: str = "") -> Layout:
        linked = request.getHeader(b"sec-fetch-site") in (b"cross-site", b"same-site")
        page = LogIn(after, wrong, linked=linked)
        if status == 401:
            request.setHeader(b"www-authenticate", b'Bearer realm="callme"')
        return self._frame(request, "Log in", page, None, status=status)

    async def _task(self, request: Request, path: str) -> Task:
        target = parse_selector(request, path)
        if not isinstance(target, Key):
            raise Problem(404, "say which task: its name, @ and its minute")
        task = await self._store.get(target)
        if task is None:
            raise Problem(404, f"there is no task {target}: it may have been moved or deleted")
        return task

    def _frame(
        self,
        request: IRequest,
        title: str,
        main: Renderable,
        who: Viewer | None,
        *,
        live: bool = False,
        status: int = 200,
    ) -> Layout:
        set_page_headers(request, status)
        return Layout(f"{title} \u00b7 callme", main, who, self._node(), live=live)

    # Errors

    @app.handle_errors(LoginRequired)
    def _unknown(self, request: IRequest, failure: Failure) -> Layout:
        path = request.uri.decode("latin-1") if request.method == b"GET" else OVERVIEW
        return self._ask_for_token(request, safe_redirect_target(path), 401)

    @app.handle_errors(Exception)
    def _failed(self, request: IRequest, failure: Failure) -> Layout:
        problem = problem_for(request, failure)
        # A page that was only displayed loads again by itself once the database is available.
        live = problem.status == 503 and request.method == b"GET"
        return self._wrong(request, problem, live=live)

    def _wrong(self, request: IRequest, problem: Problem, *, live: bool = False) -> Layout:
        title = problem.title
        who = None if IAnonymous.providedBy(request) else current_viewer(request)
        frame = self._frame(
            request,
            title,
            [_heading(title), flash(escape_invisible(_said(problem)), "wrong")],
            who,
            live=live,
            status=problem.status,
        )
        set_head(request, problem.status, problem.headers)
        return frame


def _heading(title: str) -> Tag:
    return tags.div(tags.h1(title), class_="head")


def _hours(given: str | None) -> int:
    if given is None:
        return USUAL_HOURS
    if given not in map(str, HOURS):
        known = ", ".join(map(str, HOURS))
        raise Problem(400, f"hours is {quoted(given)}: expected one of {known}")
    return int(given)


def _check_seen(fields: dict[str, str], task: Task) -> None:
    """Refuse what somebody decided when the task stood otherwise: a call may have been made."""
    if fields.get(EXPECTED_STATE_FIELD) != task.state.value:
        raise Problem(409, f"meanwhile the task is {task.state.value}: is this still meant?")


def _said(problem: Problem) -> str:
    """Return what is wrong, as a sentence with all its parts."""
    errors = [error.detail for error in problem.errors]
    return "; ".join([problem.detail, *(one for one in errors if one not in problem.detail)])
