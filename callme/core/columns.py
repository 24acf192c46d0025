"""Columns of the task table: their types in both databases, and the codecs of their values."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from attrs import evolve, frozen

from .callback_url import MAX_URL_LENGTH
from .headers import is_token
from .text.compact_json import encode_compact
from .times import check_minute, parse_task_name

Convert = Callable[[Any], Any]


class Kind(Enum):
    """Kind of values in a column."""

    TEXT = auto()
    LONG_TEXT = auto()
    BASE64 = auto()
    INTEGER = auto()
    OBJECT = auto()
    LIST = auto()


@frozen(kw_only=True)
class Column:
    """Type of a column, with the codec of its values.

    :ivar encode: returns the stored form of a value; ``None`` if values are stored unchanged.
    :ivar decode: returns the value of a stored form; raises :exc:`ValueError` for an invalid form.
    """

    kind: Kind
    sqlite_type: str = "TEXT"
    postgresql_type: str = "text"
    encode: Convert | None = None
    decode: Convert | None = None

    @property
    def python_type(self) -> type:
        """Python type of the stored values that a query returns."""
        return int if self.kind is Kind.INTEGER else str


def _encode_object(value: Mapping[str, str]) -> str:
    return encode_compact(value) if value else "{}"


def _decode_object(text: str) -> dict[str, str]:
    # Most tasks have no headers. Definitions are never modified, so sharing the value is safe.
    if text == "{}":
        return _EMPTY
    value = _decode_json(text)
    if not isinstance(value, dict) or not value:
        raise ValueError("expected a JSON object with members")
    if not all(isinstance(member, str) for member in value.values()):
        raise ValueError("expected a JSON object of strings")
    return value


def _decode_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


_EMPTY: dict[str, str] = {}


# The result is cached because most tasks have the same few lists.
@lru_cache(maxsize=256)
def _encode_list(values: tuple[int | str, ...]) -> str:
    return encode_compact(values)


@lru_cache(maxsize=256)
def _decode_list(text: str) -> tuple[int | str, ...]:
    items = _decode_items(text)
    if not items:
        raise ValueError("expected a JSON list with items")
    return items


@lru_cache(maxsize=256)
def _decode_items(text: str) -> tuple[int | str, ...]:
    value = _decode_json(text)
    if not isinstance(value, list):
        raise ValueError("expected a JSON list")
    if not all(type(item) in (int, str) for item in value):
        raise ValueError("expected a JSON list of integers and strings")
    return tuple(value)


def _decode_base64(text: str) -> str:
    # The value is the base64 text itself, which each call decodes; most tasks have none.
    if text:
        b64decode(text, validate=True)
    return text


def _check_url(text: str | None) -> str | None:
    # An empty text disables notifications: see callme.core.task.NOT_NOTIFIED.
    if text and (len(text) > MAX_URL_LENGTH or not _URL.match(text)):
        raise ValueError("expected an http:// or https:// URL")
    return text


def _check_required_url(text: str) -> str:
    if not text:
        raise ValueError("expected a URL")
    return _check_url(text) or ""


def _check_method(text: str) -> str:
    if not is_token(text):
        raise ValueError("expected an HTTP method")
    return text


_URL = re.compile(r"https?://[^/?#]", re.IGNORECASE)


def integer_list_column(minimum: int, maximum: int) -> Column:
    """Return the type of a column that stores a JSON list of integers within bounds."""

    @lru_cache(maxsize=256)
    def decode(text: str) -> tuple[int | str, ...]:
        items = _decode_list(text)
        if not all(type(item) is int and minimum <= item <= maximum for item in items):
            raise ValueError(f"expected a JSON list of integers from {minimum} to {maximum}")
        return items

    return Column(kind=Kind.LIST, encode=_encode_list, decode=decode)


def integer_column(minimum: int, maximum: int) -> Column:
    """Return the type of a column that stores an integer within bounds."""

    def check(value: int) -> int:
        if not minimum <= value <= maximum:
            raise ValueError(f"expected an integer from {minimum} to {maximum}")
        return value

    return Column(kind=Kind.INTEGER, sqlite_type="INTEGER", postgresql_type="int", decode=check)


TEXT = Column(kind=Kind.TEXT)
NAME = evolve(TEXT, decode=parse_task_name)
METHOD = evolve(TEXT, decode=_check_method)
URL = evolve(TEXT, decode=_check_required_url)
OPTIONAL_URL = evolve(TEXT, decode=_check_url)
LONG_TEXT = Column(kind=Kind.LONG_TEXT, postgresql_type="bytea")
"""Text that may contain NUL, which PostgreSQL's type ``text`` rejects."""
MINUTE = Column(
    kind=Kind.INTEGER, sqlite_type="INTEGER", postgresql_type="bigint", decode=check_minute
)
BASE64 = Column(kind=Kind.BASE64, decode=_decode_base64)
JSON_OBJECT = Column(kind=Kind.OBJECT, encode=_encode_object, decode=_decode_object)
JSON_LIST = Column(kind=Kind.LIST, encode=_encode_list, decode=_decode_list)
JSON_LIST_OR_EMPTY = Column(kind=Kind.LIST, encode=_encode_list, decode=_decode_items)
