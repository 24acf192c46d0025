"""Short ways to write JSON Schema (draft 2020-12, which OpenAPI 3.1 uses)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Refer to a schema that has a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def string(description: str = "", **more: Any) -> Schema:
    """Describe a string."""
    return {"type": "string", **more} | ({"description": description} if description else {})


def integer(least: int, most: int | None = None, description: str = "") -> Schema:
    """Describe an integer."""
    schema: Schema = {"type": "integer", "minimum": least}
    if most is not None:
        schema["maximum"] = most
    return schema | ({"description": description} if description else {})


def listed(items: Schema, **more: Any) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items, **more}


def enum(values: type[Enum], description: str) -> Schema:
    """Describe one of some words."""
    return string(description, enum=[value.value for value in values])


def or_null(schema: Schema) -> Schema:
    """Let ``null`` stand in the place of something."""
    return {"anyOf": [schema, {"type": "null"}]}


def taken(properties: dict[str, Schema], required: Iterable[str], **more: Any) -> Schema:
    """Describe an object that callme takes: what it does not know, it refuses."""
    needed = {"required": list(required)} if required else {}
    return {
        "type": "object",
        "properties": properties,
        **needed,
        "additionalProperties": False,
        **more,
    }


def answered(properties: dict[str, Schema], optional: Iterable[str] = (), **more: Any) -> Schema:
    """Describe an object that callme answers with; a later version may say more in it."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


def any_case(words: Iterable[str]) -> str:
    """Return a pattern for some words in whatever case, which JSON Schema has no flag for."""
    return "|".join(
        "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in word)
        for word in sorted(words)
    )
