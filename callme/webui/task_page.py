"""The page of one task: its state, its attempts and its definition."""

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

RUNNING_HINT = "A running task can be neither rescheduled nor deleted."
_LINE_CONTROLS = "\n\t"
"""Control characters that may occur in a text of several lines."""


@frozen(kw_only=True)
class TaskDetail:
    """The content of a task's page.

    :ivar flash: the message about an action that has just been completed, if any.
    """

    task: Task
    viewer: Viewer
    flash: str = ""


class TaskPage(Element):
    """The main part of a task's page."""

    loader = template("task")

    def __init__(self, detail: TaskDetail) -> None:
        super().__init__()
        self._detail = detail

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        task = self._detail.task
        return tag.fillSlots(
            flash=flash(self._detail.flash) if self._detail.flash else "",
            name=bdi(task.key.task_name),
            state=state(task.state),
            summary=summary(task),
            actions=_actions(task) if self._detail.viewer.may_change else "",
            attempts=_attempts(task),
            definition=definition_list(_definition(task)),
            headers=_headers(task),
            payload=_payload(task),
            same_name=tags.a(
                "Tasks whose names start with this name",
                href=FIND + query(name=task.key.task_name),
            ),
        )


def summary(task: Task) -> list[Renderable]:
    """Return the rest of the sentence that begins with the task's state."""
    due: list[Renderable] = ["due ", minute(task.key.trigger_at)]
    if task.state is State.SCHEDULED:
        if task.due_at is None or task.due_at == task.key.trigger_at:
            return [*due, "."]
        return [*due, "; next attempt at ", minute(task.due_at), "."]
    if task.state is State.RUNNING:
        return [*due, f"; attempt {_running_number(task)} is in flight."]
    ended: list[Renderable] = [*due, "; ended at ", timestamp(task.finished_at_ms), "."]
    return [*ended, " ", failure_reason(task.reason, task.detail)]


def _running_number(task: Task) -> int:
    return max((attempt.number for attempt in task.attempts or ()), default=0) + 1


def _actions(task: Task) -> Tag:
    if task.state is State.RUNNING:
        return tags.p(RUNNING_HINT, class_="none")
    return tags.p(
        tags.a("Reschedule\u2026", href=url_for(RESCHEDULE, task.key), class_="do"),
        " ",
        tags.a("Delete\u2026", href=url_for(DELETE, task.key), class_="do bad"),
        class_="actions",
    )


def _attempts(task: Task) -> Tag:
    attempts = task.attempts or ()
    rows = [
        _row(attempt, _next_step(task, place, attempts))
        for place, attempt in enumerate(attempts, start=1)
    ]
    if task.state is State.RUNNING:
        rows.append((str(_running_number(task)), "\u2013", "", "", "", "in flight", "", ""))
    if not rows:
        ended = task.finished_at_ms is not None
        return tags.p("No attempt was made." if ended else "No attempts yet.", class_="none")
    columns = ["#No.", "Started", "#Lateness", "#Duration", "#Status", "Outcome", "Daemon", "Next"]
    return table(pluralize(len(rows), "attempt"), columns, rows, "wide")


def _row(attempt: Attempt, next_step: Renderable) -> Sequence[Renderable]:
    outcome = tags.div(state(State.SUCCEEDED if attempt.reason is None else State.FAILED))
    outcome(" ", failure_reason(attempt.reason, attempt.detail))
    if attempt.body:
        body = tags.pre(escape_invisible(attempt.body, _LINE_CONTROLS))
        details = tags.details(tags.summary("Response body"), body)
        details.attributes["id"] = f"response-{attempt.number}"
        outcome(details)
    return (
        str(attempt.number),
        timestamp(attempt.started_at_ms),
        duration(attempt.lateness_ms),
        duration(attempt.duration_ms),
        "\u2013" if attempt.status is None else str(attempt.status),
        outcome,
        bdi(attempt.node or "\u2013"),
        tags.span(next_step),
    )


def _next_step(task: Task, place: int, attempts: Sequence[Attempt]) -> Renderable:
    """Return what followed an attempt.

    :param place: its place in ``attempts``, from 1.
    """
    # The last attempt before the task was rescheduled; 0 if it was not.
    before_reschedule = len(attempts) - task.attempts_used + (task.state is State.RUNNING)
    if place < len(attempts):
        if place == before_reschedule:
            return "rescheduled"
        return ["retried at ", timestamp(attempts[place].started_at_ms)]
    if task.state is State.RUNNING:
        return "rescheduled, in flight" if place == before_reschedule else "retry in flight"
    if task.state is State.SCHEDULED and task.due_at is not None:
        kind = "rescheduled to " if place == before_reschedule else "retry at "
        return [kind, minute(task.due_at)]
    if task.state is State.SUCCEEDED:
        return "done"
    return "given up"


def _definition(task: Task) -> Iterable[tuple[str, Renderable]]:
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
    yield "Created", timestamp(task.created_at_ms)


def _headers(task: Task) -> Tag | str:
    headers = redact_secrets(task.definition.headers)
    if not headers:
        return ""
    rows = [
        (tags.code(escape_invisible(name)), escape_invisible(value))
        for name, value in headers.items()
    ]
    return table("Request headers", ["Header", "Value"], rows)


def _payload(task: Task) -> Tag | str:
    payload = task.definition.payload or task.definition.payload_base64
    if not payload:
        return ""
    beginning, omitted = truncate(payload)
    encoding = " in base64" if task.definition.payload_base64 else ""
    return tags.details(
        tags.summary(f"Payload{encoding}, {pluralize(len(payload), 'character')}"),
        tags.pre(escape_invisible(beginning, _LINE_CONTROLS)),
        tags.p(f"{omitted:,} more characters are omitted.") if omitted else "",
        id="payload",
    )
