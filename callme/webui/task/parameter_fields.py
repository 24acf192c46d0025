"""The fields of a form for the parameters of a task, made from the table of parameters."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from ...caller.request import content_type
from ...core.columns import Kind
from ...core.headers import MASK, looks_secret, redact_secrets
from ...core.parameters import PARAMETERS, Parameter
from ...core.task import Definition
from ...errors import FieldError, InvalidValue, quoted
from ..widgets import escape_invisible

MAX_PREFILLED_CHARACTERS = 20_000
"""Maximum length of a text in a duplicate. A longer text would exceed the form's bound, and the
search for invisible characters in it would block the reactor."""


@frozen(kw_only=True)
class TextForm:
    """Form of a value as editable text.

    :ivar to_text: returns the text of an attribute's value.
    :ivar to_json: returns the JSON of a text; raises :exc:`InvalidValue` if it has none.
    :ivar rows: the lines of its field.
    :ivar hint: how to write it.
    """

    to_text: Callable[[Any], str]
    to_json: Callable[[str], object]
    rows: int = 1
    hint: str = ""


def _text(value: str | None) -> str:
    return value or ""


def _integer(text: str) -> object:
    """Return the number that a text is; other texts are refused by the API's own parser."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else text


def _joined(items: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, items))


def _list(text: str) -> object:
    if text.lstrip().startswith("["):
        return _json(text)
    return [_integer(item) for item in text.split(",")]


def _lines(members: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in members.items())


def _object(text: str) -> object:
    if text.lstrip().startswith("{"):
        return _json(text)
    members: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon:
            # The error omits the line, which may be a secret.
            raise InvalidValue(f"line {number} has no colon: expected NAME: VALUE")
        if name in members:
            raise InvalidValue(f"{quoted(name)} is given twice")
        members[name] = value.strip()
    return members


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidValue(f"the text is not JSON: {error.msg} at {where}") from None
    except (ValueError, RecursionError):
        raise InvalidValue("the text begins as JSON, but is not JSON") from None


def _payload(text: str) -> str:
    # Browsers send each line feed of a text area as CR LF (HTML, section 4.10.22.8).
    return text.replace("\r\n", "\n")


_LIST = TextForm(to_text=_joined, to_json=_list, hint="Separate several values with commas.")
_FORMS = {
    Kind.TEXT: TextForm(to_text=_text, to_json=str.strip),
    Kind.INTEGER: TextForm(to_text=str, to_json=_integer),
    Kind.LIST: _LIST,
    Kind.OBJECT: TextForm(
        to_text=_lines, to_json=_object, rows=3, hint="Write one per line, as NAME: VALUE."
    ),
    Kind.LONG_TEXT: TextForm(to_text=_text, to_json=_payload, rows=6),
    Kind.BASE64: TextForm(to_text=_text, to_json=lambda text: "".join(text.split()), rows=2),
}
"""The forms of values by the kind of their column."""

FIELDS = {
    parameter.name: (parameter, _FORMS[parameter.column.kind])
    for parameter in PARAMETERS
    if parameter.name != "trigger_at"
}
"""The parameter and the form of each field, except the time, which has separate fields."""


def default_text(parameter: Parameter) -> str:
    """Return the text of a field that the viewer has not edited."""
    if parameter.is_required:
        return ""
    return FIELDS[parameter.name][1].to_text(parameter.default_value)


def to_body(texts: Mapping[str, str]) -> tuple[dict[str, object], list[FieldError]]:
    """Return the body of the API's request for the texts of a form, and the errors in these.

    Texts that are empty or the default are omitted.
    """
    body: dict[str, object] = {}
    errors: list[FieldError] = []
    for name, (parameter, form) in FIELDS.items():
        text = texts.get(name, "")
        if text.strip() in ("", default_text(parameter)):
            continue
        try:
            body[name] = form.to_json(text)
        except InvalidValue as error:
            errors.append(FieldError(f"/{name}", str(error)))
    errors += _masked(body.get("headers"))
    return body, errors


def _masked(headers: object) -> Iterator[FieldError]:
    """Yield an error for each secret header of a duplicate whose value is still masked."""
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if value == MASK and looks_secret(name):
            detail = f"the value of {quoted(name)} is masked: enter it, or delete the line"
            yield FieldError("/headers", detail)


def to_texts(definition: Definition) -> tuple[dict[str, str], list[str]]:
    """Return the texts of a form for a definition, and the labels of omitted texts.

    The values of secret headers are masked.
    """
    editable = _editable(definition)
    texts: dict[str, str] = {}
    omitted: list[str] = []
    for name, (parameter, form) in FIELDS.items():
        text = form.to_text(getattr(editable, name))
        if not _is_editable(text):
            omitted.append(parameter.label)
            text = ""
        texts[name] = text
    return texts, omitted


def _is_editable(text: str) -> bool:
    """Return whether a form displays each character of a text, and sends it unchanged."""
    return _fits(text) and escape_invisible(text, "\n\t") == text


def _fits(text: str) -> bool:
    return len(text) <= MAX_PREFILLED_CHARACTERS


def _editable(definition: Definition) -> Definition:
    """Return a definition with the same request that a form can display."""
    headers = redact_secrets(definition.headers)
    if not _fits(definition.payload) or _is_editable(definition.payload):
        return definition._replace(headers=headers)
    # A binary payload has a different default.
    if "content-type" not in map(str.lower, headers):
        headers["Content-Type"] = content_type(definition.payload)
    payload = b64encode(definition.body).decode("ascii")
    return definition._replace(headers=headers, payload="", payload_base64=payload)
