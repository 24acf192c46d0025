"""The OpenAPI document against the API: routes, bounds and responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from callme import __version__
from callme.api.routes import Api
from callme.core.headers import FRAMING_HEADERS, OWN_HEADERS
from callme.core.parameters import FORBIDDEN_METHODS, parse_definition
from callme.core.task import State
from callme.errors import Invalid
from tests.helpers.api_client import BODY, ask
from tests.helpers.openapi_checks import COMPONENTS, DOCUMENT, PATHS, is_a, is_parameter, validator
from tests.helpers.tasks import NOON
from tests.helpers.world import World

PARAMETERS: dict[str, Any] = COMPONENTS["schemas"]["NewTask"]["properties"]

_URL = "valid port|valid host|is not a URL: |a number for a host|may not be called"
UNSAYABLE = {
    "trigger_at": "out of range|is not a time: |max_delay has passed",
    "callback": _URL,
    "on_failure": _URL,
    "on_success": _URL,
    "headers": "given twice|headers of [0-9]+ bytes",
    "payload": "a payload of [0-9,]+ bytes",
}
"""Errors for values that match their schema but break a rule that a schema cannot express."""
FRACTION = r"[0-9]\.0 is not accepted"
"""JSON Schema accepts 1.0 as an integer, callme does not."""


def test_document_is_served(world: World) -> None:
    response = ask(world, "GET", "/openapi.json")
    assert (response.status, response.json) == (200, DOCUMENT)
    assert response.json["info"]["version"] == __version__
    pretty = ask(world, "GET", "/openapi.json?pretty")
    assert pretty.json == response.json
    assert pretty.text.startswith('{\n  "openapi": "3.1')
    assert ask(world, "GET", "/openapi.json?colour=red").status == 400


def test_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_document_lists_every_route() -> None:
    def plain(path: str) -> str:
        return path.rstrip("/")

    routed = {
        (method.lower(), plain(rule.rule))
        for rule in Api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    described = {
        (method, plain(re.sub(r"\{(task_name|host)\}(@\{trigger_at\})?", "<path:path>", path)))
        for path, operations in PATHS.items()
        for method in operations
        if method != "parameters"
    }
    assert described == routed


def test_operation_ids_are_unique_and_references_resolve() -> None:
    names = [o["operationId"] for p in PATHS.values() for o in p.values() if "operationId" in o]
    assert len(names) == len(set(names)) == 24
    referred = set()
    for node in nodes(DOCUMENT):
        if "$ref" in node:
            referred.add(node["$ref"])
            kind, name = node["$ref"].split("/")[2:]
            assert name in COMPONENTS[kind]
        if "operationId" in node:
            assert node["operationId"] in names
    defined = {f"#/components/{k}/{name}" for k, those in COMPONENTS.items() for name in those}
    assert defined - referred == {"#/components/securitySchemes/bearer"}


OPERATIONS = {
    (path, method): operation for path, item in PATHS.items() for method, operation in item.items()
}


def test_operations_are_described_and_their_summaries_are_unique() -> None:
    summaries = [operation["summary"] for operation in OPERATIONS.values()]
    assert len(set(summaries)) == len(summaries)
    assert all(operation["description"] for operation in OPERATIONS.values())
    assert not [path for path in PATHS if path != "/" and path.endswith("/")]


def test_parameters_of_the_path_come_first_in_the_order_of_the_url() -> None:
    """Generators make the arguments of a function from them, in this order."""
    for (path, _), operation in OPERATIONS.items():
        in_path = re.findall(r"\{(\w+)\}", path)
        names = [parameter.get("name") for parameter in operation["parameters"]]
        assert names[: len(in_path)] == in_path


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if isinstance(inner, (dict, list)):
            yield from nodes(inner)


# Requests

INSERTED = ["@", "/", " ", "\0", "\n", "\t", "\x7f", "\x85", "é", "\u2028", "0", "%", "\\", ":"]
SEEDS = {
    "trigger_at": ["+0m", "0", "253402300799", "1969-12-31T23:59:59+00:00"],
    "callback": ["https://[::1]:8443/a?b=c#d", "HTTP://a.", "http://127.0.0.1?x"],
    "callback_method": ["POST", "M-SEARCH", *FORBIDDEN_METHODS],
    "payload": ["", "é"],
    "names": ["X-Request-Id", *FRAMING_HEADERS, *OWN_HEADERS],
    "values": ["", "a", "Bearer a b"],
}
"""Seed texts, besides the examples in the document."""


UNBOUNDED: tuple[dict[str, Any], ...] = ({"type": "object"}, {"type": "array", "items": {}})
"""Schemas that accept any members."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference names, or the schema itself."""
    name: str = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = COMPONENTS["schemas"][name] if name else schema
    return found


def edges(schema: dict[str, Any], seeds: Sequence[str] = ()) -> Iterator[Any]:
    """Yield values close to a schema's bounds, on both sides."""
    schema = resolved(schema)
    seeds = [*seeds, *(one for one in schema.get("examples", ()) if isinstance(one, str))]
    for one in schema.get("anyOf", ()):
        yield from edges(one, seeds)
    kind = schema.get("type")
    if kind == "integer":
        least, most = schema["minimum"], schema["maximum"]
        yield from (least - 1, least, most, most + 1, float(least), str(most), -(10**30))
    elif kind == "string":
        for seed in seeds:
            yield from edited(seed, schema.get("maxLength", 0))
    elif kind == "number":
        end = schema["exclusiveMaximum"]
        yield from (-1, -0.5, 0, 0.5, 1.0, end - 1, end - 0.5, end, end * 1000)
    elif schema in UNBOUNDED:
        yield from ([None], [{"a": [1.5]}], {"a": None}, {"": [True]})
    elif kind == "array":
        most = schema["maxItems"]
        for edge in edges(schema["items"], seeds):
            yield [edge]
        yield from ([], [1] * most, [1] * (most + 1), [[1]])
    elif kind == "object":
        yield from ({name: ""} for seed in SEEDS["names"] for name in edited(seed))
        yield from ({"X": value} for seed in SEEDS["values"] for value in edited(seed))
        most = schema["maxProperties"]
        yield from ({f"x{i}": "" for i in range(n)} for n in (most, most + 1))
        yield from ({"X": value} for value in (None, 1, ["a"]))
    yield from (None, True, 1.5, "", [], {})


def edited(seed: str, most: int = 0) -> Iterator[str]:
    """Yield a text and small variations of it."""
    yield from (seed, seed.upper(), seed.lower(), seed.title(), seed * 2)
    yield from (seed[:at] + seed[at + 1 :] for at in range(len(seed)))
    yield from (
        seed[:at] + inserted + seed[at:] for at in range(len(seed) + 1) for inserted in INSERTED
    )
    yield from (seed.ljust(most + more, "a") for more in (-1, 0, 1) if most)


def texts(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return texts that match a schema's pattern, and near misses."""
    right = st.from_regex(schema["pattern"]) if "pattern" in schema else st.text()

    def inserted(text: str, at: int, character: str) -> str:
        return text[: at % (len(text) + 1)] + character + text[at % (len(text) + 1) :]

    wrong = st.builds(inserted, right, st.integers(0, 2**20), st.sampled_from(INSERTED))
    return right | wrong


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values near a schema's bounds, valid and invalid ones."""
    schema = resolved(schema)
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    if schema["type"] == "integer":
        return st.integers(schema["minimum"] - 5, schema["maximum"] + 5)
    if schema["type"] == "number":
        return st.floats(-5, schema["exclusiveMaximum"] + 5)
    if schema in UNBOUNDED:
        return st.lists(st.none() | st.text()) | st.dictionaries(st.text(), st.none() | st.text())
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), max_size=4)
    if schema["type"] == "object":
        names, contents = texts(schema["propertyNames"]), texts(schema["additionalProperties"])
        return st.dictionaries(names, contents, max_size=3)
    return texts(schema)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_accepted_if_its_schema_allows_it(name: str) -> None:
    def hold(value: object) -> None:
        valid = is_parameter(name, value)
        seen[valid] += 1
        body: dict[str, object] = {**BODY, "task_name": "task", name: value}
        try:
            parse_definition(body, NOON)
        except Invalid as error:
            (first, *_) = error.errors
            assert first.pointer.startswith(f"/{name}")
            if valid:
                expected = UNSAYABLE.get(name, "$nothing")
                assert re.search(f"{expected}|{FRACTION}", first.detail), value
        else:
            assert valid, value

    seen = {True: 0, False: 0}
    for edge in edges(PARAMETERS[name], SEEDS.get(name, ())):
        hold(edge)
    assert min(seen.values()) > 1, "one side only"
    settings(max_examples=50, derandomize=True)(given(values(PARAMETERS[name]))(hold))()


def test_task_takes_the_parameters_of_its_schema(world: World) -> None:
    refused = ask(world, "PUT", "/task/task", {**BODY, "colour": "red"})
    known = refused.json["detail"].lower().partition("expected one of ")[2].split(", ")
    assert known == sorted(PARAMETERS)
    assert not is_a("NewTask", {**BODY, "colour": "red"})
    created = ask(world, "PUT", "/task/task", BODY).json
    for name, schema in PARAMETERS.items():
        if "default" in schema:
            assert created[name] == schema["default"]
    # Some generators turn an empty default into another value, and send it.
    assert all(schema.get("default", True) for schema in PARAMETERS.values())
    needed = ask(world, "PUT", "/task/", {}).json["errors"]
    required = COMPONENTS["schemas"]["NewTask"]["required"]
    # The schema omits the requirement of members that may be in the URL.
    assert [error["pointer"] for error in needed] == [
        f"/{name}" for name in ("task_name", "trigger_at", *required)
    ]


WIRE = {
    "limit": ("/status/?limit=", "/components/parameters/limit/schema"),
    "state": ("/status/?state=", "/components/parameters/state/schema"),
    "start_from": ("/status/?start_from=", "/components/parameters/start_from/schema"),
    "future_only": ("/status/?future_only=", "/components/parameters/future_only/schema"),
    "pretty": ("/status/?pretty=", "/components/parameters/pretty/schema"),
    "all": ("/reschedule/a?all=", "/components/parameters/all/schema"),
    "hours": ("/forecast?hours=", "/components/parameters/hours/schema"),
    "name": ("/status/", "/components/schemas/TaskName"),
    "time": ("/status/a@", "/components/schemas/AbsoluteTime"),
}
TEXTS = {
    "limit": st.integers(-5, 10**10).map(str)
    | st.sampled_from(["1000", "1001", "1", "0", "", "x"]),
    "hours": st.integers(-5, 200).map(str) | st.sampled_from(["1", "168", "169", "0", "", "x"]),
    "state": st.sampled_from([*State, "", "all", "Failed"]).map(str.__str__),
    "start_from": texts(COMPONENTS["schemas"]["Key"]),
    "name": texts(COMPONENTS["schemas"]["TaskName"]),
    "time": texts(COMPONENTS["schemas"]["AbsoluteTime"]),
}
FLAGS = st.sampled_from(["", "true", "false", "True", "1", "0", "yes", "NO", "2", "null"])


@pytest.mark.parametrize("name", WIRE)
def test_part_of_a_url_is_accepted_if_its_schema_allows_it(world: World, name: str) -> None:
    before, pointer = WIRE[name]

    @settings(max_examples=60, derandomize=True)
    @given(TEXTS.get(name, FLAGS))
    def hold(text: str) -> None:
        if (name == "name" and not text) or (name in ("name", "time") and "@" in text):
            return  # It is another path, or another key.
        method = "POST" if name == "all" else "GET"
        response = ask(world, method, before + quote(text, safe=""))
        value: object = text
        if name in ("limit", "hours") and text.isdecimal():
            value = int(text)
        elif name in ("future_only", "pretty", "all"):
            # The bare name is valid: allowEmptyValue.
            # Other spellings, which the document omits, are accepted as well.
            spellings = {"true": True, "1": True, "yes": True, "": True}
            spellings |= {"false": False, "0": False, "no": False}
            value = spellings.get(text.lower(), text)
        if not validator(pointer).is_valid(value):
            assert response.status == 400
        elif response.status == 400:
            assert re.search(UNSAYABLE["trigger_at"], response.json["detail"])

    hold()


# Examples


def test_every_example_matches_its_schema() -> None:
    found = 0
    for name, schema in COMPONENTS["schemas"].items():
        for example in schema.get("examples", ()):
            found += 1
            assert is_a(name, example)
    for name, schema in PARAMETERS.items():
        for example in schema.get("examples", ()):
            found += 1
            assert is_parameter(name, example)
    assert found > 10


def example_of(body: dict[str, Any], kind: str = "application/json") -> Any:
    (example,) = body["content"][kind]["examples"].values()
    return example["value"]


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/task", "/task"),
        ("/task/trial-end", "/task/{task_name}"),
        ("/task/trial-end@1858809600", "/task/{task_name}@{trigger_at}"),
    ],
)
def test_examples_are_accepted_by_the_api(world: World, path: str, template: str) -> None:
    example = example_of(PATHS[template]["put"]["requestBody"])
    assert ask(world, "PUT", path, example).status == 201


def test_example_of_a_new_time_is_accepted_by_the_api(world: World) -> None:
    (example,) = COMPONENTS["schemas"]["NewTime"]["examples"]
    world.put("trial-end", 1_858_809_660)
    assert ask(world, "POST", "/reschedule/trial-end?all", example).status == 200


def test_every_response_with_a_body_has_examples_that_match_its_schema() -> None:
    found = 0
    places = [
        (f"/paths/{path.replace('/', '~1')}/{method}/responses/{status}", response)
        for (path, method), operation in OPERATIONS.items()
        for status, response in operation["responses"].items()
        if "$ref" not in response
    ]
    places += [
        (f"/components/responses/{name}", response)
        for name, response in COMPONENTS["responses"].items()
    ]
    for place, response in places:
        for kind, body in response.get("content", {}).items():
            schema = f"{place}/content/{kind.replace('/', '~1')}/schema"
            assert body["examples"], schema
            for example in body["examples"].values():
                found += 1
                escaped = re.sub(r"[{}]", lambda m: f"%{ord(m[0]):X}", schema)
                validator(escaped).validate(example["value"])
    assert found > 40


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "name"),
    [
        ("GET", "/status?colour=red", None, {}, "BadRequest"),
        ("GET", "/status/trial-end@1858809600", None, {}, "NotFound"),
        ("PUT", "/task/trial-end@1858809600", {"callback": "http://b/"}, {}, "PutConflict"),
        (
            "PUT",
            "/task/trial-end@1858809600",
            {"callback": "http://b/"},
            {"If-None-Match": "*"},
            "PreconditionFailed",
        ),
        ("PUT", "/task/a", {}, {"Content-Type": "text/csv"}, "UnsupportedMediaType"),
        ("PUT", "/task/a", {**BODY, "retry": "many"}, {}, "Invalid"),
    ],
)
def test_example_of_a_problem_is_that_of_the_api(
    world: World, method: str, path: str, body: object, headers: dict[str, str], name: str
) -> None:
    if body:
        world.put("trial-end", 1_858_809_600)
    response = ask(world, method, path, body, headers=headers)
    example = example_of(COMPONENTS["responses"][name], "application/problem+json")
    assert response.json.keys() == example.keys()
    assert response.json["title"] == example["title"]
    if name != "BadRequest":  # It lists the parameters of the list.
        assert response.json["detail"] == example["detail"]


def test_example_of_a_batch_is_accepted_by_the_api(world: World) -> None:
    example = example_of(PATHS["/batch"]["post"]["requestBody"], "application/x-ndjson")
    pending = world.http.request(
        "POST",
        "http://callme/batch",
        data=example.encode(),
        headers={"Content-Type": "application/x-ndjson"},
    )
    world.http.flush()
    world.turn_to(NOON + 1)
    world.http.flush()
    text = world.result(world.result(pending).text())
    assert [json.loads(line)["status"] for line in text.splitlines()] == [201, 201]


# Responses


def test_response_has_the_members_of_its_schema(world: World) -> None:
    def members(schema: str) -> set[str]:
        return set(COMPONENTS["schemas"][schema]["properties"])

    world.caller.status = 500
    world.scheduler.start()
    task = world.put()
    world.turn_to(NOON + 120)
    whole = ask(world, "GET", f"/task/{task.key}").json
    absent = {"payload_base64", "warnings", "damaged", "attempts_dropped", "next"}
    assert set(whole) | absent == members("Task")
    assert {name for attempt in whole["attempts"] for name in attempt} == members("Attempt")
    (listed,) = ask(world, "GET", "/status/").json["tasks"]
    assert set(listed) | {"damaged"} == members("ListedTask")
    assert set(ask(world, "GET", "/healthz").json) == members("Health")
    wrong = ask(world, "PUT", "/task/a", {**BODY, "retry": -1}).json
    assert set(wrong) == members("Problem")
    assert set(wrong["errors"][0]) == members("FieldError")
    standing = ask(world, "PUT", f"/task/{task.key}", {"callback": "http://b/"}).json
    assert set(standing) | {"errors"} == members("PutProblem")
    moved = ask(world, "POST", f"/reschedule/{task.key}").json
    assert set(moved) | {"next", "warnings"} == members("Rescheduled")
    assert set(moved["rescheduled"][0]) == members("Moved")
    assert set(ask(world, "DELETE", "/task/task").json) | {"next"} == members("Deleted")
