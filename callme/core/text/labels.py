"""Labels of a task: values by key, and the text ``key:value`` that selects tasks."""

from __future__ import annotations

import re

from ...errors import InvalidMembers, InvalidValue, json_type, pointer_token, quoted
from ..json_schema import Schema, string

MAX_LABELS = 16
MAX_VALUE_LENGTH = 256
_KEY = re.compile(r"[a-z0-9_.-]{1,64}")
# PostgreSQL cannot store NUL, and other control characters are invisible to the operator.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LABEL_PATTERN = rf"{_KEY.pattern}:[^\x00-\x1f\x7f-\x9f]{{0,{MAX_VALUE_LENGTH}}}"
"""Regular expression of ``key:value``, valid in the dialect of JSON Schema too."""
LABELS_SCHEMA: Schema = {
    "type": "object",
    "maxProperties": MAX_LABELS,
    "propertyNames": {"pattern": f"^{_KEY.pattern}$"},
    "additionalProperties": string(maxLength=MAX_VALUE_LENGTH, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$"),
    "examples": [{"customer": "42"}],
}


def parse_labels(value: object) -> dict[str, str]:
    """Return the labels of a task, in the order of their keys.

    :raises InvalidValue: when the value is not an object of at most 16 labels; and with an error
        for each invalid label.
    """
    if not isinstance(value, dict):
        raise InvalidValue(
            f"{json_type(value)} is not an object of keys and values: "
            'expected one such as {"customer": "42"}'
        )
    if len(value) > MAX_LABELS:
        raise InvalidValue(f"{len(value)} labels: expected at most {MAX_LABELS}")
    errors = []
    for key, content in value.items():
        try:
            _check_key(key)
            if not isinstance(content, str):
                raise InvalidValue(
                    f"{quoted(content)} is not a value: expected a string", pointer_token(key)
                )
            _check_value(content, pointer_token(key))
        except InvalidValue as error:
            errors.append(error)
    if errors:
        raise InvalidMembers(errors)
    # The labels are sorted, so that equal labels have the same text in the database.
    return dict(sorted(value.items()))


def parse_label(text: str) -> tuple[str, str]:
    """Return the key and the value in a text ``key:value``.

    :raises InvalidValue: when the text is not a valid label.
    """
    key, separator, value = text.partition(":")
    if not separator:
        raise InvalidValue(
            f"{quoted(text)} is not a label: expected key:value, such as customer:42"
        )
    _check_key(key)
    _check_value(value)
    return key, value


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidValue(
            f"{quoted(key)} is not the key of a label: "
            "expected 1 to 64 characters of a-z, 0-9, _, . and -"
        )


def _check_value(value: str, pointer: str = "") -> None:
    if len(value) > MAX_VALUE_LENGTH:
        raise InvalidValue(
            f"a value of {len(value)} characters: expected at most {MAX_VALUE_LENGTH}", pointer
        )
    if bad := _CONTROL.search(value):
        raise InvalidValue(
            f"{quoted(value)} contains {bad[0]!a}: expected no control characters", pointer
        )
