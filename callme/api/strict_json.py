"""JSON as callme reads it: RFC 8259 to the letter, and what it leaves open refused.

The standard library's decoder accepts NaN, keeps the last of two equal names
(RFC 8259, section 4, calls that unpredictable), and lets lone surrogates pass
(section 8.2), none of which survives a database.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # the stubs leave it out

from ..errors import InvalidValue, quoted

MAX_DEPTH = 50
"""Levels of objects and lists in one another."""
MAX_ITEM = 1024 * 1024
"""Characters of one value of an array, or of a line: what is longer is not even looked at, as
nobody has a turn until a value is decoded."""
MAX_VALUES = 10_000
"""Values in one value: none that callme takes has a twentieth of that, and half a million brackets
would take a quarter of a second."""
_SHORT = 4 * 1024
"""Characters that hold too few values to be counted."""
_TOO_DEEP = f"the body is nested too deeply: expected at most {MAX_DEPTH} levels"


class TooLong(InvalidValue):
    """One of many values is longer than any may be."""

    def __init__(self) -> None:
        super().__init__(f"one item is longer than {MAX_ITEM:,} characters")


class TooMany(TooLong):
    """There are more values in one another than there may be."""

    def __init__(self) -> None:
        InvalidValue.__init__(self, f"there are more than {MAX_VALUES:,} values in one JSON text")


def decode(data: bytes) -> object:
    """Return the value that a JSON text stands for.

    :raises InvalidValue: when it is not UTF-8, not JSON, too deep, or has a name
        twice in one object, a number without a finite value, or a lone surrogate.
    :raises TooMany: when it has more than :data:`MAX_VALUES` values.
    """
    text = _text(data)
    begin = _next(text, 0)
    # Nearly always it is enough to count them in strings and all.
    if sum(map(text.count, "[{,")) >= MAX_VALUES:
        _refuse_many(text, begin)
    value, end = _value(text, begin)
    if (rest := _next(text, end)) != len(text):
        raise InvalidValue(f"the body is not JSON: there is more at character {rest}")
    return value


def decode_array(data: bytes) -> Iterator[tuple[object, int]]:
    """Yield each value of a JSON array, or the :class:`InvalidValue` that is wrong with it.

    Each comes with its length in characters. What is wrong with one value and leaves no
    doubt where it ends (a name that stands twice, say) is no reason to refuse the others.

    :raises InvalidValue: when it is not UTF-8 or not a JSON array.
    :raises TooLong: when one of its values is longer than :data:`MAX_ITEM`, or has more than
        :data:`MAX_VALUES` values.
    """
    text = _text(data)
    at = _next(text, 0)
    if not text.startswith("[", at):
        raise InvalidValue("the body is not a JSON array")
    at = _next(text, at + 1)
    more = not text.startswith("]", at)
    # The decoder stops nowhere but at the end of its text: it gets no more than a part of ours.
    part, offset = text[: 2 * MAX_ITEM], 0
    while more:
        if at - offset > MAX_ITEM:
            part, offset = text[at : at + 2 * MAX_ITEM], at
        begin = at - offset
        try:
            value, end = _item(part, begin, offset)
        except TooMany:
            raise
        except InvalidValue as error:
            cut = offset + len(part) < len(text)
            value, end = error, _end_of_value(part, begin, error, cut)
        if end - begin > MAX_ITEM:
            raise TooLong
        yield value, end - begin
        at = offset + end
        at = _next(text, at)
        if more := text.startswith(",", at):
            at = _next(text, at + 1)
        elif not text.startswith("]", at):
            raise InvalidValue(f"the body is not JSON: expected , or ] at character {at}")
    if (rest := _next(text, at + 1)) != len(text):
        raise InvalidValue(f"the body is not JSON: there is more at character {rest}")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}"
        ) from None


def _next(text: str, at: int) -> int:
    """Return where the next character stands that is no white space."""
    match = _WHITE_SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, begin: int, offset: int = 0) -> tuple[object, int]:
    """Return the value that begins somewhere, and where it ends.

    :param offset: how many characters stand before the text.
    """
    value: object
    try:
        value, end = _DECODER.raw_decode(text, begin)
        # No deeper than there are brackets: most values need no second look.
        if text.count("[", begin, end) + text.count("{", begin, end) > MAX_DEPTH:
            _refuse_depth(value)
        # Only an escape can smuggle a surrogate in: UTF-8 has none.
        if text.find("\\u", begin, end) >= 0:
            _refuse_surrogates(value)
    except InvalidValue:
        raise
    except RecursionError:
        raise InvalidValue(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        where = f"{error}" if not offset else f"{error.msg}: char {offset + error.pos}"
        raise InvalidValue(f"the body is not JSON: {where}") from None
    except ValueError:
        # What is left is int() refusing thousands of digits.
        raise InvalidValue("the body holds a number with too many digits") from None
    return value, end


def _item(text: str, begin: int, offset: int) -> tuple[object, int]:
    """Return what :func:`_value` does, unless there are too many values in it.

    :raises TooMany: when there are.
    """
    short = text[begin : begin + _SHORT]
    if begin + len(short) < len(text):
        try:
            value, end = _value(short, 0)
        except InvalidValue:
            # It may merely be longer.
            end = len(short)
        if end < len(short):
            return value, begin + end
        _refuse_many(text, begin)
    return _value(text, begin, offset)


def _refuse_many(text: str, begin: int) -> None:
    """Refuse a value that holds too many: a look at the brackets and commas not in strings.

    What is no JSON is left to the decoder, which will come no further than this.
    """
    depth = values = 0
    match = _MARK.search(text, begin)
    while match and values <= MAX_VALUES:
        mark, at = match[0], match.end()
        if mark == '"':
            try:
                _, at = scanstring(text, at, True)
            except ValueError:
                return
        elif mark in "]}":
            depth -= 1
        else:
            values += 1
            depth += mark != ","
        if depth <= 0:
            return
        match = _MARK.search(text, at)
    if values > MAX_VALUES:
        raise TooMany


def _end_of_value(text: str, begin: int, error: InvalidValue, cut: bool) -> int:
    """Return where a value ends that is JSON, though not what callme takes for it.

    :param cut: whether the text goes on.
    :raises InvalidValue: the same error, when it is not even that.
    :raises TooLong: when it does not end before the text is cut.
    """
    try:
        return _LENIENT.raw_decode(text, begin)[1]
    except json.JSONDecodeError as wrong:
        if cut and (wrong.pos > len(text) - _LONGEST_ESCAPE or "Unterminated" in wrong.msg):
            raise TooLong from None
        raise error from None
    except (ValueError, RecursionError):
        raise error from None


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
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidValue(f"the name {quoted(name)} stands twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidValue(f"{quoted(text)} is too large a number")
    return number


def _no_constant(text: str) -> object:
    raise InvalidValue(f"{text} is not JSON")


def _refuse_surrogates(value: object) -> None:
    if isinstance(value, str):
        if match := _SURROGATE.search(value):
            # The rest of the string is not repeated: it may be a secret.
            raise InvalidValue(f"a string contains the lone surrogate {quoted(match[0])}")
    elif isinstance(value, dict):
        for name, member in value.items():
            _refuse_surrogates(name)
            _refuse_surrogates(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_surrogates(member)


_LONGEST_ESCAPE = len("\\ud83d\\ude00")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_MARK = re.compile(r'["\[\]{},]')
_LENIENT = json.JSONDecoder(parse_int=str)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
