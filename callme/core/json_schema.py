"""Builders of JSON Schema (draft 2020-12, the dialect of OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

_BOUNDS = frozenset(
    {"maximum", "minLength", "maxLength", "pattern", "not", "maxProperties", "propertyNames"}
)


def ref(name: str, description: str = "") -> Schema:
    """Return a reference to a schema that the OpenAPI document publishes by name."""
    return _described({"$ref": f"#/components/schemas/{name}"}, description)


def string(description: str = "", **keywords: Any) -> Schema:
    """Return the schema of a string."""
    return _described({"type": "string", **keywords}, description)


def integer(minimum: int, maximum: int | None = None, description: str = "") -> Schema:
    """Return the schema of an integer within bounds."""
    schema: Schema = {"type": "integer", "minimum": minimum}
    if maximum is not None:
        schema["maximum"] = maximum
    return _described(schema, description)


def array(items: Schema, description: str = "", **keywords: Any) -> Schema:
    """Return the schema of a list."""
    return _described({"type": "array", "items": items, **keywords}, description)


def nullable(schema: Schema, description: str = "") -> Schema:
    """Return the schema of a value or ``null``."""
    return _described({"anyOf": [schema, {"type": "null"}]}, description)


def one_of(*names: str) -> Schema:
    """Return the schema of an object that matches exactly one of several types.

    Code generators translate ``oneOf`` into a union, but ``anyOf`` often into one type with the
    members of all types.
    """
    return {"oneOf": [ref(name) for name in names]}


def one_or_many(item: Schema, maximum: int, *, minimum: int = 1) -> Schema:
    """Return the schema of a value, or of a list of ``minimum`` to ``maximum`` such values."""
    return {"anyOf": [item, array(item, minItems=minimum, maxItems=maximum)]}


def any_case(words: Iterable[str]) -> str:
    """Return a case-insensitive pattern of words; JSON Schema has no flag for it."""
    return "|".join(
        "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in word)
        for word in sorted(words)
    )


def without_bounds(schema: Schema) -> Schema:
    """Return the schema of a value in a response: its type without the bounds of requests.

    A stored task may be older than the bounds, and a later version of callme may widen them.
    """
    return {
        name: _without_bounds(keyword)
        for name, keyword in schema.items()
        if name not in _BOUNDS and name != "examples"
    }


def _without_bounds(keyword: Any) -> Any:
    if isinstance(keyword, dict):
        return without_bounds(keyword)
    if isinstance(keyword, list):
        return [_without_bounds(item) for item in keyword]
    return keyword


def _described(schema: Schema, description: str) -> Schema:
    return schema | {"description": description} if description else schema
