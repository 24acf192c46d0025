"""The pages that ask before something is done: a new minute, a deletion, a token."""

from __future__ import annotations

from attrs import frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from ..core.task import State, Task
from ..server.paths import DELETE, RESCHEDULE, TASK, url_for
from .layout import Viewer
from .task_page import LEFT_ALONE, standing
from .widgets import Renderable, bdi, escape_invisible, flash, state, template

EXPECTED_STATE_FIELD = "seen"
"""What is called the field that says in which state a task was when somebody was asked."""
TIME_FIELD = "trigger_at"


@frozen
class Confirmation:
    """A question about a task.

    :ivar wrong: what was wrong with the answer given before.
    :ivar given: what that was.
    """

    task: Task
    who: Viewer
    wrong: str = ""
    given: str = "+1m"


class _ConfirmationForm(Element):
    """A question, how the task stands that it is about, and the form to answer it with."""

    loader = template("ask")
    verb = ""

    def __init__(self, asked: Confirmation) -> None:
        super().__init__()
        self._asked = asked

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        task = self._asked.task
        form: Tag = self.form()
        if task.state is State.RUNNING:
            form = tags.div(self._wrong(), tags.p(LEFT_ALONE), class_="ask")
        return tag.fillSlots(
            question=[f"{self.verb} ", bdi(task.key.task_name), "?"],
            state=state(task.state),
            standing=standing(task),
            form=form,
        )

    def form(self) -> Tag:
        """Return the form."""
        raise NotImplementedError

    def _wrong(self) -> Renderable:
        wrong = self._asked.wrong
        return flash(escape_invisible(wrong), "wrong")(id="wrong") if wrong else ""

    def _form(self, prefix: str, verb: str, kind: str, *fields: Tag) -> Tag:
        asked = self._asked
        return tags.form(
            self._wrong(),
            fields,
            asked.who.guard(),
            tags.input(type="hidden", name=EXPECTED_STATE_FIELD, value=asked.task.state.value),
            tags.p(
                tags.button(verb, class_=kind),
                " ",
                tags.a("Leave it as it is", href=url_for(TASK, asked.task.key)),
                class_="actions",
            ),
            action=url_for(prefix, asked.task.key),
            method="post",
            class_="ask",
        )


class RescheduleForm(_ConfirmationForm):
    """Asks for a new minute."""

    verb = "Reschedule"

    def form(self) -> Tag:
        asked = self._asked
        field = tags.input(
            id="time",
            name=TIME_FIELD,
            value=asked.given,
            maxlength="64",
            autocomplete="off",
            spellcheck="false",
        )
        field.attributes["aria-describedby"] = "wrong time-hint" if asked.wrong else "time-hint"
        if asked.wrong:
            field.attributes["aria-invalid"] = "true"
        said = "It is called at the new minute"
        if asked.task.state is State.SUCCEEDED:
            said = "It has succeeded already, and is called once more"
        return self._form(
            RESCHEDULE,
            "Reschedule",
            "go",
            tags.p(f"{said}, with its whole retry budget. Its past attempts stay on record."),
            tags.p(tags.label("New minute, in UTC")(for_="time"), field),
            tags.p(
                tags.code("+5m"),
                ", ",
                tags.code("+2h"),
                " or ",
                tags.code("+1d"),
                " from now, a time such as ",
                tags.code("2028-11-26T00:00:00Z"),
                ", or a Unix timestamp. Empty: the next minute.",
                id="time-hint",
                class_="hint",
            ),
        )


class DeleteForm(_ConfirmationForm):
    """Asks whether a task is to be forgotten."""

    verb = "Delete"

    def form(self) -> Tag:
        said = "It and its attempts are forgotten. There is no way back."
        if self._asked.task.due_at is not None:
            said = f"It will not be called. {said}"
        return self._form(DELETE, "Delete it", "go bad", tags.p(said))


class LogIn(Element):
    """Asks for a token.

    :param after: the page to go to then.
    :param wrong: what was wrong with the one given before.
    :param linked: whether somebody came here by a link on another site: the browser has not sent
        the session that there may be.
    """

    loader = template("login")

    def __init__(self, after: str, wrong: str = "", *, linked: bool = False) -> None:
        super().__init__()
        self._after = after
        self._wrong = wrong
        self._linked = linked

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        field = tags.input(
            id="token",
            name="token",
            type="password",
            required="required",
            autocomplete="current-password",
            spellcheck="false",
        )
        field.attributes["aria-describedby"] = "wrong token-hint" if self._wrong else "token-hint"
        already = tags.p("Logged in already? ", tags.a("Go on", href=self._after), ".")
        return tag.fillSlots(
            error=flash(self._wrong, "wrong")(id="wrong") if self._wrong else "",
            field=field,
            next=self._after,
            already=already if self._linked else "",
        )
