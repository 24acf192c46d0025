"""Actions on many tasks: the page that previews and confirms one, and the action itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen
from twisted.web.template import Tag, tags

from ...api.requests import MAX_SPREAD_MINUTES
from ...core.task import State, Task
from ...core.times import Key
from ...server.paths import DELETE_MANY, FIND
from ...store.listing.counts import Count
from ..layout import Viewer
from ..task.new_task import ACTION_FIELD, PREVIEW
from ..task.time_fields import TIME_FIELD, Meaning, TimeInput, time_fields
from ..widgets import (
    Renderable,
    escape_invisible,
    failure_reason,
    flash,
    minute_of,
    pluralize,
    table,
    task_link,
    task_state,
)
from .filters import NAME, Filters
from .task_list import SELECTED, count_text, field_of

MAX_PREVIEW = 10
"""Maximum number of tasks that the page names."""
CONFIRMED = "confirmed"
"""The field that distinguishes the form of the page from forms that lead to it."""
EXPECTED = "expected"
"""The field with the number of tasks at the time the form was rendered."""
SPREAD = "spread"
_MORE_SHARE, _MORE_TASKS = 0.1, 10
"""Tolerated excess of tasks over the expected number: a share, or a number."""


@frozen(kw_only=True)
class Target:
    """Tasks of an action: selected ones, or all that filters match.

    :ivar keys: the selected tasks; empty for all that match.
    """

    filters: Filters = field(factory=Filters)
    keys: Sequence[Key] = ()

    def path(self, prefix: str) -> str:
        """Return the path of a page about these tasks."""
        return prefix + ("" if self.keys else self.filters.query())


@frozen(kw_only=True)
class MovePreview:
    """The effect that a reschedule would have.

    :ivar moved: the number of tasks that would move, as ``skipped`` is of those that would not.
    :ivar last_at: the last minute that a task would move to, seconds since 1970.
    """

    meaning: Meaning
    moved: int
    skipped: int
    last_at: int

    def render(self, now: float) -> Tag:
        """Return it as a message."""
        text: list[Renderable] = ["New time: ", self.meaning.render(now)]
        text.append(f" {pluralize(self.moved, 'task')} would move")
        if self.last_at > self.meaning.trigger_at:
            last = Meaning(trigger_at=self.last_at, zone=self.meaning.zone)
            text += [", the last of them to ", last.render(now)]
        else:
            text.append(".")
        if self.skipped:
            text.append(f" {pluralize(self.skipped, 'task')} would be skipped.")
        return flash(text)


@frozen(kw_only=True)
class BulkConfirmation:
    """The content of the page that confirms an action.

    :ivar path: that of the action.
    :ivar count: the number of the tasks.
    :ivar tasks: the first of them.
    :ivar now: seconds since 1970.
    :ivar given: the fields of a submission that was rejected or previewed; empty before.
    :ivar errors: the errors of that submission, by the names of fields; "" for no single one.
    :ivar preview: the effect of that submission, if the viewer requested a preview.
    """

    path: str
    target: Target
    count: Count
    tasks: Sequence[Task]
    viewer: Viewer
    now: float
    given: Mapping[str, str] = field(factory=dict)
    errors: Mapping[str, str] = field(factory=dict)
    preview: MovePreview | None = None

    @property
    def verb(self) -> str:
        """The name of the action."""
        return "Delete" if self.path == DELETE_MANY else "Reschedule"

    @property
    def question(self) -> str:
        """The title of the page."""
        noun = "task" if self.count == Count(1) else "tasks"
        return f"{self.verb} {count_text(self.count)} {noun}?"


def render_confirmation(content: BulkConfirmation) -> list[Renderable]:
    """Return the main part of the page."""
    target = content.target
    head = tags.div(
        tags.h1(content.question),
        tags.p(describe(target), class_="summary"),
        class_="head",
    )
    if not content.tasks:
        link = tags.a("Back to the tasks", href=FIND)
        return [head, tags.p("No tasks match now. ", link, class_="none")]
    return [head, _form(content), _preview(content)]


def describe(target: Target) -> str:
    """Return the tasks of an action in words."""
    if target.keys:
        return "The selected tasks."
    filters = target.filters
    words = {NAME: "name starts with", "due_from": "due from", "due_before": "due before"}
    parts = [
        f"{words.get(name, name)} {value}"
        for name, value in filters.given.items()
        if name != "order"
    ]
    parts += [f"label {label}" for label in filters.labels]
    return escape_invisible(f"All tasks that match: {', '.join(parts)}.")


def _form(content: BulkConfirmation) -> Tag:
    # An error of the time stands beside its fields.
    errors = "; ".join(text for name, text in content.errors.items() if name != TIME_FIELD)
    hidden = [
        tags.input(type="hidden", name=CONFIRMED, value="yes"),
        tags.input(type="hidden", name=EXPECTED, value=str(content.count.number)),
        *(tags.input(type="hidden", name=SELECTED, value=field_of(k)) for k in content.target.keys),
    ]
    is_delete = content.path == DELETE_MANY
    message: Renderable = ""
    if errors:
        message = flash(escape_invisible(errors), "wrong")(id="error")
    elif content.preview is not None:
        message = content.preview.render(content.now)
    return tags.form(
        message,
        _effect(content),
        [] if is_delete else [_time_fields(content), _spread_field(content)],
        [*content.viewer.csrf_field(), *hidden],
        tags.p(
            tags.button(content.verb, class_="go bad" if is_delete else "go"),
            " ",
            "" if is_delete else tags.button("Preview", name=ACTION_FIELD, value=PREVIEW),
            " ",
            tags.a("Back to the tasks", href=content.target.path(FIND)),
            class_="actions",
        ),
        action=content.target.path(content.path),
        method="post",
        class_="confirm",
    )


def _effect(content: BulkConfirmation) -> Tag:
    if content.path == DELETE_MANY:
        text = (
            "The tasks and their attempts are deleted permanently. Scheduled ones are not called."
        )
    else:
        text = "The tasks are called at the new time, with their full number of attempts."
        if content.target.filters.state in (None, State.SUCCEEDED):
            text += " This includes tasks that have succeeded already."
    text += " Tasks that are running are skipped."
    if not content.count.is_exact:
        text += f" Only the first {content.count.number:,} tasks are changed."
    return tags.p(text)


def _time_fields(content: BulkConfirmation) -> Tag:
    time = TimeInput.of(content.given) if content.given else TimeInput(is_new=True)
    errors = [content.errors[TIME_FIELD]] if TIME_FIELD in content.errors else []
    return time_fields(time, errors, "The default is the next minute.")


def _spread_field(content: BulkConfirmation) -> list[Tag]:
    value = content.given.get(SPREAD, "0")
    control = tags.input(
        id=SPREAD, name=SPREAD, type="number", min="0", max=str(MAX_SPREAD_MINUTES), value=value
    )
    hint = tags.p(
        "An endpoint that was down may not be able to handle all calls at once.",
        id="spread-hint",
        class_="hint",
    )
    described = "spread-hint"
    if SPREAD in content.errors:
        control.attributes["aria-invalid"] = "true"
        described = "error spread-hint"
    control.attributes["aria-describedby"] = described
    return [tags.p(tags.label("Spread over (minutes)")(for_=SPREAD), control), hint]


def _preview(content: BulkConfirmation) -> Tag:
    rows = [
        (
            task_link(task.key),
            minute_of(task.key, content.now),
            task_state(task),
            failure_reason(task.reason, task.detail),
        )
        for task in content.tasks
    ]
    caption = (
        f"The first {len(rows)} of them" if len(rows) < content.count.number else "All of them"
    )
    return table(caption, ["Task", "Minute", "State", "Reason"], rows, "wide")


def has_many_more(count: Count, expected: str) -> bool:
    """Return whether an action would find many more tasks than its form displayed."""
    if not expected.isdecimal() or len(expected) > 9:
        return True
    most = int(expected) + max(_MORE_TASKS, int(_MORE_SHARE * int(expected)))
    return count.number > most
