"""Checks of values and responses against the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from callme.api.openapi.operations import document

DOCUMENT = document()
COMPONENTS = DOCUMENT["components"]
PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]


@cache
def validator(pointer: str) -> jsonschema_rs.Draft202012Validator:
    """Return a validator for the schema at a JSON pointer in the document."""
    schema = {"$ref": f"#{pointer}", "paths": PATHS, "components": COMPONENTS}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def is_a(name: str, value: object) -> bool:
    """Return whether a value matches a named schema."""
    return validator(f"/components/schemas/{name}").is_valid(value)


def is_parameter(name: str, value: object) -> bool:
    """Return whether a value is valid as a parameter of a task."""
    return validator(f"/components/schemas/NewTask/properties/{name}").is_valid(value)


def template_of(target: str) -> str | None:
    """Return the path template of the document that a request target matches, or ``None``."""
    path = target.partition("?")[0]
    # A trailing slash makes no difference; the document has none.
    for wanted in (path.removesuffix("/"), path):
        if wanted in PATHS:
            return wanted
        first, _, rest = wanted.removeprefix("/").partition("/")
        if rest and "/" not in rest:
            key = "{task_name}@{trigger_at}" if "@" in unquote(rest) else "{task_name}"
            for template in (f"/{first}/{key}", f"/{first}/{{host}}"):
                if template in PATHS:
                    return template
    return None


def check_response(
    method: str, target: str, status: int, headers: Mapping[str, str], text: str
) -> None:
    """Fail unless the document lists such a response to such a request.

    :param headers: the response headers, with names in lower case.
    """
    template = template_of(target)
    operation = PATHS.get(template or "", {}).get("get" if method == "HEAD" else method.lower())
    if operation is None or status == 500:
        # An unknown operation is refused; internal errors are not described.
        assert status in (400, 404, 405, 500) or (method, status) == ("OPTIONS", 204), (
            f"{status} to {method} {target}"
        )
        if status == 204:
            return
        response: dict[str, Any] = COMPONENTS["responses"]["NotFound"]
        at = "/components/responses/NotFound"
    else:
        assert str(status) in operation["responses"], f"{status} to {method} {target}"
        response = operation["responses"][str(status)]
        escaped = str(template).replace("/", "~1")
        at = f"/paths/{escaped}/{method.lower()}/responses/{status}"
    if "$ref" in response:
        at = response["$ref"].removeprefix("#")
        response = COMPONENTS["responses"][at.rpartition("/")[2]]
    for name, header in response.get("headers", {}).items():
        assert name.lower() in headers or not header.get("required"), f"{name} is missing"
    if method == "HEAD" or "content" not in response:
        assert text == ""
        return
    kind = headers["content-type"].partition(";")[0]
    assert kind in response["content"]
    if kind.endswith("json"):
        place = f"{at}/content/{kind.replace('/', '~1')}/schema"
        validator(re.sub(r"[{}]", lambda m: f"%{ord(m[0]):X}", place)).validate(json.loads(text))
