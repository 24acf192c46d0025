"""The exceptions that say what is wrong with something a person sent."""

from __future__ import annotations

import json
from collections.abc import Iterable

from attrs import frozen


@frozen
class FieldError:
    """One thing wrong with an input.

    :ivar pointer: where it stands: a JSON Pointer into the body (RFC 6901,
        ``/retry_delay/1``), or the name of a query parameter or path segment.
    :ivar detail: one sentence for a person: the value and what was expected.
    """

    pointer: str
    detail: str


class Invalid(Exception):
    """An input that callme cannot accept; says everything that is wrong with it.

    :ivar errors: each thing wrong, in the order it was found; never empty.
    """

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{e.pointer}: {e.detail}" for e in self.errors))


class InvalidValue(ValueError):
    """A single value that cannot be accepted; its text says what was expected.

    :ivar at: where inside the value, as the rest of a JSON Pointer (``/1``);
        empty when it is the value itself.
    """

    def __init__(self, detail: str, at: str = "") -> None:
        super().__init__(detail)
        self.at = at


def quoted(value: object, limit: int = 80) -> str:
    """Return ``value`` as a person may read it in an error: as JSON, in ASCII, short.

    What is in an object or a list is not repeated: it may be a secret in the wrong place.
    """
    if isinstance(value, (dict, list)):
        return json_type(value)
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def json_type(value: object) -> str:
    """Return what kind of JSON value one is, for errors that must not repeat it."""
    return _KINDS.get(type(value), "something")


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def pointer_token(name: str) -> str:
    """Write a member's name as a token of a JSON Pointer (RFC 6901, section 3), in ASCII."""
    text = name.encode("ascii", "backslashreplace").decode()
    return "/" + text.replace("~", "~0").replace("/", "~1")
