"""The dashboard: health, figures, charts, recent failures and calls in flight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from ..core.task import State, Task
from ..core.times import to_ms
from ..reports.failures import MAX_FAILURE_COUNT, OpenFailures
from ..reports.forecast import Forecast
from ..reports.history import Bucket, HistorySnapshot
from ..server.paths import ACKNOWLEDGE, FIND, HOSTS, OVERVIEW, RESCHEDULE, url_for
from ..store.interface import MAX_BACKLOG_COUNT, ActivitySnapshot, StoreStats
from ..store.listing.activity import FailureGroups, Upcoming
from ..worker.scheduler import Health
from .chart_panels import HOURS, in_words
from .layout import Viewer
from .lists.failures import render_recent_groups
from .lists.upcoming import render_upcoming
from .widgets import (
    Filled,
    Renderable,
    Row,
    bdi,
    clock_time,
    definition_list,
    duration,
    escape_invisible,
    failure_reason,
    flash,
    folded,
    minute_of,
    pluralize,
    query,
    table,
    task_link,
    timestamp,
)

DEFAULT_HOURS = 3
UNTIL_FIELD = "until_ms"
"""The form field with the end of the last failure to acknowledge, in ms since 1970."""
MAX_ROWS = 20
"""Maximum number of rows in the tables of recent failures and of calls in flight."""
_LATE_SECONDS = 90
"""The age of the oldest due task at which calls count as late: one tick and its work."""


@frozen(kw_only=True)
class DashboardData:
    """The content of the dashboard.

    :ivar now: seconds since 1970.
    :ivar hours: the length of the period before and after now.
    :ivar scheduler: the state of the scheduler.
    :ivar history: ``None`` if there is no recent snapshot; the same holds for ``forecast``.
    :ivar open_failures: the failures of these hours that are not acknowledged.
    :ivar first_steps: the first command, for a store without tasks.
    :ivar flash: the message about an action that has just been completed, if any.
    """

    now: float
    hours: int
    scheduler: Health
    stats: StoreStats
    activity: ActivitySnapshot
    groups: FailureGroups
    upcoming: Upcoming
    history: HistorySnapshot | None
    forecast: Forecast | None
    open_failures: OpenFailures
    viewer: Viewer
    first_steps: Renderable = ""
    flash: str = ""

    @property
    def total(self) -> Bucket | None:
        """The outcomes of all past hours."""
        history = self.history
        return None if history is None else history.total

    @property
    def health(self) -> tuple[str, str]:
        """The health as a style class, ``good``, ``bad`` or ``paused``, and as a headline."""
        if not self.scheduler.ticking:
            return "bad", "Scheduler stopped: no calls are being made"
        if self.scheduler.all_paused:
            return "paused", "Paused: no calls are started"
        if self.stats.oldest_due > _LATE_SECONDS:
            due, oldest = self._backlog, duration(to_ms(self.stats.oldest_due))
            return "bad", f"Calls are late: {due} due, the oldest for {oldest}"
        if self.open_failures.count:
            return "bad", f"{self._failed} failed {self._since}"
        if self.forecast is not None and self.forecast.overloads:
            return "bad", "Overload ahead: some calls will start too late"
        if self.scheduler.paused_hosts:
            return "paused", f"All is well, and {self._paused}"
        return "good", "All is well"

    @property
    def _paused(self) -> str:
        """The pauses of single hosts in words."""
        number = self.scheduler.paused_hosts
        return f"{pluralize(number, 'host')} {'is' if number == 1 else 'are'} paused"

    @property
    def pauses(self) -> Renderable:
        """The active pauses, with a link to the hosts; an empty text without any."""
        scheduler = self.scheduler
        if not scheduler.all_paused and not scheduler.paused_hosts:
            return ""
        text = "All hosts are paused" if scheduler.all_paused else self._paused
        return tags.p(text, ": ", tags.a("hosts", href=HOSTS), class_="pauses")

    @property
    def _backlog(self) -> str:
        return _at_least(self.stats.backlog, MAX_BACKLOG_COUNT)

    @property
    def _failed(self) -> str:
        return _at_least(self.open_failures.count, MAX_FAILURE_COUNT)

    @property
    def _since(self) -> str:
        if self.acknowledged_until_ms is None:
            return f"in the last {in_words(self.hours)}"
        return f"since {clock_time(self.acknowledged_until_ms // 1000)}"

    @property
    def acknowledged_until_ms(self) -> int | None:
        """The end up to which failures of these hours are acknowledged, in ms since 1970."""
        until_ms = self.open_failures.acknowledged_until_ms
        return until_ms if until_ms > failures_since_ms(self.now, self.hours) else None


def failures_since_ms(now: float, hours: int) -> int:
    """Return the start of the period whose failures the headline names, in ms since 1970."""
    return to_ms(now) - hours * 3_600_000


def _at_least(count: int, limit: int) -> str:
    """Return a number of tasks that was counted up to a limit."""
    return f"{count:,} or more tasks" if count >= limit else pluralize(count, "task")


def render_dashboard(data: DashboardData) -> Filled:
    """Return the main part of the dashboard."""
    kind, headline = data.health
    return Filled(
        "dashboard",
        flash=flash(data.flash) if data.flash else "",
        health=f"health {kind}",
        headline=headline,
        pauses=data.pauses,
        now=timestamp(to_ms(data.now)),
        snapshots=_snapshot_times(data),
        acknowledge=_acknowledge(data),
        range_picker=_range_picker(data.hours),
        stat_tiles=definition_list(_stat_tiles(data)),
        groups=render_recent_groups(data.groups, data.viewer, data.now),
        failures=_failures(data),
        first_steps=data.first_steps if data.upcoming.is_empty else "",
        upcoming=render_upcoming(data.upcoming, data.now),
        in_flight=_in_flight(data),
    )


def _snapshot_times(data: DashboardData) -> list[Renderable]:
    """Return the times of snapshots that are older than the rest of the page."""
    times: list[Renderable] = []
    for name, snapshot in (("History", data.history), ("Forecast", data.forecast)):
        if snapshot is not None and data.now - snapshot.as_of >= 1:
            times += [f"{name} as of ", timestamp(to_ms(snapshot.as_of)), ". "]
    return times


def _acknowledge(data: DashboardData) -> Renderable:
    """Return the form that acknowledges the failures, or up to when they are acknowledged."""
    latest_ms = data.open_failures.latest_ms
    if latest_ms is not None and data.viewer.may_change:
        return tags.form(
            data.viewer.csrf_field(),
            # Failures after those on the page stay in the headline.
            tags.input(type="hidden", name=UNTIL_FIELD, value=str(latest_ms)),
            tags.button("Acknowledge the failures"),
            action=ACKNOWLEDGE,
            method="post",
            class_="actions",
        )
    if data.acknowledged_until_ms is None:
        return ""
    until = timestamp(data.acknowledged_until_ms, data.now)
    return tags.p("Failures until ", until, " are acknowledged.", class_="asof")


def _range_picker(hours: int) -> Tag:
    links = tags.ul()
    for choice in HOURS:
        link = tags.a(f"{choice} h", href=OVERVIEW + query(hours=choice))
        if choice == hours:
            link.attributes["aria-current"] = "true"
        links(tags.li(link))
    picker = tags.nav(links, class_="options")
    picker.attributes["aria-label"] = "Time range"
    return picker


def _stat_tiles(data: DashboardData) -> Iterable[tuple[str, Renderable]]:
    total, stats = data.total, data.stats
    yield "In flight", f"{data.activity.running:,}"
    oldest = f", oldest for {duration(to_ms(stats.oldest_due))}" if stats.backlog else ""
    more = "+" if stats.backlog >= MAX_BACKLOG_COUNT else ""
    yield "Due now", [f"{stats.backlog:,}{more}", tags.small(oldest)]
    ahead = None if data.forecast is None else sum(data.forecast.minutes.values())
    yield f"Due, next {data.hours} h", _number(ahead)
    yield f"Succeeded, last {data.hours} h", _number(None if total is None else total.succeeded)
    yield f"Failed, last {data.hours} h", _number(None if total is None else total.failed)
    yield "Lateness, p50", duration(None if total is None else total.p50_ms)
    yield "Lateness, p99", duration(None if total is None else total.p99_ms)


def _number(count: int | None) -> str:
    """Return a number; a dash for ``None``."""
    return "\u2013" if count is None else f"{count:,}"


def _failures(data: DashboardData) -> Tag:
    failures, viewer = data.activity.failures, data.viewer
    if not failures:
        return tags.p("No failed tasks.", class_="none")
    columns = ["Ended", "Task", "Minute", "Reason"]
    if viewer.may_change:
        columns.append("Actions")
    count = f"{pluralize(len(failures), 'failed task')}, latest first"

    def to_table(rows: Sequence[Row], is_first: bool) -> Tag:
        return table(count if is_first else "Earlier ones", columns, rows, "wide")

    listed = folded([_failure(task, viewer, data.now) for task in failures], to_table, "failures")
    href = FIND + query(name="", state=State.FAILED.value)
    return listed(tags.p(tags.a("All failed tasks", href=href), class_="more"))


def _failure(task: Task, viewer: Viewer, now: float) -> Sequence[Renderable]:
    row: list[Renderable] = [
        timestamp(task.finished_at_ms, now),
        task_link(task.key),
        minute_of(task.key),
        failure_reason(task.reason, task.detail),
    ]
    if viewer.may_change:
        link = tags.a("Reschedule\u2026", href=url_for(RESCHEDULE, task.key))
        link.attributes["aria-label"] = f"Reschedule {escape_invisible(str(task.key))}"
        row.append(link)
    return row


def _in_flight(data: DashboardData) -> Tag:
    activity = data.activity
    if not activity.running:
        return tags.p("No calls in flight.", class_="none")
    rows = [
        (
            task_link(call.key),
            minute_of(call.key),
            f"{call.number}",
            escape_invisible(call.host),
            timestamp(call.since_ms),
            duration(max(0, to_ms(data.now) - call.since_ms)),
            bdi(call.node or "\u2013"),
        )
        for call in activity.in_flight
    ]
    longest = "" if len(rows) == activity.running else f", the longest {len(rows)} of them"
    return table(
        f"{pluralize(activity.running, 'call')} in flight{longest}",
        ["Task", "Minute", "#Attempt", "Host", "Started", "#Duration", "Daemon"],
        rows,
        "wide",
    )
