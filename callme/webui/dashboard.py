"""The first page: what happened, what is going on, what is due, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from ..core.task import State, Task
from ..core.times import to_ms
from ..reports.forecast import Forecast
from ..reports.history import Bucket, aggregate
from ..reports.history_cache import HistorySnapshot
from ..server.paths import FIND, OVERVIEW, RESCHEDULE, url_for
from ..store.interface import MAX_BACKLOG_COUNT, ActivitySnapshot, StoreStats
from ..worker.scheduler import Health
from .chart_panels import HOURS, in_words
from .layout import Viewer
from .widgets import (
    Renderable,
    bdi,
    definition_list,
    duration,
    escape_invisible,
    failure_reason,
    flash,
    minute,
    pluralize,
    query,
    table,
    task_link,
    template,
    timestamp,
)

USUAL_HOURS = 3
MOST_LISTED = 20
"""How many failures, and how many calls under way, are listed."""
_WAITING_SECONDS = 90
"""How long a task may be due before the page says so: a tick and what it takes."""


@frozen
class DashboardData:
    """What the page tells.

    :ivar happened: ``None`` where it was not counted lately, as is ``forecast``.
    :ivar flash: what has just been done.
    """

    now: float
    hours: int
    health: Health
    figures: StoreStats
    glance: ActivitySnapshot
    happened: HistorySnapshot | None
    forecast: Forecast | None
    who: Viewer
    flash: str = ""

    @property
    def total(self) -> Bucket | None:
        """What ended in the last hours, all together."""
        happened = self.happened
        return None if happened is None else aggregate(happened.ended, happened.begin)

    @property
    def is_waiting(self) -> bool:
        """Whether tasks have been due for too long."""
        return self.figures.oldest_due > _WAITING_SECONDS

    @property
    def headline(self) -> tuple[str, str]:
        """How it goes, in a few words, and whether that is good."""
        if not self.health.ticking:
            return "bad", "callme does not tick: no task is called"
        if self.is_waiting:
            return "bad", f"{self.waiting} due and not called yet"
        if self.failed:
            return "bad", f"{self.failed} failed in the {self.last}"
        if self.forecast is not None and self.forecast.overloads:
            return "bad", "More is due than can be called in time"
        return "good", "All is well"

    @property
    def waiting(self) -> str:
        """How many tasks are due."""
        backlog = self.figures.backlog
        return f"{pluralize(backlog, 'task')}{' or more' if backlog >= MAX_BACKLOG_COUNT else ''}"

    @property
    def failed(self) -> str:
        """How many tasks failed in the last hours; empty where none did."""
        total = self.total
        if total is not None:
            return pluralize(total.failed, "task") if total.failed else ""
        # Not counted yet, but the last failures are known: none lately among them is none.
        since = (self.now - self.hours * 3600) * 1000
        lately = sum((task.finished_at_ms or 0) >= since for task in self.glance.failures)
        more = " or more" if lately >= MOST_LISTED else ""
        return f"{pluralize(lately, 'task')}{more}" if lately else ""

    @property
    def last(self) -> str:
        """The hours before now, in words."""
        return f"last {in_words(self.hours)}"


class Dashboard(Element):
    """What is between the head and the foot of the page."""

    loader = template("overview")

    def __init__(self, view: DashboardData) -> None:
        super().__init__()
        self._view = view

    @property
    def headline(self) -> str:
        """How it goes, in a few words."""
        return self._view.headline[1]

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        view = self._view
        mood, headline = view.headline
        return tag.fillSlots(
            notice=flash(view.flash) if view.flash else "",
            mood=f"mood {mood}",
            headline=headline,
            now=timestamp(to_ms(view.now)),
            counted=_counted(view),
            spans=_spans(view.hours),
            figures=definition_list(_figures(view)),
            failures=_failures(view.glance.failures, view.who),
            running=_running(view),
        )


def _counted(view: DashboardData) -> list[Renderable]:
    said: list[Renderable] = []
    for what, counted in (
        ("What happened", None if view.happened is None else view.happened.as_of),
        ("What is ahead", None if view.forecast is None else view.forecast.as_of),
    ):
        # Where there is none, its place says so.
        if counted is not None and view.now - counted >= 1:
            said += [f"{what} as of ", timestamp(to_ms(counted)), ". "]
    return said


def _spans(hours: int) -> Tag:
    links = tags.ul()
    for some in HOURS:
        link = tags.a(f"{some} h", href=OVERVIEW + query(hours=some))
        if some == hours:
            link.attributes["aria-current"] = "true"
        links(tags.li(link))
    spans = tags.nav(links, class_="spans")
    spans.attributes["aria-label"] = "Hours back and ahead"
    return spans


def _figures(view: DashboardData) -> Iterable[tuple[str, Renderable]]:
    total = view.total
    yield "Running", f"{view.glance.running:,}"
    oldest = ""
    if view.figures.backlog:
        oldest = f", for {duration(to_ms(view.figures.oldest_due))} at most"
    most = "+" if view.figures.backlog >= MAX_BACKLOG_COUNT else ""
    yield "Due now", [f"{view.figures.backlog:,}{most}", tags.small(oldest)]
    ahead = None if view.forecast is None else sum(view.forecast.minutes.values())
    yield f"Due in {view.hours} h", _number(ahead)
    yield f"Succeeded in {view.hours} h", _number(None if total is None else total.succeeded)
    yield f"Failed in {view.hours} h", _number(None if total is None else total.failed)
    yield "Lateness, p50", duration(None if total is None else total.p50)
    yield "Lateness, p99", duration(None if total is None else total.p99)


def _number(counted: int | None) -> str:
    """Return a number; a dash for what is not counted yet."""
    return "\u2013" if counted is None else f"{counted:,}"


def _failures(failures: Sequence[Task], who: Viewer) -> Tag:
    if not failures:
        return tags.p("No task on record has failed.", class_="none")
    columns = ["Ended", "Task", "Minute", "Why"]
    if who.may_change:
        columns.append("To do")
    rows = [_failure(task, who) for task in failures]
    listed = table(
        f"The last {pluralize(len(failures), 'task')} that failed", columns, rows, "wide"
    )
    href = FIND + query(name="", state=State.FAILED.value)
    return tags.div(listed, tags.p(tags.a("All that failed, by name", href=href), class_="more"))


def _failure(task: Task, who: Viewer) -> Sequence[Renderable]:
    row: list[Renderable] = [
        timestamp(task.finished_at_ms),
        task_link(task.key),
        minute(task.key.trigger_at),
        failure_reason(task.reason, task.detail),
    ]
    if who.may_change:
        link = tags.a("Reschedule\u2026", href=url_for(RESCHEDULE, task.key))
        link.attributes["aria-label"] = f"Reschedule {escape_invisible(str(task.key))}"
        row.append(link)
    return row


def _running(view: DashboardData) -> Tag:
    glance = view.glance
    if not glance.running:
        return tags.p("No call is under way.", class_="none")
    rows = [
        (
            task_link(one.key),
            minute(one.key.trigger_at),
            f"{one.number}",
            escape_invisible(one.host),
            timestamp(one.since),
            duration(max(0, to_ms(view.now) - one.since)),
            bdi(one.node or "\u2013"),
        )
        for one in glance.in_flight
    ]
    listed = "" if len(rows) == glance.running else f", the longest {len(rows)} of them"
    return table(
        f"{pluralize(glance.running, 'call')} under way{listed}",
        ["Task", "Minute", "#Attempt", "To", "Since", "#For", "Daemon"],
        rows,
        "wide",
    )
