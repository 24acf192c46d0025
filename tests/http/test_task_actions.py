"""The actions on a task's page: run it, copy it, and see it as JSON."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from typing import Any
from urllib.parse import quote

import pytest

from callme.core.task import Definition, State
from callme.core.times import Key
from callme.security.tokens import Tokens
from callme.webui.task.curl import MAX_ARGUMENT_CHARACTERS, curl_command
from callme.webui.task.json_text import MAX_PARSED_CHARACTERS, indent_json
from tests.helpers.api_client import ask
from tests.helpers.html import visit
from tests.helpers.tasks import NOON, SINK, definition
from tests.helpers.world import World

LATER = NOON + 3600
HOSTILE = 'it\'s "$HOME" `id` \\ \u202e\u2028 \n!x'


@pytest.fixture
def ticking(world: World) -> World:
    world.scheduler.start()
    return world


def arguments(command: str) -> list[str]:
    """Return the arguments that a shell passes to curl, and then its standard input."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as script:
        script.write(f"curl() {{ printf '%s\\0' \"$@\"; cat; }}\n{command}\n")
        script.flush()
        done = subprocess.run(
            ["sh", script.name],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=True,
            text=True,
        )
    assert done.stderr == ""
    return done.stdout.split("\0")


def put_by(world: World, command: str) -> Any:
    """Make the request of a curl command."""
    given = arguments(command)
    assert given[:2] == ["-X", "PUT"]
    assert "Content-Type: application/json" in given
    body = given[given.index("--data-binary") + 1]
    data = given[-1] if body == "@-" else body
    return ask(world, "PUT", given[2].removeprefix("http://localhost:6777"), json.loads(data))


def curl_of(world: World, key: Key) -> str:
    """Return the command on the page of a task."""
    page = visit(world, f"/page/task/{quote(key.task_name, safe='')}@{key.trigger_at}")
    (field,) = page.all(".//textarea[@id='copy-curl']")
    return field.text or ""


# Run now


@pytest.mark.parametrize("status", [500, None])
def test_one_click_runs_a_task_that_has_not_succeeded(ticking: World, status: int | None) -> None:
    if status is None:
        key = ticking.put("x", LATER).key
    else:
        ticking.caller.status = status
        key = ticking.put("x", NOON, retry=0).key
        ticking.notify_due("sink.example:80")
        ticking.turn_to(NOON + 5)
    calls = len(ticking.caller.called)
    page = visit(ticking, f"/page/task/{key}")
    done = visit(ticking, f"/page/run/{key}", page.form(f"/page/run/{key}"))
    assert (done.status, done.header("location")) == (303, f"/page/task/x@{NOON}?done=run")
    assert ticking.caller.called[calls:] == [f"x@{NOON}"]
    shown = visit(ticking, f"/page/task/x@{NOON}?done=run")
    assert shown.texts(".//p[@role='status']") == ["The task is due now."]


def test_task_that_has_succeeded_runs_again_after_a_question(ticking: World) -> None:
    key = ticking.put("x", NOON).key
    ticking.turn_to(NOON + 65)
    assert ticking.task(key).state is State.SUCCEEDED
    page = visit(ticking, f"/page/task/{key}")
    assert page.all(f".//form[@action='/page/run/{key}']") == []
    path = page.links["Run again\u2026"]
    question = visit(ticking, path)
    assert "The task has succeeded already. The task is called now" in question.main
    assert visit(ticking, path, question.form(path)).status == 303
    assert len(ticking.caller.called) == 2


def test_task_does_not_run_in_a_minute_of_another_task(ticking: World) -> None:
    ticking.caller.status = None
    ticking.put("x", NOON)
    ticking.notify_due("sink.example:80")
    key = ticking.put("x", LATER).key
    path = f"/page/run/{key}"
    page = visit(ticking, path, visit(ticking, path).form(path))
    assert page.status == 409
    assert f"another task has the key x@{NOON}" in page.texts(".//p[@role='alert']")[0]


# Copy


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"payload": HOSTILE, "headers": {"X-A": "it's"}, "callback_method": "POST"},
        {"payload_base64": "AP8BgA==", "on_failure": SINK, "labels": {"a": "b'"}},
        {
            "expected_http_status": [204, "3xx"],
            "retry": 0,
            "retry_delay": [1, 5],
            "no_retry_http_status": [410],
            "max_delay": 20,
            "timeout": 5,
        },
    ],
)
def test_curl_command_registers_the_same_task(world: World, more: dict[str, Any]) -> None:
    made = definition("it's \u202e$x", LATER, **more)
    key = world.put(made.task_name, LATER, **more).key
    command = curl_of(world, key)
    assert command.isascii()
    assert put_by(world, command).status == 200
    ask(world, "DELETE", f"/task/{quote(key.task_name)}@{LATER}")
    assert put_by(world, command).status == 201
    assert world.task(key).definition == definition(made.task_name, LATER, **more)


def test_curl_command_of_an_ended_task_is_for_the_next_minute(ticking: World) -> None:
    key = ticking.put("x", NOON, payload="{}", callback_method="POST").key
    ticking.turn_to(NOON + 65)
    command = curl_of(ticking, key)
    created = put_by(ticking, command)
    assert (created.status, created.json["task"]) == (201, f"x@{NOON + 180}")
    assert created.json["payload"] == "{}"
    assert "for the next minute" in visit(ticking, f"/page/task/{key}").main


def test_curl_command_masks_secrets_and_names_the_token(world: World) -> None:
    key = world.put("x", LATER, headers={"Authorization": "hunter2", "X-A": "1"}).key
    text = visit(world, f"/page/task/{key}").text
    assert "hunter2" not in text
    assert "Replace *** with the values of the secret headers." in text
    assert "CALLME_TOKEN" not in curl_of(world, key)
    shown = curl_command(world.task(key).definition, "http://h", is_repeat=False, token=True)
    assert "hunter2" not in shown
    assert '-H "Authorization: Bearer $CALLME_TOKEN"' in shown


def test_long_curl_command_is_a_text_of_its_own(world: World) -> None:
    key = world.put("x", LATER, payload="'\x01" * 60_000, callback_method="POST").key
    page = visit(world, f"/page/task/{key}")
    assert page.all(".//textarea") == []
    command = visit(world, page.links["curl command"])
    assert command.header("content-type") == "text/plain; charset=utf-8"
    assert len(command.text) > MAX_ARGUMENT_CHARACTERS
    assert put_by(world, command.text).status == 200


def test_damaged_task_has_no_curl_command(world: World) -> None:
    key = world.put("x", LATER).key
    world.store.connection.execute("UPDATE task SET headers = '{'")
    page = visit(world, f"/page/task/{key}")
    assert page.status == 200
    assert page.all(".//textarea[@id='copy-curl']") == []


@pytest.mark.parametrize(
    ("name", "text"), [("a b", f"a b@{LATER}"), ("a\u202eb", f"a%E2%80%AEb@{LATER}")]
)
def test_key_can_be_copied(world: World, name: str, text: str) -> None:
    key = world.put(name, LATER).key
    page = visit(world, f"/page/task/{quote(key.task_name)}@{LATER}")
    (field,) = page.all(".//input[@id='copy-key']")
    assert (field.get("value"), field.get("readonly")) == (text, "readonly")


# JSON


def test_raw_json_is_that_of_the_api(world: World) -> None:
    key = world.put("x", LATER, headers={"Cookie": "hunter2"}).key
    page = visit(world, f"/page/task/{key}")
    raw = visit(world, page.links["Raw JSON"])
    assert raw.header("content-type") == "application/json"
    assert json.loads(raw.text) == ask(world, "GET", f"/status/{key}").json
    assert "hunter2" not in raw.text
    assert raw.text.startswith('{\n  "task"')


@pytest.mark.parametrize("page", ["json", "curl", "run"])
def test_texts_of_a_task_need_a_session(world: World, page: str) -> None:
    key = world.put("x", LATER).key
    world.tokens = Tokens.parse("token-of-a-reader")
    assert visit(world, f"/page/{page}/y@{LATER}").status == 404
    assert visit(world, f"/page/{page}/{key}").status == 200


@pytest.mark.parametrize(
    ("text", "indented"),
    [
        (
            '{"a":1.10,"b":[],"c":{ },"d":[1,{"x":"y,{}"}],"e":"\\"q"}',
            '{\n  "a": 1.10,\n  "b": [],\n  "c": {},\n  "d": [\n    1,\n    {\n      "x": "y,{}"\n'
            '    }\n  ],\n  "e": "\\"q"\n}',
        ),
        (" [ ] ", "[]"),
        ("[[]]", "[\n  []\n]"),
    ],
)
def test_json_is_indented_without_a_change_of_its_tokens(text: str, indented: str) -> None:
    assert indent_json(text, 4000) == (indented, True)
    assert json.loads(indented) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "1", '"a"', '{"a"', "{'a': 1}", *("[" * deep + "]" * deep for deep in (101, 3000))]
)
def test_text_that_is_no_json_structure_is_not_indented(text: str) -> None:
    assert indent_json(text, 4000) is None


def test_indented_json_is_bounded() -> None:
    text = json.dumps(list(range(9000)))
    assert len(text) < MAX_PARSED_CHARACTERS
    indented = indent_json(text, 100)
    assert indented is not None
    assert (len(indented[0]), indented[1]) == (100, False)
    assert indent_json(f"[{' ' * MAX_PARSED_CHARACTERS}]", 100) is None
    deep = indent_json("[" * 40 + "1" + "]" * 40, 100_000)
    assert deep is not None
    assert max(map(len, deep[0].splitlines())) == 41


def test_response_body_is_indented_on_the_page(ticking: World) -> None:
    ticking.caller.status = 500
    key = ticking.put("x", NOON, retry=0).key
    ticking.notify_due("sink.example:80")
    ticking.turn_to(NOON + 5)
    ticking.store.connection.execute("UPDATE attempt SET body = '{\"a\":[1]}'")
    (body,) = visit(ticking, f"/page/task/{key}").all(".//details[@id='response-1']/pre")
    assert body.text == '{\n  "a": [\n    1\n  ]\n}'


# Defaults


def test_command_leaves_out_defaults() -> None:
    made = Definition(task_name="x", trigger_at=LATER, callback=SINK)
    command = curl_command(made, "http://localhost:6777", is_repeat=False, token=False)
    assert shlex.split(command)[-1] == json.dumps({"callback": SINK}, separators=(",", ":"))
