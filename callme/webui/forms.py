"""Forms: the confirmation of an action on a task, and the login."""

from __future__ import annotations

import re

from attrs import frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from ..core.task import State, Task
from ..server.paths import DELETE, RESCHEDULE, RUN, TASK, url_for
from .layout import Viewer
from .task.page import EXPECTED_STATE_FIELD, RUNNING_HINT, summary
from .widgets import Renderable, bdi, escape_invisible, flash, task_state, template

TIME_FIELD = "trigger_at"
_WITHOUT_ZONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?")


@frozen(kw_only=True)
class Confirmation:
    """The confirmation of an action on a task.

    :ivar now: seconds since 1970.
    :ivar error: the reason why the last submission was rejected, if it was.
    :ivar time: the content of the time field.
    """

    task: Task
    viewer: Viewer
    now: float
    error: str = ""
    time: str = "+1m"


class ConfirmationForm(Element):
    """A question about a task, its summary, and the form that confirms the action."""

    loader = template("confirm")
    verb = ""

    def __init__(self, confirmation: Confirmation) -> None:
        super().__init__()
        self._confirmation = confirmation

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        task = self._confirmation.task
        form: Tag = self.form()
        if task.state is State.RUNNING:
            form = tags.div(self._error(), tags.p(RUNNING_HINT), class_="confirm")
        return tag.fillSlots(
            question=[f"{self.verb} ", bdi(task.key.task_name), "?"],
            state=task_state(task),
            summary=summary(task, self._confirmation.now),
            form=form,
        )

    def form(self) -> Tag:
        """Return the form."""
        raise NotImplementedError

    def _error(self) -> Renderable:
        return _error_message(escape_invisible(self._confirmation.error))

    def _form(self, *fields: Tag, prefix: str, button_class: str) -> Tag:
        task, viewer = self._confirmation.task, self._confirmation.viewer
        return tags.form(
            self._error(),
            fields,
            viewer.csrf_field(),
            tags.input(type="hidden", name=EXPECTED_STATE_FIELD, value=task.state.value),
            tags.p(
                tags.button(self.verb, class_=button_class),
                " ",
                tags.a("Back to the task", href=url_for(TASK, task.key)),
                class_="actions",
            ),
            action=url_for(prefix, task.key),
            method="post",
            class_="confirm",
        )


def time_in_utc(text: str) -> str:
    """Return a time of the form, which means UTC if it names no zone, as the API accepts it."""
    return f"{text}Z" if _WITHOUT_ZONE.fullmatch(text) else text


class RescheduleForm(ConfirmationForm):
    """The form for a new minute."""

    verb = "Reschedule"

    def form(self) -> Tag:
        confirmation = self._confirmation
        field = tags.input(
            id="time",
            name=TIME_FIELD,
            value=confirmation.time,
            maxlength="64",
            autocomplete="off",
            spellcheck="false",
        )
        _describe_field(field, "time-hint", has_error=bool(confirmation.error))
        if confirmation.error:
            field.attributes["aria-invalid"] = "true"
        effect = "The task is called at the new time"
        if confirmation.task.state is State.SUCCEEDED:
            effect = "The task has succeeded already. It is called again at the new time"
        return self._form(
            tags.p(f"{effect}, and has all its attempts again. Past attempts stay on record."),
            tags.p(tags.label("New time (UTC)")(for_="time"), field),
            tags.p(
                tags.code("+5m"),
                ", ",
                tags.code("+2h"),
                " or ",
                tags.code("+1d"),
                " from now, a time in UTC such as ",
                tags.code("2028-11-26 09:00"),
                ", a local time such as ",
                tags.code("2028-11-26T09:00[Europe/Berlin]"),
                ", or a Unix timestamp. An empty field means the next minute.",
                id="time-hint",
                class_="hint",
            ),
            prefix=RESCHEDULE,
            button_class="go",
        )


class RunForm(ConfirmationForm):
    """The form that confirms a call at once."""

    verb = "Run"

    def form(self) -> Tag:
        effect = "The task is called now, and has all its attempts again."
        if self._confirmation.task.state is State.SUCCEEDED:
            effect = f"The task has succeeded already. {effect}"
        return self._form(tags.p(effect), prefix=RUN, button_class="go")


class DeleteForm(ConfirmationForm):
    """The form that confirms a deletion."""

    verb = "Delete"

    def form(self) -> Tag:
        effect = "The task and its attempts are deleted permanently."
        if self._confirmation.task.due_at is not None:
            effect += " It will not be called."
        return self._form(tags.p(effect), prefix=DELETE, button_class="go bad")


class LogIn(Element):
    """The login form.

    :param after: the path to which a login leads.
    :param error: the reason why the last login failed, if it did.
    :param linked: whether the client followed a link on another site. The browser does not send
        the session cookie then, even if there is one.
    """

    loader = template("login")

    def __init__(self, after: str, error: str = "", *, linked: bool = False) -> None:
        super().__init__()
        self._after = after
        self._error = error
        self._linked = linked

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        field = tags.input(
            id="token",
            name="token",
            type="password",
            required="required",
            autocomplete="current-password",
            spellcheck="false",
        )
        _describe_field(field, "token-hint", has_error=bool(self._error))
        already = tags.p("Already logged in? ", tags.a("Continue", href=self._after), ".")
        return tag.fillSlots(
            error=_error_message(self._error),
            field=field,
            next=self._after,
            already=already if self._linked else "",
        )


def _error_message(error: str) -> Renderable:
    return flash(error, "wrong")(id="error") if error else ""


def _describe_field(field: Tag, hint: str, *, has_error: bool) -> None:
    """Associate a field with its hint, and with the error message if there is one."""
    field.attributes["aria-describedby"] = f"error {hint}" if has_error else hint
