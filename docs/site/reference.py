"""The reference of the HTTP API, as Markdown generated from the OpenAPI document.

Run this module to write docs/reference.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from callme.api.openapi.operations import document

Part = dict[str, Any]

METHODS = ("get", "put", "post", "delete")
PAGE = Path(__file__).parents[1] / "reference.md"
INTRODUCTION = """\
# Reference

This page lists every operation, parameter, member and response of the HTTP API. It is generated
from the [OpenAPI](https://www.openapis.org) document that every daemon serves at `/openapi.json`.
Tests compare that document with the code. For an explanation with examples, see [the API](api.md).
"""


def reference() -> str:
    """Return the reference: every operation, then every schema."""
    return "\n".join(_Reference(document()).lines()) + "\n"


class _Reference:
    """Writer of the reference for one document.

    :param document: the document as the daemon serves it.
    """

    def __init__(self, document: Part) -> None:
        self._document = document
        self._schemas: Part = document["components"]["schemas"]
        operations = [
            item[method]
            for item in document["paths"].values()
            for method in METHODS
            if method in item
        ]
        # Parameters and responses of nearly all operations are listed once.
        self._shared = [
            common
            for common, count in Counter(
                common for operation in operations for common in _commons(operation)
            ).items()
            if count > 0.8 * len(operations)
        ]

    def lines(self) -> Iterator[str]:
        for tag in self._document["tags"]:
            yield from ("", f"## Operations: {tag['name']}", "", tag["description"])
            for path, item in self._document["paths"].items():
                for method in METHODS:
                    if method in item and tag["name"] in item[method]["tags"]:
                        yield from self._operation(method, path, item)
        yield from ("", "## Common parameters and responses", "")
        yield from self._parameters(
            {"$ref": ref} for kind, ref in self._shared if kind == "parameter"
        )
        yield from self._answers(
            {kind: {"$ref": ref} for kind, ref in self._shared if kind != "parameter"}
        )
        yield from ("", "## Schemas", "")
        for name, schema in self._schemas.items():
            yield from self._schema(name, schema)

    def _found(self, part: Part) -> Part:
        """Return the component that a reference names; any other part unchanged."""
        if "$ref" not in part:
            return part
        found: Any = self._document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        assert isinstance(found, dict)
        return found

    def _operation(self, method: str, path: str, item: Part) -> Iterator[str]:
        operation = item[method]
        yield from ("", f"### `{method.upper()} {path}`", "", operation["summary"])
        if "description" in operation:
            yield from ("", operation["description"])
        parameters = [*item.get("parameters", ()), *operation["parameters"]]
        shared = [{"$ref": ref} for _, ref in self._shared]
        yield from self._parameters(one for one in parameters if one not in shared)
        if "requestBody" in operation:
            body = operation["requestBody"]
            needed = "required" if body["required"] else "optional"
            yield from ("", f"Body ({needed}): {_contents(body['content'])}.")
        answers = operation["responses"]
        yield from self._answers({k: one for k, one in answers.items() if one not in shared})
        missing = [
            kind for kind, ref in self._shared if kind != "parameter" and kind not in answers
        ]
        but = f", except {' and '.join(f'`{one}`' for one in missing)}" if missing else ""
        yield from (
            "",
            f"[The common parameters and responses](#common-parameters-and-responses) apply{but}.",
        )

    def _parameters(self, parameters: Iterable[Part]) -> Iterator[str]:
        yield from _table(
            ("parameter", "in", "type", "meaning"),
            (self._parameter(self._found(one)) for one in parameters),
        )

    def _answers(self, answers: Part) -> Iterator[str]:
        yield from _table(
            ("response", "meaning", "body"),
            (
                (f"`{status}`", *self._answer(self._found(answer)))
                for status, answer in sorted(answers.items())
            ),
        )

    def _parameter(self, one: Part) -> tuple[str, str, str, str]:
        name = f"`{one['name']}`"
        described = self._found(one["schema"])
        meaning = one.get("description") or described.get("description", "")
        return name, one["in"], _type(one["schema"]), meaning

    def _answer(self, answer: Part) -> tuple[str, str]:
        meaning: str = answer["description"]
        headers = answer.get("headers", {})
        for name, header in headers.items():
            said = f": {header['description']}" if "description" in header else "."
            meaning += f" With `{name}`{said}"
        return meaning, _contents(answer["content"]) if "content" in answer else "none"

    def _schema(self, name: str, schema: Part) -> Iterator[str]:
        yield from ("", f"### {name}", "")
        about = [schema.get("description", "")]
        if "properties" not in schema:
            about.append(f"Type: {_type(schema)}.")
        members: Part = schema.get("properties", {})
        like = self._like(name, members)
        if like:
            about.append(self._difference(like, schema))
        if schema.get("additionalProperties") is False:
            about.append("No other members are allowed.")
        yield " ".join(filter(None, about))
        if not like:
            yield from _table(("member", "type", "present", "meaning"), self._members("", schema))
        examples = [f"`{json.dumps(example)}`" for example in schema.get("examples", ())]
        if examples:
            yield from ("", f"Example: {' or '.join(examples)}.")

    def _members(self, path: str, schema: Part) -> Iterator[tuple[str, str, str, str]]:
        """Yield a row for each member, including those of nested objects."""
        required = schema.get("required", ())
        for name, one in schema.get("properties", {}).items():
            needed = _need(name in required, one)
            yield f"`{path}{name}`", _type(one), needed, self._meaning(name, one)
            items = one.get("items", {})
            yield from self._members(f"{path}{name}[].", items)
            yield from self._members(f"{path}{name}.", one)

    def _like(self, name: str, members: Part) -> str | None:
        """Return a schema that contains all these members, or ``None``."""
        for other, schema in self._schemas.items():
            theirs = schema.get("properties", {})
            if other == name and len(members) == len(theirs):
                return None
            if len(members) > 4 and members.items() <= theirs.items():
                return other
        return None

    def _difference(self, like: str, schema: Part) -> str:
        other = self._schemas[like]
        missing = [f"`{one}`" for one in other["properties"] if one not in schema["properties"]]
        required = [f"`{one}`" for one in schema.get("required", ())]
        but = f" except {' and '.join(missing)}" if missing else ""
        always = "all" if len(required) == len(schema["properties"]) else " and ".join(required)
        return f"It has the members of [{like}](#{like.lower()}){but}; {always} must be present."

    def _meaning(self, member: str, schema: Part) -> str:
        """Return the meaning of a member, or that of the task parameter with its name."""
        given = self._schemas["NewTask"]["properties"].get(member, {})
        for one in (schema, *schema.get("anyOf", ()), given):
            said: str = one.get("description") or self._found(one).get("description", "")
            if said:
                return said
        return ""


def _commons(operation: Part) -> Iterator[tuple[str, str]]:
    """Yield each shared component of an operation: its kind or status, and its reference."""
    for parameter in operation["parameters"]:
        if "$ref" in parameter:
            yield "parameter", parameter["$ref"]
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            yield status, answer["$ref"]


def _need(required: bool, schema: Part) -> str:
    if required:
        return "yes"
    if "default" in schema:
        return f"default `{json.dumps(schema['default'])}`"
    return "optional"


def _contents(content: Part) -> str:
    """Return the type of a body for each media type."""
    kinds: dict[str, list[str]] = {}
    for kind, what in content.items():
        kinds.setdefault(_type(what["schema"]), []).append(f"`{kind}`")
    return "; ".join(
        what if names == ["`application/json`"] else f"{what} ({' or '.join(names)})"
        for what, names in kinds.items()
    )


def _type(schema: Part) -> str:
    """Return the type of a value with its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    kind: str = schema.get("type", "value")
    if kind == "array":
        return f"list of {_type(schema['items'])}" + _bounds(schema, "Items", " of them")
    if kind == "string":
        kind = schema.get("format", kind)
        return kind + _bounds(schema, "Length", " characters")
    return kind + _bounds(schema, "imum", "")


def _bounds(schema: Part, what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if least is not None and most is not None:
        return f", {least:,} to {most:,}{unit}"
    if most is not None:
        return f", at most {most:,}{unit}"
    return f", at least {least:,}{unit}" if least else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; no lines if it has no rows."""
    made = [tuple(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in rows]
    if made:
        yield ""
        for row in (head, ("---",) * len(head), *made):
            yield f"| {' | '.join(row)} |"


def whole_page() -> str:
    """Return the whole page."""
    return INTRODUCTION + reference()


if __name__ == "__main__":
    PAGE.write_text(whole_page(), encoding="utf-8")
