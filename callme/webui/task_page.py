"""One task's page: how it stands, attempt by attempt, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from ..core.headers import redact_secrets
from ..core.parameters import PARAMETERS
from ..core.task import Attempt, State, Task
from ..server.paths import DELETE, FIND, RESCHEDULE, url_for
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
    state,
    table,
    template,
    timestamp,
    truncate,
)

LEFT_ALONE = "While it is called it can be neither moved nor deleted."
_LINES = "\n\t"
"""Controls that show as they are in a text of several lines."""


@frozen
class TaskDetail:
    """What a task's page tells.

    :ivar flash: what has just been done.
    """

    task: Task
    who: Viewer
    flash: str = ""


class TaskPage(Element):
    """What is between the head and the foot of the page."""

    loader = template("task")

    def __init__(self, story: TaskDetail) -> None:
        super().__init__()
        self._story = story

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        task = self._story.task
        return tag.fillSlots(
            notice=flash(self._story.flash) if self._story.flash else "",
            name=bdi(task.key.task_name),
            state=state(task.state),
            standing=standing(task),
            actions=_actions(task) if self._story.who.may_change else "",
            attempts=_attempts(task),
            facts=definition_list(_facts(task)),
            headers=_headers(task),
            payload=_payload(task),
            others=tags.a(
                "Tasks whose name begins likewise", href=FIND + query(name=task.key.task_name)
            ),
        )


def standing(task: Task) -> list[Renderable]:
    """Return how a task stands, in a sentence."""
    due: list[Renderable] = ["due ", minute(task.key.trigger_at)]
    if task.state is State.SCHEDULED:
        if task.due_at is None or task.due_at == task.key.trigger_at:
            return [*due, "."]
        return [*due, "; to be tried again at ", minute(task.due_at), "."]
    if task.state is State.RUNNING:
        return [*due, f"; attempt {_running_number(task)} is under way."]
    ended: list[Renderable] = [*due, "; ended at ", timestamp(task.finished_at_ms), "."]
    return [*ended, " ", failure_reason(task.reason, task.detail)]


def _running_number(task: Task) -> int:
    return max((one.number for one in task.attempts or ()), default=0) + 1


def _actions(task: Task) -> Tag:
    if task.state is State.RUNNING:
        return tags.p(LEFT_ALONE, class_="none")
    return tags.p(
        tags.a("Reschedule\u2026", href=url_for(RESCHEDULE, task.key), class_="do"),
        " ",
        tags.a("Delete\u2026", href=url_for(DELETE, task.key), class_="do bad"),
        class_="actions",
    )


def _attempts(task: Task) -> Tag:
    attempts = task.attempts or ()
    rows = [
        _row(one, _after(task, number, attempts)) for number, one in enumerate(attempts, start=1)
    ]
    if task.state is State.RUNNING:
        rows.append((str(_running_number(task)), "\u2013", "", "", "", "under way", "", ""))
    if not rows:
        never = "No request was made." if task.finished_at_ms is not None else "None yet."
        return tags.p(never, class_="none")
    columns = ["#No.", "Started", "#Late", "#Took", "#Status", "Outcome", "Daemon", "Next"]
    return table(pluralize(len(rows), "attempt"), columns, rows, "wide")


def _row(attempt: Attempt, after: Renderable) -> Sequence[Renderable]:
    outcome = tags.div(state(State.SUCCEEDED if attempt.reason is None else State.FAILED))
    outcome(" ", failure_reason(attempt.reason, attempt.detail))
    if attempt.body:
        opening = tags.summary("What it answered")
        answered = tags.details(opening, tags.pre(escape_invisible(attempt.body, _LINES)))
        answered.attributes["id"] = f"answer-{attempt.number}"
        outcome(answered)
    return (
        str(attempt.number),
        timestamp(attempt.started_at_ms),
        duration(attempt.lateness_ms),
        duration(attempt.duration_ms),
        "\u2013" if attempt.status is None else str(attempt.status),
        outcome,
        bdi(attempt.node or "\u2013"),
        tags.span(after),
    )


def _after(task: Task, number: int, attempts: Sequence[Attempt]) -> Renderable:
    """Return what came after the attempt of this place, the first being 1."""
    first = len(attempts) - task.attempts_used + (task.state is State.RUNNING)
    if number < len(attempts):
        if number == first:
            return "rescheduled, then tried anew"
        return ["tried again ", timestamp(attempts[number].started_at_ms)]
    if task.state is State.RUNNING:
        return "rescheduled, then called" if number == first else "tried again now"
    if task.state is State.SCHEDULED and task.due_at is not None:
        again = "rescheduled to " if number == first else "to be tried again "
        return [again, minute(task.due_at)]
    if task.state is State.SUCCEEDED:
        return "done"
    return "given up"


def _facts(task: Task) -> Iterable[tuple[str, Renderable]]:
    definition = task.definition
    allowed = 1 + definition.retry
    yield "Key", tags.code(escape_invisible(str(task.key)))
    yield "Minute", minute(definition.trigger_at)
    yield "Attempts", f"{task.attempts_used} made, {task.attempts_left} left of {allowed}"
    yield "Expires", minute(definition.expires_at)
    for parameter in PARAMETERS:
        value = getattr(definition, parameter.name)
        if parameter.label is not None and value is not None:
            text = escape_invisible(parameter.to_text(value))
            yield parameter.label, tags.code(text) if parameter.is_code else text
    yield "Registered", timestamp(task.created_at_ms)


def _headers(task: Task) -> Tag | str:
    headers = redact_secrets(task.definition.headers)
    if not headers:
        return ""
    rows = [
        (tags.code(escape_invisible(one)), escape_invisible(value))
        for one, value in headers.items()
    ]
    return table("Headers that are sent along", ["Header", "Value"], rows)


def _payload(task: Task) -> Tag | str:
    payload = task.definition.payload
    if not payload:
        return ""
    shown, left = truncate(payload)
    more = tags.p(f"{left:,} more characters are not shown here.") if left else ""
    return tags.details(
        tags.summary(f"Payload, {pluralize(len(payload), 'character')}"),
        tags.pre(escape_invisible(shown, _LINES)),
        more,
        id="payload",
    )
