"""Errors in the input of a client or an operator, and quotations of values for their texts."""

from __future__ import annotations

import json
from collections.abc import Iterable

from attrs import frozen


@frozen
class FieldError:
    """Error in an input.

    :ivar pointer: the place: a JSON Pointer into the body (RFC 6901, ``/retry_delay/1``), or the
        name of a query parameter or path segment.
    :ivar detail: one sentence for a person, with the value and the expectation.
    """

    pointer: str
    detail: str


class Invalid(Exception):
    """The input is invalid.

    :ivar errors: all errors in the order in which they were found; never empty.
    """

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{e.pointer}: {e.detail}" for e in self.errors))


class InvalidValue(ValueError):
    """A single value is invalid; the text contains the expectation.

    :ivar at: the place inside the value, as the end of a JSON Pointer (``/1``); empty for the
        value itself.
    """

    def __init__(self, detail: str, at: str = "") -> None:
        super().__init__(detail)
        self.at = at

    def located(self, pointer: str) -> tuple[FieldError, ...]:
        """Return the errors with their full JSON Pointers.

        :param pointer: the place of the value.
        """
        return (FieldError(pointer + self.at, str(self)),)


class InvalidMembers(InvalidValue):
    """Several members of a value are invalid; the text is that of the first error.

    :param errors: an error for each invalid member; never empty.
    """

    def __init__(self, errors: Iterable[InvalidValue]) -> None:
        self._errors = tuple(errors)
        super().__init__(str(self._errors[0]), self._errors[0].at)

    def located(self, pointer: str) -> tuple[FieldError, ...]:
        """Return the errors in all members with their full JSON Pointers."""
        return tuple(FieldError(pointer + error.at, str(error)) for error in self._errors)


def quoted(value: object, limit: int = 80, tail: int = 1) -> str:
    """Return a value for the text of an error: as JSON, in ASCII, of at most ``limit`` characters.

    The content of an object or a list is omitted, because it may be a misplaced secret.

    :param tail: the number of characters at the end of a longer value that are not omitted.
    """
    if isinstance(value, (dict, list)):
        return json_type(value)
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else f"{text[: limit - tail - 3]}...{text[-tail:]}"


def json_type(value: object) -> str:
    """Return the JSON type of a value, for errors that must not quote the value."""
    return _JSON_TYPES.get(type(value), "a value of an unknown type")


_JSON_TYPES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def pointer_token(name: str) -> str:
    """Return a member's name as a token of a JSON Pointer (RFC 6901, section 3), in ASCII."""
    text = name.encode("ascii", "backslashreplace").decode()
    return "/" + text.replace("~", "~0").replace("/", "~1")
