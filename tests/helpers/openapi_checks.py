"""What the OpenAPI document says, for tests to ask: is this value valid, may this be an answer?"""

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
    """Return what checks values against the schema that stands somewhere in the document."""
    schema = {"$ref": f"#{pointer}", "paths": PATHS, "components": COMPONENTS}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def is_a(name: str, value: object) -> bool:
    """Whether a value is valid by a schema that has a name."""
    return validator(f"/components/schemas/{name}").is_valid(value)


def is_parameter(name: str, value: object) -> bool:
    """Whether a value is valid as a parameter of a task."""
    return validator(f"/components/schemas/NewTask/properties/{name}").is_valid(value)


def template_of(target: str) -> str | None:
    """Return the path in the document that a request's target means, if it means one."""
    path = target.partition("?")[0]
    # A trailing slash makes no difference; the document has it where a list is asked for.
    for wanted in (path.removesuffix("/"), path, path + "/"):
        if wanted in PATHS:
            return wanted
        first, _, rest = wanted.removeprefix("/").partition("/")
        if rest and "/" not in rest:
            key = "{task_name}@{trigger_at}" if "@" in unquote(rest) else "{task_name}"
            if f"/{first}/{key}" in PATHS:
                return f"/{first}/{key}"
    return None


def check_answer(
    method: str, target: str, status: int, headers: Mapping[str, str], text: str
) -> None:
    """Fail unless the document has such an answer to such a request.

    :param headers: the answer's, their names in lower case.
    """
    template = template_of(target)
    operation = PATHS.get(template or "", {}).get("get" if method == "HEAD" else method.lower())
    if operation is None or status == 500:
        # What is no operation is refused; a fault of callme's own is nothing to be described.
        assert status in (400, 404, 405, 500), f"{status} to {method} {target}"
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
