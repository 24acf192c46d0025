"""JSON as callme reads it: RFC 8259 to the letter, and what it leaves open refused.

The standard library's decoder accepts NaN, keeps the last of two equal names
(RFC 8259, section 4, calls that unpredictable), and lets lone surrogates pass
(section 8.2), none of which survives a database.
"""

from __future__ import annotations

import json
import math

from .errors import InvalidValue, shown

MAX_DEPTH = 50
"""Levels of objects and lists in one another."""
_TOO_DEEP = f"the body is nested too deeply: expected at most {MAX_DEPTH} levels"


def decode(data: bytes) -> object:
    """Return the value that a JSON text stands for.

    :raises InvalidValue: when it is not UTF-8, not JSON, too deep, or has a name
        twice in one object, a number without a finite value, or a lone surrogate.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}"
        ) from None
    try:
        value: object = _DECODER.decode(text)
        # No deeper than there are brackets: most bodies need no second look.
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _refuse_depth(value)
        # Only an escape can smuggle a surrogate in: UTF-8 has none.
        if "\\u" in text:
            _refuse_surrogates(value)
    except InvalidValue:
        raise
    except RecursionError:
        raise InvalidValue(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise InvalidValue(f"the body is not JSON: {error}") from None
    except ValueError:
        # What is left is int() refusing thousands of digits.
        raise InvalidValue("the body holds a number with too many digits") from None
    return value


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        if not inner:
            return
        level = inner
    raise InvalidValue(_TOO_DEEP)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidValue(f"the name {shown(name)} stands twice in one object")
            seen.add(name)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidValue(f"{shown(text)} is too large a number")
    return number


def _no_constant(text: str) -> object:
    raise InvalidValue(f"{text} is not JSON")


def _refuse_surrogates(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"{shown(value)} contains a lone surrogate") from None
    elif isinstance(value, dict):
        for name, member in value.items():
            _refuse_surrogates(name)
            _refuse_surrogates(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_surrogates(member)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
