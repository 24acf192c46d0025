"""The texts of a task that the operator can copy: its key, its JSON, and a curl command."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen
from twisted.web.template import Tag, tags

from ...api.responses import task_url
from ...core.headers import redact_secrets
from ...core.task import State, Task
from ...server.paths import CURL, RAW
from ..widgets import MAX_TEXT_LENGTH, Renderable
from .curl import curl_command, key_text


@frozen(kw_only=True)
class Copying:
    """The texts to copy.

    :ivar base_url: the scheme, the host and the base path of the API.
    :ivar token: whether the API requires a token.
    """

    task: Task
    base_url: str
    token: bool

    def command(self) -> str:
        """Return the curl command; of a task with damaged values, an empty text."""
        task = self.task
        if task.damaged:
            return ""
        return curl_command(
            task.definition, self.base_url, is_repeat=_has_ended(task), token=self.token
        )

    def render(self) -> Tag:
        """Return the section of the page."""
        key = self.task.key
        raw = tags.a("Raw JSON", href=task_url(RAW, key) + "?pretty")
        section = tags.section(
            tags.h2("Copy", id="copy"),
            _field("copy-key", "Key", tags.input(value=key_text(key), readonly="readonly")),
            *self._command_field(),
            tags.p(raw),
            class_="copy",
        )
        section.attributes["aria-labelledby"] = "copy"
        return section

    def _command_field(self) -> Iterator[Tag]:
        task = self.task
        if task.damaged:
            return
        size = len(task.definition.payload) + len(task.definition.payload_base64)
        if size > MAX_TEXT_LENGTH:
            yield tags.p(tags.a("curl command", href=task_url(CURL, task.key)), ", as text")
            return
        text = tags.textarea(self.command(), readonly="readonly", rows="4", spellcheck="false")
        yield _field("copy-curl", "curl command", text, _hint(task))


def _has_ended(task: Task) -> bool:
    return task.state in (State.SUCCEEDED, State.FAILED)


def _hint(task: Task) -> str:
    definition = task.definition
    hint = "Registers the same task again"
    hint += ", for the next minute." if _has_ended(task) else "."
    if redact_secrets(definition.headers) != definition.headers:
        hint += " Replace *** with the values of the secret headers."
    return hint


def _field(name: str, label: str, field: Tag, hint: Renderable = "") -> Tag:
    """Return a field whose text is copied; a script adds the button that does it."""
    field.attributes["id"] = name
    field.attributes["data-copy"] = label
    if hint:
        field.attributes["aria-describedby"] = f"{name}-hint"
        hint = tags.p(hint, id=f"{name}-hint", class_="hint")
    return tags.div(tags.label(label)(for_=name), field, hint, class_="field")
