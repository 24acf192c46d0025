"""The page of search results: tasks by the beginning of their names."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from ..core.task import State, Task
from ..server.paths import FIND
from ..store.interface import Page
from .widgets import (
    Renderable,
    escape_invisible,
    failure_reason,
    in_slices,
    minute,
    pluralize,
    query,
    table,
    task_link,
    task_state,
    timestamp,
)

MAX_RESULTS = 100
"""Tasks on one page."""


@frozen(kw_only=True)
class SearchResults:
    """One page of search results.

    :ivar prefix: the beginning of the names; empty for all tasks.
    :ivar only: the state of the tasks; ``None`` for all states.
    """

    prefix: str
    only: State | None
    page: Page


def render_results(results: SearchResults, clock: IReactorTime) -> list[Tag]:
    """Return the main part of the page.

    :param clock: schedules other work while it is rendered.
    """
    kind = "tasks" if results.only is None else f"{results.only.value} tasks"
    title = "All tasks" if results.only is None else kind.capitalize()
    if results.prefix:
        prefix = escape_invisible(results.prefix)
        title = f"{kind.capitalize()} whose names start with \u201c{prefix}\u201d"
    head = tags.div(tags.h1(title), _state_filter(results), class_="head")
    if not results.page.tasks:
        return [head, tags.p("No tasks found.", class_="none")]
    listed = table(
        f"{pluralize(len(results.page.tasks), 'task')}, by name and minute",
        ["Task", "Minute", "State", "Next attempt", "Ended", "Reason"],
        in_slices(map(_row, results.page.tasks), clock),
        "wide",
    )
    if results.page.next is None:
        return [head, listed]
    href = FIND + _query(results.prefix, results.only, start_from=str(results.page.next))
    return [head, listed, tags.p(tags.a("Next page", href=href, rel="next"), class_="more")]


def _state_filter(results: SearchResults) -> Tag:
    links = tags.ul()
    for only, label in ((None, "All"), (State.FAILED, "Failed")):
        link = tags.a(label, href=FIND + _query(results.prefix, only))
        if only is results.only:
            link.attributes["aria-current"] = "true"
        links(tags.li(link))
    filter_links = tags.nav(links, class_="options")
    filter_links.attributes["aria-label"] = "State"
    return filter_links


def _query(prefix: str, only: State | None, **more: str) -> str:
    state_filter = {} if only is None else {"state": only.value}
    return query(name=prefix, **state_filter, **more)


def _row(task: Task) -> tuple[Renderable, ...]:
    return (
        task_link(task.key),
        minute(task.key.trigger_at),
        task_state(task),
        "\u2013" if task.due_at is None else minute(task.due_at),
        timestamp(task.finished_at_ms),
        failure_reason(task.reason, task.detail),
    )
