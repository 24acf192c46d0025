"""The page of tasks that were looked for by name."""

from __future__ import annotations

from attrs import frozen
from twisted.web.template import Tag, tags

from ..core.task import State, Task
from ..server.paths import FIND
from ..store.interface import Page
from .widgets import (
    Renderable,
    escape_invisible,
    failure_reason,
    minute,
    pluralize,
    query,
    state,
    table,
    task_link,
    timestamp,
)

MOST_FOUND = 100
"""Tasks on one page."""


@frozen
class SearchResults:
    """What was found.

    :ivar prefix: what names begin with; empty for all.
    :ivar only: the state that was asked for, if one was.
    """

    prefix: str
    only: State | None
    page: Page


def render_results(what: SearchResults) -> list[Tag]:
    """Return what is between the head and the foot of the page."""
    kind = "tasks" if what.only is None else f"{what.only.value} tasks"
    title = f"All {kind}"
    if what.prefix:
        prefix = escape_invisible(what.prefix)
        title = f"{kind.capitalize()} whose name begins with \u201c{prefix}\u201d"
    head = tags.div(tags.h1(title), _states(what), class_="head")
    if not what.page.tasks:
        return [head, tags.p("There is none.", class_="none")]
    columns = ["Task", "Minute", "State", "Next attempt", "Ended", "Why"]
    listed = table(
        f"{pluralize(len(what.page.tasks), 'task')} by name, then by minute",
        columns,
        [_row(task) for task in what.page.tasks],
        "wide",
    )
    if what.page.next is None:
        return [head, listed]
    href = FIND + _query(what.prefix, what.only, start_from=str(what.page.next))
    return [head, listed, tags.p(tags.a("More", href=href, rel="next"), class_="more")]


def _states(what: SearchResults) -> Tag:
    links = tags.ul()
    for only in (None, State.FAILED):
        link = tags.a(
            "every" if only is None else only.value, href=FIND + _query(what.prefix, only)
        )
        if only is what.only:
            link.attributes["aria-current"] = "true"
        links(tags.li(link))
    states = tags.nav(links, class_="spans")
    states.attributes["aria-label"] = "State"
    return states


def _query(prefix: str, only: State | None, **more: str) -> str:
    state_asked = {} if only is None else {"state": only.value}
    return query(name=prefix, **state_asked, **more)


def _row(task: Task) -> tuple[Renderable, ...]:
    return (
        task_link(task.key),
        minute(task.key.trigger_at),
        state(task.state),
        "\u2013" if task.due_at is None else minute(task.due_at),
        timestamp(task.finished_at_ms),
        failure_reason(task.reason, task.detail),
    )
