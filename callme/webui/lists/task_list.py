"""The list of tasks: tabs with counts, filters, a page of tasks, and links to other pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, unquote

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from ...core.callback_url import host_of
from ...core.task import State, Task
from ...core.times import Key, parse_key
from ...errors import InvalidValue
from ...server.paths import DELETE_MANY, FIND, RESCHEDULE_MANY
from ...store.interface import Page
from ...store.listing.counts import Count
from ..layout import Viewer
from ..session import MAX_SELECTED
from ..widgets import (
    Renderable,
    escape_invisible,
    failure_reason,
    in_slices,
    minute,
    minute_of,
    pluralize,
    table,
    task_link,
    task_state,
    timestamp,
)
from .filters import NAME, Filters, filter_form

MAX_RESULTS = MAX_SELECTED
"""Tasks on one page."""
_NEXT, _ENDED, _REASON = "Next attempt", "Ended", "Reason"
SELECTED = "task"
"""The form field with the key of a selected task."""
SELECT = "select"
"""The parameter that selects all tasks of the page, for viewers without scripts."""
ALL = "all"
_COLUMNS = ("Task", "Minute", "Host", "State", _NEXT, _ENDED, _REASON)
_WITHOUT = {
    State.SCHEDULED: frozenset({_ENDED, _REASON}),
    State.RUNNING: frozenset({_NEXT, _ENDED, _REASON}),
    State.SUCCEEDED: frozenset({_NEXT, _REASON}),
    State.FAILED: frozenset({_NEXT}),
}
"""The columns that are empty for all tasks of a state."""


@frozen(kw_only=True)
class TaskList:
    """One page of a list.

    :ivar counts: the number of tasks of each state that the other filters match; empty while they
        are not known.
    :ivar start_from: the first key of the page; ``None`` on the first page.
    :ivar previous: the first key of the page before; ``None`` for the first page.
    :ivar is_selected: whether all tasks of the page are selected at first.
    :ivar now: seconds since 1970.
    :ivar flash: the message about an action that has just been completed, if any.
    """

    filters: Filters
    page: Page
    counts: Mapping[State, Count]
    start_from: Key | None
    previous: Key | None
    is_selected: bool
    viewer: Viewer
    now: float
    flash: Renderable = ""


def title_of(filters: Filters) -> str:
    """Return the title of a list."""
    state = filters.state
    kind = "tasks" if state is None else f"{state.value} tasks"
    prefix = filters.given.get(NAME)
    if prefix is None:
        return "All tasks" if state is None else kind.capitalize()
    return f"{kind.capitalize()} whose names start with \u201c{escape_invisible(prefix)}\u201d"


def render_list(content: TaskList, clock: IReactorTime) -> list[Renderable]:
    """Return the main part of the page.

    :param clock: schedules other work while it is rendered.
    """
    filters, tasks = content.filters, content.page.tasks
    head = tags.div(tags.h1(title_of(filters)), _tabs(filters, content.counts), class_="head")
    main: list[Renderable] = [content.flash, head, filter_form(filters)]
    if not tasks:
        # The rest of a long list may have been examined only in part.
        text = "No tasks found." if content.page.next is None else "No tasks found on this page."
        return [*main, tags.p(text, class_="none"), _paging(content)]
    order = "by time and name" if filters.by_due else "by name and time"
    caption = f"{pluralize(len(tasks), 'task')}, {order}"
    left_out = _WITHOUT[filters.state] if filters.state else frozenset[str]()
    columns = [column for column in _COLUMNS if column not in left_out]
    rows: Iterator[Sequence[Renderable]] = (
        [cell for column, cell in _cells(task, content.now).items() if column in columns]
        for task in tasks
    )
    if content.viewer.may_change:
        columns.insert(0, "Select")
        rows = (
            (_checkbox(number, task.key, is_selected=content.is_selected), *row)
            for number, (task, row) in enumerate(zip(tasks, rows, strict=True))
        )
    listed = table(caption, columns, in_slices(rows, clock), "wide")
    if content.viewer.may_change:
        listed = _selection_form(listed, content)
    return [*main, listed, _paging(content)]


def _tabs(filters: Filters, counts: Mapping[State, Count]) -> Tag:
    links = tags.ul()
    for state in (None, *State):
        label = "All" if state is None else state.value.capitalize()
        count = _count_of(state, counts)
        href = FIND + filters.query(state=None if state is None else state.value)
        link = tags.a(label, href=href)
        if count is not None:
            link(" ", tags.small(count_text(count)))
        if state is filters.state:
            link.attributes["aria-current"] = "true"
        links(tags.li(link))
    tabs = tags.nav(links, class_="options")
    tabs.attributes["aria-label"] = "State"
    return tabs


def _count_of(state: State | None, counts: Mapping[State, Count]) -> Count | None:
    """Return the number of tasks of a state, or of all; ``None`` while it is not known."""
    if not counts:
        return None
    return sum(counts.values(), Count(0)) if state is None else counts[state]


def count_text(count: Count) -> str:
    """Return a count: ``1,234``, or ``10,000+`` for at least that many."""
    return f"{count.number:,}{'' if count.is_exact else '+'}"


def _paging(content: TaskList) -> Tag:
    filters, links = content.filters, list[Renderable]()
    if content.start_from is not None:
        start = {} if content.previous is None else {"start_from": str(content.previous)}
        links.append(tags.a("Previous page", href=FIND + filters.query(**start), rel="prev"))
    if content.page.next is not None:
        href = FIND + filters.query(start_from=str(content.page.next))
        links += [" ", tags.a("Next page", href=href, rel="next")]
    return tags.p(links, class_="more") if links else tags.p()


def _cells(task: Task, now: float) -> Mapping[str, Renderable]:
    """Return the cells of a task by their columns."""
    cells = (
        task_link(task.key),
        minute_of(task.key, now),
        _host(task),
        task_state(task),
        # An empty cell takes no line on a narrow screen.
        minute(task.due_at) if task.due_at not in (None, task.definition.trigger_at) else "",
        timestamp(task.finished_at_ms) if task.finished_at_ms is not None else "",
        failure_reason(task.reason, task.detail),
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def _host(task: Task) -> Renderable:
    try:
        return tags.span(escape_invisible(host_of(task.definition.callback)), class_="host")
    except InvalidValue:
        # The callback is damaged.
        return "\u2013"


# Selected tasks


def field_of(key: Key) -> str:
    """Return the value of the form field of a selected task: its invisible characters survive."""
    return quote(str(key), safe="@")


def key_of(value: str) -> Key:
    """Return the key in a form field.

    :raises InvalidValue: when there is none.
    """
    return parse_key(unquote(value))


def _checkbox(number: int, key: Key, *, is_selected: bool) -> Tag:
    field = f"select-{number}"
    box = tags.input(type="checkbox", id=field, name=SELECTED, value=field_of(key))
    if is_selected:
        box.attributes["checked"] = "checked"
    label = tags.label(f"Select {escape_invisible(str(key))}", class_="unseen")(for_=field)
    return tags.span(box, label)


def _selection_form(listed: Tag, content: TaskList) -> Tag:
    every, none = _selection_links(content)
    delete = tags.button("Delete selected\u2026", class_="do bad", formaction=DELETE_MANY)
    actions = tags.p(
        every,
        " ",
        none,
        " ",
        tags.button("Reschedule selected\u2026", class_="do"),
        " ",
        delete,
        class_="actions",
    )
    return tags.form(
        content.viewer.csrf_field(),
        actions,
        _actions_on_all(content) if content.filters.narrows else "",
        listed,
        action=RESCHEDULE_MANY,
        method="post",
        class_="bulk",
    )


def _selection_links(content: TaskList) -> tuple[Tag, Tag]:
    """Return the links that select all tasks of the page, or none: a script needs no reload."""
    start = {} if content.start_from is None else {"start_from": str(content.start_from)}
    number = len(content.page.tasks)
    label = f"Select all {number:,} on this page" if number > 1 else "Select the task on this page"
    every = tags.a(label, href=FIND + content.filters.query(**start, **{SELECT: ALL}))
    none = tags.a("Select none", href=FIND + (content.filters.query(**start) or "?"))
    every.attributes["data-select"], none.attributes["data-select"] = ALL, "none"
    return every, none


def _actions_on_all(content: TaskList) -> Tag:
    """Return the links to actions on all tasks that the filters match."""
    count = _count_of(content.filters.state, content.counts)
    number = "" if count is None else f" {count_text(count)}"
    narrowed, rest = content.filters.query(), f" all{number} that match\u2026"
    return tags.p(
        tags.a(f"Reschedule{rest}", href=RESCHEDULE_MANY + narrowed, class_="do"),
        " ",
        tags.a(f"Delete{rest}", href=DELETE_MANY + narrowed, class_="do bad"),
        class_="actions",
    )
