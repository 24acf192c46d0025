"""The next tasks by time, and the first steps where the store has no task."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag, tags

from ...core.task import State
from ...server.paths import FIND
from ...store.listing.activity import NextTask, Upcoming
from ..widgets import Renderable, Row, escape_invisible, folded, minute, pluralize, table, task_link
from .filters import Filters

MAX_ROWS = 10
"""Rows in the table of the next tasks."""
_EXAMPLE = """\
curl -X PUT {url}/task/hello{token} \\
  --data '{{"trigger_at": "+1m", "callback": "https://example.com/"}}'"""
_HEADER = ' -H "Authorization: Bearer $TOKEN"'


def list_of_host(host: str) -> str:
    """Return the path of the list of the tasks that call a host."""
    return FIND + Filters(given={"host": host}).query()


def list_of_span(begin: int | None, end: int) -> str:
    """Return the path of the list of the scheduled tasks of some minutes.

    :param begin: the first of them, seconds since 1970; ``None`` for all earlier ones too.
    :param end: the end, exclusive.
    """
    given = {"state": State.SCHEDULED.value, "order": "due"}
    if begin is not None:
        given["due_from"] = str(begin)
    return FIND + Filters(given={**given, "due_before": str(end)}).query()


def host_link(host: str) -> Tag:
    """Return a link to the tasks of a host."""
    return tags.a(escape_invisible(host), href=list_of_host(host))


def render_upcoming(upcoming: Upcoming, now: float) -> Renderable:
    """Return the table of the next tasks.

    :param now: seconds since 1970.
    """
    if not upcoming.tasks:
        return tags.p("No scheduled tasks.", class_="none")
    # The first minute counts: +0m is the current one.
    given = {"state": State.SCHEDULED.value, "order": "due", "due_from": "+0m"}
    count = f"The next {pluralize(len(upcoming.tasks), 'task')}, by time"

    def to_table(rows: Sequence[Row], is_first: bool) -> Tag:
        columns = ["Due", "Task", "Host", "Retry"]
        return table(count if is_first else "Later ones", columns, rows, "wide")

    listed = folded([_row(task, now) for task in upcoming.tasks], to_table, "upcoming")
    href = FIND + Filters(given=given).query()
    return listed(tags.p(tags.a("All coming tasks, by time", href=href), class_="more"))


def _row(task: NextTask, now: float) -> Sequence[Renderable]:
    is_retry = task.due_at > task.key.trigger_at
    return (
        minute(task.due_at, now),
        task_link(task.key),
        host_link(task.host),
        ["retry of ", minute(task.key.trigger_at)] if is_retry else "",
    )


def render_first_steps(base_url: str, *, token: bool) -> Tag:
    """Return the first command, for a store without tasks, and the place of the documentation.

    :param base_url: the scheme and the host of the API.
    :param token: whether the API needs a token.
    """
    command = _EXAMPLE.format(url=base_url, token=_HEADER if token else "")
    section = tags.section(
        tags.h2("First steps", id="first-steps"),
        tags.p("There are no tasks yet. This command registers one that is called in a minute:"),
        tags.pre(command),
        tags.p(
            "The documentation is in the directory ",
            tags.code("docs"),
            " of callme: ",
            tags.code("docs/tour.md"),
            " is the place to start. A description of the API for programs is at ",
            tags.a("/openapi.json", href="/openapi.json"),
            ".",
        ),
    )
    section.attributes["aria-labelledby"] = "first-steps"
    return section
