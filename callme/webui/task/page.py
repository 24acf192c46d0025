"""The page of one task: its state, its attempts and its definition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from ...core.headers import redact_secrets
from ...core.parameters import PARAMETERS
from ...core.task import Attempt, State, Task
from ...core.times import Key
from ...server.paths import DELETE, FIND, NEW, RESCHEDULE, RUN, TASK, url_for
from ..layout import Viewer
from ..widgets import (
    MAX_TEXT_LENGTH,
    Filled,
    Renderable,
    bdi,
    definition_list,
    duration,
    escape_invisible,
    failure_reason,
    in_slices,
    minute,
    minute_of,
    name_of,
    pluralize,
    query,
    state,
    table,
    task_state,
    timestamp,
    truncate,
)
from .copying import Copying
from .json_text import indent_json

EXPECTED_STATE_FIELD = "expected_state"
"""The form field with the task's state at the time the form was rendered."""
RUNNING_HINT = "A running task can be neither rescheduled nor deleted."
_LINE_CONTROLS = "\n\t"
"""Control characters that may occur in a text of several lines."""


@frozen(kw_only=True)
class TaskDetail:
    """The content of a task's page.

    :ivar clock: schedules other work while the page is rendered.
    :ivar now: seconds since 1970.
    :ivar copying: the texts of the task to copy.
    :ivar flash: the message about an action that has just been completed, if any.
    """

    task: Task
    viewer: Viewer
    clock: IReactorTime
    now: float
    copying: Copying
    flash: Renderable = ""


def render_task(detail: TaskDetail) -> Filled:
    """Return the main part of a task's page."""
    task = detail.task
    return Filled(
        "task",
        flash=detail.flash,
        name=bdi(name_of(task.key)),
        state=task_state(task),
        summary=summary(task, detail.now),
        actions=_actions(task, detail.viewer) if detail.viewer.may_change else "",
        copying=detail.copying.render(),
        attempts=_attempts(task, detail.clock, detail.now),
        definition=definition_list(_definition(task, detail.now)),
        headers=_headers(task),
        payload=_payload(task),
        same_name=_same_name(task.key),
    )


def _same_name(key: Key) -> Tag | str:
    if key.row_number is not None:
        return ""
    href = FIND + query(name=key.task_name)
    return tags.a("Tasks whose names start with this name", href=href)


def summary(task: Task, now: float) -> list[Renderable]:
    """Return the rest of the sentence that begins with the task's state."""
    due: list[Renderable] = ["due ", minute_of(task.key, now)]
    if task.state is State.SCHEDULED:
        if task.due_at is None or task.due_at == task.definition.trigger_at:
            return [*due, "."]
        return [*due, "; next attempt at ", minute(task.due_at, now), "."]
    if task.state is State.RUNNING:
        return [*due, f"; attempt {_running_number(task)} is in flight."]
    ended: list[Renderable] = [*due, "; ended at ", timestamp(task.finished_at_ms, now), "."]
    return [*ended, " ", failure_reason(task.reason, task.detail)]


def _running_number(task: Task) -> int:
    return task.last_attempt + 1


def _actions(task: Task, viewer: Viewer) -> Tag:
    delete = tags.a("Delete\u2026", href=url_for(DELETE, task.key), class_="do bad")
    if task.row_key is not None:
        return tags.div(delete, class_="actions")
    duplicate = tags.a("Duplicate\u2026", href=NEW + query(**{"from": task.key}), class_="do")
    if task.damaged:
        duplicate = tags.transparent()
    if task.state is State.RUNNING:
        hint = tags.p(RUNNING_HINT, class_="none")
        return tags.transparent(hint, tags.div(duplicate, class_="actions"))
    return tags.div(
        _run(task, viewer),
        " ",
        tags.a("Reschedule\u2026", href=url_for(RESCHEDULE, task.key), class_="do"),
        " ",
        duplicate,
        " ",
        delete,
        class_="actions",
    )


def _run(task: Task, viewer: Viewer) -> Tag:
    if task.state is State.SUCCEEDED:
        # A call that has succeeded is not repeated by one click.
        return tags.a("Run again\u2026", href=url_for(RUN, task.key), class_="do")
    return tags.form(
        viewer.csrf_field(),
        tags.input(type="hidden", name=EXPECTED_STATE_FIELD, value=task.state.value),
        tags.button("Run now"),
        action=url_for(RUN, task.key),
        method="post",
    )


def _attempts(task: Task, clock: IReactorTime, now: float) -> Renderable:
    count = len(task.attempts or ()) + _is_running_shown(task)
    if not count:
        ended = task.finished_at_ms is not None
        return tags.p("No attempt was made." if ended else "No attempts yet.", class_="none")
    columns = ["#No.", "Started", "#Lateness", "#Duration", "#Status", "Outcome", "Daemon", "Next"]
    listed = table(
        pluralize(count, "attempt"), columns, in_slices(_attempt_rows(task, now), clock), "wide"
    )
    return [listed, _earlier_attempts(task)]


def _is_running_shown(task: Task) -> bool:
    """Return whether the attempts on the page are the last ones, and another one is in flight."""
    is_last_page = not task.attempts or task.attempts[-1].number == task.last_attempt
    return task.state is State.RUNNING and is_last_page


def _attempt_rows(task: Task, now: float) -> Iterator[Sequence[Renderable]]:
    attempts = task.attempts or ()
    for attempt, following in zip_longest(attempts, attempts[1:]):
        yield _row(attempt, _next_step(task, attempt, following), now)
    if _is_running_shown(task):
        yield (str(_running_number(task)), "\u2013", "", "", "", "in flight", "", "")


def _earlier_attempts(task: Task) -> Tag | str:
    if (earlier := task.earlier_attempts) is not None:
        href = url_for(TASK, task.key) + query(start_from=earlier)
        return tags.p(tags.a("Earlier attempts", href=href, rel="next"), class_="more")
    if dropped := task.first_attempt - 1:
        return tags.p(f"{pluralize(dropped, 'attempt')} before these are no longer on record.")
    return ""


def _row(attempt: Attempt, next_step: Renderable, now: float) -> Sequence[Renderable]:
    outcome = tags.div(state(State.SUCCEEDED if attempt.reason is None else State.FAILED))
    outcome(" ", failure_reason(attempt.reason, attempt.detail))
    if attempt.body:
        details = tags.details(tags.summary("Response body"), *_text(attempt.body))
        details.attributes["id"] = f"response-{attempt.number}"
        outcome(details)
    return (
        str(attempt.number),
        timestamp(attempt.started_at_ms, now),
        duration(attempt.lateness_ms),
        duration(attempt.duration_ms),
        "\u2013" if attempt.status is None else str(attempt.status),
        outcome,
        bdi(attempt.node or "\u2013"),
        tags.span(next_step),
    )


def _next_step(task: Task, attempt: Attempt, following: Attempt | None) -> Renderable:
    """Return what followed an attempt.

    :param following: the next attempt on the page; ``None`` for the last one.
    """
    # The last attempt before the task was rescheduled; 0 if it was not.
    before_reschedule = task.last_attempt - task.attempts_used + (task.state is State.RUNNING)
    if attempt.number < task.last_attempt:
        if attempt.number == before_reschedule:
            return "rescheduled"
        if following is None:
            return "retried"
        return ["retried at ", timestamp(following.started_at_ms)]
    if task.state is State.RUNNING:
        moved = attempt.number == before_reschedule
        return "rescheduled, in flight" if moved else "retry in flight"
    if task.state is State.SCHEDULED and task.due_at is not None:
        kind = "rescheduled to " if attempt.number == before_reschedule else "retry at "
        return [kind, minute(task.due_at)]
    if task.state is State.SUCCEEDED:
        return "done"
    return "given up"


def _attempt_counts(task: Task) -> str:
    allowed, earlier = 1 + task.definition.retry, task.last_attempt - task.attempts_used
    earlier += task.state is State.RUNNING
    counts = f"{task.attempts_used} made, {task.attempts_left} left of {allowed}"
    return f"{counts}, and {earlier} before it was rescheduled" if earlier > 0 else counts


def _definition(task: Task, now: float) -> Iterable[tuple[str, Renderable]]:
    definition = task.definition
    yield "Key", tags.code(escape_invisible(str(task.key)))
    yield "Minute", minute_of(task.key, now)
    if not {"retry", "attempts_used"} & set(task.damaged):
        yield "Attempts", _attempt_counts(task)
    if not {"trigger_at", "max_delay"} & set(task.damaged):
        yield "Expires", minute(definition.expires_at, now)
    if task.damaged:
        yield "Damaged", f"The stored values of {', '.join(task.damaged)} cannot be read."
    for parameter in PARAMETERS:
        if parameter.has_own_place or parameter.name in task.damaged:
            continue
        value = getattr(definition, parameter.name)
        if value is not None:
            text = escape_invisible(parameter.to_text(value))
            if text:
                yield parameter.label, tags.code(text) if parameter.is_code else text
    if "created_at_ms" not in task.damaged:
        yield "Created", timestamp(task.created_at_ms, now)


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
    encoding = " in base64" if task.definition.payload_base64 else ""
    summary = f"Payload{encoding}, {pluralize(len(payload), 'character')}"
    return tags.details(tags.summary(summary), *_text(payload), id="payload")


def _text(text: str) -> Iterator[Tag]:
    """Yield a text of several lines, indented if it is JSON, and a note if its end is omitted."""
    indented = indent_json(text, MAX_TEXT_LENGTH)
    beginning, omitted = truncate(text) if indented is None else (indented[0], 0)
    yield tags.pre(escape_invisible(beginning, _LINE_CONTROLS))
    if omitted:
        yield tags.p(f"{omitted:,} more characters are omitted.")
    elif indented is not None and not indented[1]:
        yield tags.p("The rest is omitted: the raw JSON of the task has it.")
