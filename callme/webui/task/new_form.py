"""The form for a new task, with the errors beside its fields and the preview above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen
from twisted.web.template import Tag, tags

from ...api.dry_run import PutForecast
from ...core.parameters import Parameter
from ...core.times import Key, to_ms
from ...core.transitions import PutOutcome
from ...errors import FieldError
from ...reports import forecast
from ...server.paths import TASK, url_for
from ...worker.throughput import Capacity
from ..layout import Viewer
from ..widgets import (
    Filled,
    Renderable,
    bdi,
    definition_list,
    duration,
    escape_invisible,
    flash,
    minute,
    pluralize,
)
from .parameter_fields import FIELDS, default_text
from .time_fields import TIME_FIELD, Meaning, TimeInput, time_fields

_FIRST = ("task_name", "callback")
_REQUEST = ("callback_method", "payload", "headers")
_MORE = tuple(name for name in FIELDS if name not in _FIRST + _REQUEST)
_MAX_ATTEMPTS = 10
"""Attempts in a preview."""


@frozen(kw_only=True)
class Preview:
    """Effect that a submission of the form would have.

    :ivar warnings: warnings about valid values that may not be intended.
    """

    put: PutForecast
    capacity: Capacity
    meaning: Meaning
    warnings: Sequence[FieldError]

    def render(self, now: float) -> Tag:
        """Return it as a message."""
        return tags.div(
            tags.p(tags.strong(self._effect())),
            tags.dl(definition_list(self._figures(now)), class_="definition"),
            [tags.p("Warning: ", escape_invisible(one.detail), ".") for one in self.warnings],
            class_="flash done",
            role="status",
        )

    def _effect(self) -> str:
        if self.put.result.outcome is PutOutcome.UNCHANGED:
            return "The same task exists already: nothing would change."
        return "The task would be created."

    def _figures(self, now: float) -> Iterator[tuple[str, Renderable]]:
        task = self.put.result.task
        assert task is not None
        definition = task.definition
        yield "Time", self.meaning.render(now)
        attempts = forecast.attempts_at(definition, now, _MAX_ATTEMPTS)
        yield (
            "Attempts, if each fails",
            [[", " if number else "", minute(at)] for number, at in enumerate(attempts)],
        )
        yield "Expires", minute(definition.expires_at, now)
        yield "Calls in that minute", f"{self.put.calls:,}"
        yield "Calls to that host in it", f"{self.put.calls_to_host:,}"
        late = forecast.lateness(
            self.capacity, definition, now, self.put.calls, self.put.calls_to_host
        )
        yield "Expected lateness", duration(to_ms(late))


@frozen(kw_only=True)
class NewTask:
    """The content of the form.

    :ivar now: seconds since 1970.
    :ivar texts: the text of each field.
    :ivar errors: the errors in the fields, and those of the whole task.
    :ivar omitted: the labels of fields that a duplicate does not have.
    :ivar existing: the key of the existing task that prevents the creation, if any.
    """

    viewer: Viewer
    now: float
    texts: Mapping[str, str] = field(factory=dict)
    time: TimeInput = field(factory=TimeInput)
    errors: Sequence[FieldError] = ()
    preview: Preview | None = None
    omitted: Sequence[str] = ()
    existing: Key | None = None


class NewTaskForm(Filled):
    """The main part of the page."""

    def __init__(self, content: NewTask) -> None:
        self._content = content
        self._errors = _by_field(content.errors)
        super().__init__(
            "new",
            message=self._message(),
            first=[self._field(name) for name in _FIRST],
            time=time_fields(content.time, self._errors.get(TIME_FIELD, ()), "A time is required."),
            request=[self._field(name) for name in _REQUEST],
            more=self._more(),
            csrf=content.viewer.csrf_field(),
        )

    def _message(self) -> Renderable:
        content = self._content
        if content.errors:
            return self._error_summary()
        if content.preview is not None:
            return content.preview.render(content.now)
        if content.omitted:
            labels = ", ".join(content.omitted)
            return flash(f"Not copied, because a form cannot contain it: {labels}.", "wrong")
        return ""

    def _error_summary(self) -> Tag:
        """Return the errors in the order of the fields, each a link to its field."""
        items = [tags.li(escape_invisible(text)) for text in self._errors.get("", ())]
        for name in (TIME_FIELD, *FIELDS):
            if name in self._errors:
                label = "Time" if name == TIME_FIELD else FIELDS[name][0].label
                items.append(tags.li(tags.a(label, href=f"#{_identifier(name)}")))
        existing = self._content.existing
        if existing is not None:
            link = tags.a(bdi(str(existing)), href=url_for(TASK, existing))
            items.append(tags.li("The task in the way: ", link))
        count = pluralize(len(self._errors), "problem")
        return tags.div(
            tags.p(f"The task was not created: {count}."),
            tags.ul(items),
            class_="flash wrong",
            role="alert",
        )

    def _more(self) -> Tag:
        more = tags.details(
            tags.summary("More parameters"), [self._field(name) for name in _MORE], id="more"
        )
        edited = any(
            name in self._errors or self._text(name) != default_text(FIELDS[name][0])
            for name in _MORE
        )
        if edited:
            more.attributes["open"] = "open"
        return more

    def _text(self, name: str) -> str:
        return self._content.texts.get(name, default_text(FIELDS[name][0]))

    def _field(self, name: str) -> Tag:
        parameter, form = FIELDS[name]
        errors, identifier = self._errors.get(name, ()), _identifier(name)
        if form.rows > 1:
            # HTML drops a line feed that begins a text area.
            control = tags.textarea("\n", self._text(name), rows=str(form.rows))
        else:
            control = tags.input(value=self._text(name))
        control(id=identifier, name=name, autocomplete="off", spellcheck="false")
        if parameter.is_required:
            control.attributes["required"] = "required"
        described = f"{identifier}-hint"
        error: Renderable = ""
        if errors:
            error = flash(escape_invisible("; ".join(errors)), "wrong")(id=f"{identifier}-error")
            control.attributes["aria-invalid"] = "true"
            described = f"{identifier}-error {described}"
        control.attributes["aria-describedby"] = described
        hint = tags.p(_help(parameter, form.hint), id=f"{identifier}-hint", class_="hint")
        required = " (required)" if parameter.is_required else ""
        label = tags.label(f"{parameter.label}{required}")(for_=identifier)
        return tags.div(label, error, control, hint, class_="parameter")


def _identifier(name: str) -> str:
    return "time" if name == TIME_FIELD else f"field-{name.replace('_', '-')}"


def _by_field(errors: Iterable[FieldError]) -> dict[str, list[str]]:
    """Return the sentences about each field; those about no field have an empty name."""
    found: dict[str, list[str]] = {}
    for error in errors:
        name = error.pointer.lstrip("/").partition("/")[0]
        known = name in FIELDS or name == TIME_FIELD
        found.setdefault(name if known else "", []).append(error.detail)
    return found


def _help(parameter: Parameter, hint: str) -> list[Renderable]:
    """Return the documentation of a parameter; code is the only markup in its Markdown."""
    text = f"{parameter.documentation} {hint}".rstrip()
    parts = text.split("`")
    return [tags.code(part) if number % 2 else part for number, part in enumerate(parts)]
