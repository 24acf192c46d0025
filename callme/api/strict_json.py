"""The strict JSON decoder: RFC 8259 without the constructs whose meaning it leaves open.

The standard library's decoder accepts NaN, uses the last of two equal names in an object (which is
unpredictable by RFC 8259, section 4), and accepts lone surrogates (section 8.2). This module
refuses them, and bounds the depth, the length and the number of values.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, repeat
from json.decoder import scanstring  # type: ignore[attr-defined]  # the stubs leave it out

from ..core.text.json_hints import syntax_hint, utf8_hint
from ..errors import InvalidValue, pointer_token, quoted

MAX_DEPTH = 50
"""Maximum number of levels of nested objects and lists."""
MAX_ITEM_LENGTH = 1024 * 1024
"""Maximum length of an item of an array, or of a line, in characters. A longer item is refused
before it is decoded, because decoding blocks the reactor."""
MAX_VALUES = 10_000
"""Maximum number of values in one JSON text, including nested values. No valid task has a twentieth
of that, while half a million brackets would block the reactor for a quarter of a second."""
_RUN_LENGTH = 64 * 1024
"""Maximum length of the items that are decoded at once, in characters: a few ms of work."""
_SHORT_ITEM = 4 * 1024
"""Length in characters up to which an item is decoded without counting its values."""
_TOO_DEEP = f"the body is nested too deeply: expected at most {MAX_DEPTH} levels"


class ItemTooLong(InvalidValue):
    """An item is longer than :data:`MAX_ITEM_LENGTH`."""

    def __init__(self) -> None:
        super().__init__(f"an item has more than {MAX_ITEM_LENGTH:,} characters: expected fewer")


class TooManyValues(ItemTooLong):
    """A JSON text has more than :data:`MAX_VALUES` values."""

    def __init__(self) -> None:
        InvalidValue.__init__(
            self,
            f"a JSON text has more than {MAX_VALUES:,} values: expected fewer",
        )


def decode(data: bytes) -> object:
    """Return the value of a JSON text.

    The texts of errors count lines and columns from 1, as editors do.

    :raises InvalidValue: when it is not UTF-8, not JSON, nested too deeply, or has a name twice in
        one object, a number that is not finite, or a lone surrogate; with the place of the latter.
    :raises TooManyValues: when it has more than :data:`MAX_VALUES` values.
    """
    text = _decode_utf8(data)
    begin = _skip_whitespace(text, 0)
    # This cheap upper bound, which also counts characters inside strings, nearly always suffices.
    if sum(map(text.count, "[{,")) >= MAX_VALUES:
        _check_value_count(text, begin)
    value, end = _decode_value(text, begin)
    if (rest := _skip_whitespace(text, end)) != len(text):
        raise _extra_data(text, rest)
    return value


def decode_array(data: bytes) -> Iterator[tuple[object, int]]:
    """Yield each item of a JSON array, or the :class:`InvalidValue` that describes its error.

    The second element is the number of decoded characters; for items that are decoded at once, the
    first item has the total. An error in an item whose end is known, such as a repeated name, does
    not affect the other items.

    :raises InvalidValue: when the text is not UTF-8 or not a JSON array.
    :raises ItemTooLong: when an item is longer than :data:`MAX_ITEM_LENGTH`, or has more than
        :data:`MAX_VALUES` values.
    """
    text = _decode_utf8(data)
    at = _skip_whitespace(text, 0)
    if not text.startswith("[", at):
        raise InvalidValue("the body is not a JSON array")
    at = _skip_whitespace(text, at + 1)
    more = not text.startswith("]", at)
    # The decoder may scan its text to the end for the end of a string, so it gets only a part.
    part, offset = text[: 2 * MAX_ITEM_LENGTH], 0
    # Items before this index are decoded one by one.
    single_until = 0
    while more:
        if at >= single_until:
            items, end = _decode_run(text, at)
            if items:
                yield from zip(items, chain([end - at], repeat(0)), strict=False)
                at = _skip_whitespace(text, end)
                continue
            single_until = end
        if at - offset > MAX_ITEM_LENGTH:
            part, offset = text[at : at + 2 * MAX_ITEM_LENGTH], at
        begin = at - offset
        value, end = _decode_item_or_error(part, begin, offset, text)
        yield value, end - begin
        at = offset + end
        at = _skip_whitespace(text, at)
        if more := text.startswith(",", at):
            at = _skip_whitespace(text, at + 1)
        elif not text.startswith("]", at):
            hint = syntax_hint(text, at, "Expecting ','")
            raise InvalidValue(
                f"the body is not JSON: expected , or ] at {_position(text, at)}{hint}"
            )
    if (rest := _skip_whitespace(text, at + 1)) != len(text):
        raise _extra_data(text, rest)


def _extra_data(text: str, at: int) -> InvalidValue:
    hint = syntax_hint(text, at, "Extra data")
    return InvalidValue(f"the body is not JSON: expected its end at {_position(text, at)}{hint}")


def _decode_run(text: str, begin: int) -> tuple[list[object], int]:
    """Return the items from an index on that can be decoded at once, and their end.

    The end is the index after the comma that follows the last item. If an item is refused, or may
    have too many values, the result has no items: those up to the end must be decoded one by one.
    """
    end = text.rfind("},", begin, begin + _RUN_LENGTH) + 1
    if not end:
        return [], begin + _RUN_LENGTH
    # If an item does not end here, the decoder fails.
    run = text[begin:end]
    if sum(map(run.count, "[{,")) >= MAX_VALUES:
        return [], end
    try:
        items = _DECODER.decode(f"[{run}]")
        _check_depth(items, MAX_DEPTH + 1)
        if "\\u" in run:
            _check_surrogates(items)
    except (ValueError, RecursionError):
        return [], end
    return items, end + 1


def _decode_utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise InvalidValue(
            f"the body is not UTF-8: the byte at {_position(before, len(before))} is "
            f"{data[error.start]:#04x}{utf8_hint(error)}"
        ) from None


def _position(text: str, at: int) -> str:
    """Return the place of an index in a body, as editors count: from 1, in characters."""
    line = text.count(_LINE_FEED, 0, at) + 1
    return f"line {line}, column {at - text.rfind(_LINE_FEED, 0, at)}"


def _skip_whitespace(text: str, at: int) -> int:
    """Return the index of the next character that is not white space."""
    match = _WHITE_SPACE.match(text, at)
    return match.end() if match else at


def _decode_value(
    text: str, begin: int, offset: int = 0, body: str | None = None
) -> tuple[object, int]:
    """Return the value that begins at an index, and the index of its end.

    :param offset: the index of the text in the body, for the texts of errors.
    :param body: the whole body, where the text is only a part of it.
    """
    value: object
    try:
        value, end = _DECODER.raw_decode(text, begin)
        # The number of brackets is an upper bound of the depth, which suffices for most values.
        if text.count("[", begin, end) + text.count("{", begin, end) > MAX_DEPTH:
            _check_depth(value)
        # UTF-8 contains no surrogates, so that only escapes can.
        if text.find("\\u", begin, end) >= 0:
            _check_surrogates(value)
    except InvalidValue as error:
        raise InvalidValue(str(error), _place_of_refused(text, begin)) from None
    except RecursionError:
        raise InvalidValue(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        wrong = _syntax_error(error, offset, text if body is None else body)
        raise InvalidValue(f"the body is not JSON: {wrong}") from None
    except ValueError:
        # int() raises the only other ValueError, for thousands of digits.
        place = _place_of_refused(text, begin)
        raise InvalidValue("a number has too many digits", place) from None
    return value, end


def _decode_item_or_error(text: str, begin: int, offset: int, body: str) -> tuple[object, int]:
    """Return the value that begins at an index, or its error, and its end.

    :param offset: the index of the text in the body.
    :param body: the whole body.
    :raises ItemTooLong: as :func:`decode_array` does.
    """
    value: object
    try:
        value, end = _decode_item(text, begin, offset, body)
    except TooManyValues:
        raise
    except InvalidValue as error:
        cut = offset + len(text) < len(body)
        value, end = error, _find_end(text, begin, error, cut)
    if end - begin > MAX_ITEM_LENGTH:
        raise ItemTooLong
    return value, end


def _syntax_error(error: json.JSONDecodeError, offset: int, body: str) -> str:
    """Return the error of a text that is not JSON, and its place in the body.

    :param offset: the index of the text in the body.
    """
    # Python 3.13 reports a trailing comma as such; older versions expect a value after it.
    comma = _TRAILING_COMMA.search(error.doc, max(0, error.pos - 20), error.pos + 20)
    if comma and error.pos in (comma.start(), comma.end() - 1):
        error = json.JSONDecodeError("Illegal trailing comma", error.doc, comma.start())
    hint = syntax_hint(error.doc, error.pos, error.msg)
    return f"{error.msg.removesuffix(' at')} at {_position(body, offset + error.pos)}{hint}"


def _place_of_refused(text: str, begin: int) -> str:
    """Return the JSON Pointer to the part of a value that only this module refuses.

    The pointer is empty if there is no such part, or if the value is not JSON.
    """
    try:
        value, _ = _MARKING.raw_decode(text, begin)
        return next(_refused_places(value, ""), "")
    except (ValueError, RecursionError):
        return ""


def _refused_places(value: object, pointer: str) -> Iterator[str]:
    if value is _REFUSED or (isinstance(value, str) and _SURROGATE.search(value)):
        yield pointer
    elif isinstance(value, dict):
        for name, member in value.items():
            place = pointer + pointer_token(name)
            if _SURROGATE.search(name):
                yield place
            yield from _refused_places(member, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _refused_places(item, f"{pointer}/{index}")


def _decode_item(text: str, begin: int, offset: int, body: str) -> tuple[object, int]:
    """Return the value that begins at an index, and its end, as :func:`_decode_value` does.

    :raises TooManyValues: when the value contains too many values.
    """
    short = text[begin : begin + _SHORT_ITEM]
    if begin + len(short) < len(text):
        try:
            value, end = _decode_value(short, 0)
        except InvalidValue:
            # The item may continue after the decoded part.
            end = len(short)
        if end < len(short):
            return value, begin + end
        _check_value_count(text, begin)
    return _decode_value(text, begin, offset, body)


def _check_value_count(text: str, begin: int) -> None:
    """Count the values of an item by its brackets and commas outside strings.

    Syntax errors are ignored here, because the decoder finds them at the same place.

    :raises TooManyValues: when there are more than :data:`MAX_VALUES`.
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
        raise TooManyValues


def _find_end(text: str, begin: int, error: InvalidValue, cut: bool) -> int:
    """Return the end of a value that is JSON, but that this module refuses.

    :param error: the reason for the refusal.
    :param cut: whether the text is only a part of the body.
    :raises InvalidValue: the same error, when the value is not JSON.
    :raises ItemTooLong: when the value does not end within the text.
    """
    try:
        return _LENIENT.raw_decode(text, begin)[1]
    except json.JSONDecodeError as wrong:
        if cut and (wrong.pos > len(text) - _LONGEST_ESCAPE or "Unterminated" in wrong.msg):
            raise ItemTooLong from None
        raise error from None
    except (ValueError, RecursionError):
        raise error from None


def _check_depth(value: object, maximum: int = MAX_DEPTH) -> None:
    level = [value]
    for _ in range(maximum):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise InvalidValue(_TOO_DEEP)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidValue(f"the name {quoted(name)} occurs twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidValue(f"the number {quoted(text)} is too large")
    return number


def _no_constant(text: str) -> object:
    raise InvalidValue(f"{text} is not JSON: a number is finite")


def _check_surrogates(value: object) -> None:
    if isinstance(value, str):
        if match := _SURROGATE.search(value):
            # The error omits the rest of the string, which may be a secret.
            raise InvalidValue(f"a string contains the lone surrogate {quoted(match[0])}")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_surrogates(name)
            _check_surrogates(member)
    elif isinstance(value, list):
        for member in value:
            _check_surrogates(member)


_REFUSED = object()
"""Marker of a value that this module refuses, in the result of ``_MARKING``."""


def _mark_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        members |= {name: _REFUSED for name, count in counts.items() if count > 1}
    return members


_MAX_DIGITS = 4_300
"""Default limit of digits that :func:`int` accepts."""
_LONGEST_ESCAPE = len("\\ud83d\\ude00")
_TRAILING_COMMA = re.compile(r",[ \t\n\r]*[}\]]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINE_FEED = "\n"
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_MARK = re.compile(r'["\[\]{},]')
_MARKING = json.JSONDecoder(
    object_pairs_hook=_mark_repeated,
    parse_float=lambda text: None if math.isfinite(float(text)) else _REFUSED,
    parse_int=lambda text: None if len(text) <= _MAX_DIGITS else _REFUSED,
    parse_constant=lambda _: _REFUSED,
)
_LENIENT = json.JSONDecoder(parse_int=str)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
