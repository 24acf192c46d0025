"""Integers within bounds: values of task parameters and of host settings."""

from __future__ import annotations

import re

from ...errors import InvalidValue, quoted

_WITH_UNIT = re.compile(r"\+?[0-9]+\s*[A-Za-z]+(?:/[a-z]+)?")


def parse_integer(value: object, minimum: int, maximum: int, unit: str = "") -> int:
    """Return an integer, unchanged.

    :param unit: the unit for the text of the error, with a space before it.
    :raises InvalidValue: when it is not an integer from ``minimum`` to ``maximum``.
    """
    if type(value) is not int or not minimum <= value <= maximum:
        raise InvalidValue(
            f"{quoted(value)} is not accepted: "
            f"expected an integer from {minimum:,} to {maximum:,}{unit}{_advice(value)}"
        )
    return value


def _advice(value: object) -> str:
    if not isinstance(value, str):
        return ""
    if value.isdigit():
        return ", without quotes"
    return ", the number alone and without quotes" if _WITH_UNIT.fullmatch(value) else ""
