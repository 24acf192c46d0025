"""Forms: the confirmation of an action on a task, and the login."""

from __future__ import annotations

from attrs import field, frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from ..core.task import State, Task
from ..server.paths import DELETE, RESCHEDULE, RUN, TASK, url_for
from .layout import Viewer
from .task.new_task import ACTION_FIELD, PREVIEW
from .task.page import EXPECTED_STATE_FIELD, RUNNING_HINT, summary
from .task.time_fields import Meaning, TimeInput, time_fields
from .widgets import (
    Filled,
    Renderable,
    bdi,
    escape_invisible,
    flash,
    name_of,
    task_state,
    template,
)


@frozen(kw_only=True)
class Confirmation:
    """The confirmation of an action on a task.

    :ivar now: seconds since 1970.
    :ivar error: the reason why the last submission was rejected, if it was.
    :ivar time: the content of the time fields.
    :ivar meaning: the minute in these fields, if the viewer requested a preview.
    """

    task: Task
    viewer: Viewer
    now: float
    error: str = ""
    time: TimeInput = field(factory=lambda: TimeInput(is_new=True))
    meaning: Meaning | None = None


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
            error = _error_message(escape_invisible(self._confirmation.error))
            form = tags.div(error, tags.p(RUNNING_HINT), class_="confirm")
        return tag.fillSlots(
            question=[f"{self.verb} ", bdi(name_of(task.key)), "?"],
            state=task_state(task),
            summary=summary(task, self._confirmation.now),
            form=form,
        )

    def form(self) -> Tag:
        """Return the form."""
        raise NotImplementedError

    def _error(self) -> Renderable:
        return _error_message(escape_invisible(self._confirmation.error))

    def _form(
        self, *fields: Renderable, prefix: str, button_class: str, more: Renderable = ""
    ) -> Tag:
        task, viewer = self._confirmation.task, self._confirmation.viewer
        return tags.form(
            self._error(),
            fields,
            viewer.csrf_field(),
            tags.input(type="hidden", name=EXPECTED_STATE_FIELD, value=task.state.value),
            tags.p(
                tags.button(self.verb, class_=button_class),
                " ",
                more,
                " ",
                tags.a("Back to the task", href=url_for(TASK, task.key)),
                class_="actions",
            ),
            action=url_for(prefix, task.key),
            method="post",
            class_="confirm",
        )


class RescheduleForm(ConfirmationForm):
    """The form for a new minute."""

    verb = "Reschedule"

    def form(self) -> Tag:
        confirmation = self._confirmation
        effect = "The task is called at the new time"
        if confirmation.task.state is State.SUCCEEDED:
            effect = "The task has succeeded already. It is called again at the new time"
        meaning: Renderable = ""
        if confirmation.meaning is not None:
            meaning = flash(["New time: ", confirmation.meaning.render(confirmation.now)])
        errors = [confirmation.error] if confirmation.error else []
        return self._form(
            tags.p(f"{effect}, with its full number of attempts. Past attempts stay on record."),
            meaning,
            time_fields(confirmation.time, errors, "The default is the next minute."),
            prefix=RESCHEDULE,
            button_class="go",
            more=tags.button("Preview", name=ACTION_FIELD, value=PREVIEW),
        )

    def _error(self) -> Renderable:
        # The error is displayed beside the fields.
        return ""


class RunForm(ConfirmationForm):
    """The form that confirms a call at once."""

    verb = "Run"

    def form(self) -> Tag:
        effect = "The task is called now, with its full number of attempts."
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


def render_login(after: str, error: str = "", *, linked: bool = False) -> Filled:
    """Return the login form.

    :param after: the path to which a login leads.
    :param error: the reason why the last login failed, if it did.
    :param linked: whether the client followed a link on another site. The browser does not send
        the session cookie then, even if there is one.
    """
    field = tags.input(
        id="token",
        name="token",
        type="password",
        required="required",
        autocomplete="current-password",
        spellcheck="false",
    )
    field.attributes["aria-describedby"] = "error token-hint" if error else "token-hint"
    already = tags.p("Already logged in? ", tags.a("Continue", href=after), ".")
    return Filled(
        "login",
        error=_error_message(error),
        field=field,
        next=after,
        already=already if linked else "",
    )


def _error_message(error: str) -> Renderable:
    return flash(error, "wrong")(id="error") if error else ""
