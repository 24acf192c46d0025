"""Builders of schemas, parameters and responses of an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from ...core.json_schema import Schema, integer, string

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"
CALENDAR = "text/calendar"


def boolean(description: str) -> Schema:
    """Return the schema of a boolean."""
    return {"type": "boolean", "description": description}


def count(description: str, minimum: int = 0) -> Schema:
    """Return the schema of a non-negative number, such as a count or milliseconds."""
    return integer(minimum, description=description)


def timestamp(description: str = "") -> Schema:
    """Return the schema of an RFC 3339 time."""
    return string(description, format="date-time")


def enum(values: type[Enum], description: str) -> Schema:
    """Return the schema of a member of an enumeration."""
    return string(description, enum=[value.value for value in values])


def request_object(
    properties: dict[str, Schema], required: Iterable[str], **keywords: Any
) -> Schema:
    """Return the schema of an object in a request, in which unknown members are refused."""
    names = list(required)
    return {
        "type": "object",
        "properties": properties,
        **({"required": names} if names else {}),
        "additionalProperties": False,
        **keywords,
    }


def response_object(
    properties: dict[str, Schema], optional: Iterable[str] = (), **keywords: Any
) -> Schema:
    """Return the schema of an object in a response, to which a later version may add members."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **keywords}


def query_parameter(name: str, schema: Schema, description: str, **keywords: Any) -> Schema:
    """Return an optional parameter of a query string."""
    return {"name": name, "in": "query", "description": description, "schema": schema, **keywords}


def query_flag(name: str, description: str) -> Schema:
    """Return a boolean parameter of a query string, which is false by default."""
    return query_parameter(
        name,
        {"type": "boolean", "default": False},
        f"{description} The bare name means `true`.",
        allowEmptyValue=True,
    )


def path_parameter(name: str, schema: Schema) -> Schema:
    """Return a parameter of a path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def content(schema: Schema, media_type: str = JSON, **examples: object) -> dict[str, Any]:
    """Return the content of a body in one media type.

    :param examples: bodies, by name.
    """
    values = {name: {"value": value} for name, value in examples.items()}
    return {media_type: {"schema": schema, **({"examples": values} if values else {})}}


def response(description: str, body: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    """Return a response with a body.

    :param body: the result of :func:`content`.
    """
    return {"description": description, "content": body, **keywords}


def header(schema: Schema, description: str = "", *, required: bool = True) -> dict[str, Any]:
    """Return a header of a response."""
    return {
        **({"required": True} if required else {}),
        **({"description": description} if description else {}),
        "schema": schema,
    }
