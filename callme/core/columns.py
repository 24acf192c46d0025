"""Columns of the task table: types in both databases, encoding and decoding of values."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from .text.compact_json import encode_compact

Convert = Callable[[Any], Any]


@frozen(kw_only=True)
class Column:
    """Type of a column, and the way of a value into it and out of it.

    :ivar encode: returns the stored form of a value; ``None`` where it is the value itself.
    :ivar decode: returns the value of a stored form; raises :exc:`ValueError` where it has none.
    """

    sqlite_type: str
    postgresql_type: str
    encode: Convert | None = None
    decode: Convert | None = None

    @property
    def python_type(self) -> type:
        """The type of the stored values that a query returns."""
        return int if self.sqlite_type == "INTEGER" else str


def _encode_object(value: Mapping[str, str]) -> str:
    return encode_compact(value) if value else "{}"


def _decode_object(text: str) -> dict[str, str]:
    # Most tasks have no headers. Nothing changes the values of a definition: sharing is safe.
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


# Cached, because most tasks have the same few lists.
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
def _decode_integers(text: str) -> tuple[int | str, ...]:
    items = _decode_list(text)
    if not all(type(item) is int for item in items):
        raise ValueError("expected a JSON list of integers")
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
    # Most tasks have none. The text itself is the value: callme decodes it for each call.
    if text:
        b64decode(text, validate=True)
    return text


TEXT = Column(sqlite_type="TEXT", postgresql_type="text")
LONG_TEXT = Column(sqlite_type="TEXT", postgresql_type="bytea")
"""Text that may hold a NUL, which PostgreSQL's ``text`` does not."""
INTEGER = Column(sqlite_type="INTEGER", postgresql_type="int")
TIMESTAMP = Column(sqlite_type="INTEGER", postgresql_type="bigint")
BASE64 = Column(sqlite_type="TEXT", postgresql_type="text", decode=_decode_base64)
JSON_OBJECT = Column(
    sqlite_type="TEXT", postgresql_type="text", encode=_encode_object, decode=_decode_object
)
JSON_LIST = Column(
    sqlite_type="TEXT", postgresql_type="text", encode=_encode_list, decode=_decode_list
)
JSON_INTEGERS = Column(
    sqlite_type="TEXT", postgresql_type="text", encode=_encode_list, decode=_decode_integers
)
JSON_LIST_OR_EMPTY = Column(
    sqlite_type="TEXT", postgresql_type="text", encode=_encode_list, decode=_decode_items
)
