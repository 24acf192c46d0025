"""Forms of requests that people and libraries send: accepted, or refused with the way out."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.helpers.api_client import AT, BODY, ask, pointers, put
from tests.helpers.tasks import NOON
from tests.helpers.world import World


def test_payload_may_be_an_object_or_a_list(world: World) -> None:
    made = put(world, "object", callback_method="POST", payload={"b": [1, 2.5], "a": "é"})
    assert (made.status, made.json["payload"]) == (201, '{"b":[1,2.5],"a":"é"}')
    assert "payload_base64" not in made.json
    again = put(world, "object", callback_method="POST", payload='{"b":[1,2.5],"a":"é"}')
    assert again.status == 200


def test_payload_may_be_bytes_in_base64(world: World) -> None:
    made = put(world, callback_method="POST", payload_base64="AP8BgA==")
    assert (made.status, made.json["payload_base64"]) == (201, "AP8BgA==")
    assert "payload" not in made.json
    stored = ask(world, "GET", f"/task/task@{AT}").json
    assert stored["payload_base64"] == "AP8BgA=="
    (listed,) = ask(world, "GET", "/status/").json["tasks"]
    assert not listed.keys() & {"payload", "payload_base64"}
    both = put(world, "both", payload="a", payload_base64="AAAA")
    assert (both.status, pointers(both)) == (422, ["/payload_base64"])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("+6h", NOON + 6 * 3600),
        ("1d12h", NOON + 36 * 3600),
        ("now", NOON),
        ("2028-11-26 09:00[Europe/Berlin]", 1858838400),
        ("2028-11-26T09:00%2B0100", 1858838400),
        ("2028-11-26T09:00+0100", 1858838400),
    ],
)
def test_any_accepted_time_may_stand_in_the_url(world: World, at: str, expected: int) -> None:
    made = ask(world, "PUT", f"/task/a@{quote(at, safe='+%')}", {"callback": BODY["callback"]})
    assert (made.status, made.json["trigger_at"]) == (201, str(expected))


def test_byte_order_mark_is_skipped(world: World) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(BODY).encode()
    assert ask(world, "PUT", "/task/task", body).status == 201
    assert ask(world, "POST", "/reschedule/task?all", b"\xef\xbb\xbf").status == 200
    twice = ask(world, "PUT", "/task/task", b"\xef\xbb\xbf" + body)
    assert twice.status == 400


@pytest.mark.parametrize("value", ["", "=true", "=1", "=yes", "=True", "=YES"])
def test_flag_accepts_common_spellings(world: World, value: str) -> None:
    put(world)
    assert ask(world, "POST", f"/reschedule/task?all{value}&pretty{value}").text.startswith("{\n")
    for no in ("false", "0", "no", "False"):
        answer = ask(world, "GET", f"/status/?future_only={no}&pretty={no}")
        assert (answer.status, answer.text[:9]) == (200, '{"tasks":')


@pytest.mark.parametrize(
    ("more", "pointers"),
    [
        ({}, None),
        ({"payload": "a"}, ["/callback_method"]),
        ({"retry": 20, "retry_delay": 5}, ["/max_delay"]),
        ({"trigger_at": "202811260900"}, ["/trigger_at"]),
        ({"trigger_at": "2028-10-29T02:30[Europe/Berlin]"}, ["/trigger_at"]),
        (
            {"trigger_at": "2028-03-26T02:30[Europe/Berlin]", "payload": {}, "max_delay": 1},
            ["/trigger_at", "/callback_method", "/max_delay"],
        ),
    ],
)
def test_created_unchanged_and_previewed_tasks_have_warnings(
    world: World, more: dict[str, Any], pointers: list[str] | None
) -> None:
    for query, status in (("?dry_run", 200), ("", 201), ("", 200), ("?dry_run", 200)):
        answer = ask(world, "PUT", f"/task/task{query}", {**BODY, **more})
        found = [warning["pointer"] for warning in answer.json.get("warnings", [])]
        assert (answer.status, found or None) == (status, pointers)
        assert ("warnings" in answer.json) is (pointers is not None)


@pytest.mark.parametrize(
    ("trigger_at", "pointers"),
    [("2028-10-29T02:30[Europe/Berlin]", ["/trigger_at"]), ("2028-10-29T02:30Z", [])],
)
def test_reschedule_to_an_ambiguous_local_time_has_a_warning(
    world: World, trigger_at: str, pointers: list[str]
) -> None:
    ask(world, "PUT", "/task/task", BODY)
    answer = ask(world, "POST", "/reschedule/task?all=true", {"trigger_at": trigger_at})
    assert answer.status == 200
    assert [warning["pointer"] for warning in answer.json.get("warnings", [])] == pointers


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"@task.json", "the name of a file"),
        (b"trigger_at=%2B6h&callback=http://a/", "looks like a form"),
        (gzip.compress(b"{}", mtime=0), "compressed with gzip"),
        (b"{trigger_at: 5}", "is not JSON"),
        (b"NaN", 'expected a JSON object, such as {"trigger_at": "+6h"}'),
        (b"'{}'", 'expected a JSON object, such as {"trigger_at": "+6h"}'),
        (b"trigger_at: +6h", 'expected a JSON object, such as {"trigger_at": "+6h"}'),
        ("{}".encode("utf-16"), "is UTF-16: send UTF-8"),
        (b'{"retry": 1,\n}', "Illegal trailing comma at line 1, column 12"),
        (b'{"retry": 1,\n"a": [1,\n]}', "Illegal trailing comma at line 2, column 8"),
        (b'{"a": tru, "b": 1,}', "Expecting value at line 1, column 7"),
        (b'{"payload": [1, ]}', "Illegal trailing comma at line 1, column 15"),
        (b'{"retry": 1}\n\n{"retry": 2}', "line 3 begins another object: expected one"),
        (b"{'retry': 1}", "line 1, column 2, found a single quote: names and strings"),
        (
            b'{"callback": None}',
            'line 1, column 14, found "None": leave the member out, or write null',
        ),
        (b'{"retry": undefined}', 'found "undefined": leave the member out'),
        (b'{"a": True}', 'found "True": write true'),
        (b"{retry: 1}", 'found "r": names take double quotes'),
        (b'{"trigger_at" "+6h"}', "found a double quote: a colon is missing after a name"),
        (b'{"a": "b" "c": "d"}', "found a double quote: a comma is missing"),
        (b'{"a": "say "hi""}', 'found "h": a comma is missing, or a double quote in a string'),
        (b'{"a": 1, // soon\n"b": 2}', 'found "/": JSON has no comments'),
        (b'# soon\n{"a": 1}', "begins with a comment, and JSON has no comments: expected a JSON"),
        (b"'{\"a\": 1}'", "begins with a single quote, which cmd.exe does not remove: expected"),
        (b'{\\"a\\": 1}', "found a backslash: this double quote takes no backslash"),
        (b'"{\\"a\\": 1}"', "this string contains JSON: encode it once, not twice"),
        (b"[object Object]", "send JSON.stringify(object)"),
        (b'{"a": 1', "line 1, column 8, found the end: the body is cut off"),
        (b'{"a": ', "found the end: the body is cut off"),
        (b'{"a": "b', "a double quote is missing at its end, or the body is cut off"),
        (b'{"a": +6h}', 'found "+": a number has no plus, and a duration such as +6h takes double'),
        (b'{"a": 05}', 'found "5": a number has no leading zero'),
        (b'{"a": 1,000}', 'found "0": a number is written as 1000'),
        (b'{"a": "b\nc"}', r'found "\n": a line feed in a string is written \n'),
        (b'{"a": "C:\\dir"}', r"found a backslash: a backslash in a string is written \\"),
        (b'{"a": $NAME}', 'found "$": a placeholder has not been replaced'),
        (b'{"a": {{name}}}', 'found "{": a placeholder has not been replaced'),
        ("{\u201ca\u201d: 1}".encode(), r'found "\u201c": write straight double quotes'),
        ('{"a":\xa01}'.encode(), r'found "\u00a0": this character is invisible'),
        (b'{"a": 1}}', 'expected its end at line 1, column 9, found "}": leave out what follows'),
        (b"<task/>", "looks like XML or HTML: expected a JSON object"),
        (b"trigger_at: +6h", "looks like YAML: expected a JSON object"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n', "looks like a form"),
        (b"task.json", "is the name of a file"),
        (b"%7B%22a%22%3A1%7D", "is percent-encoded: send it as it is"),
        ("{}".encode("utf-16-le"), "is UTF-16: send UTF-8"),
        ("{}".encode("utf-16-be"), "is UTF-16: send UTF-8"),
        (
            '{"a": "\xe9"}'.encode("latin-1"),
            "line 1, column 8 is 0xe9, as in Latin-1 or Windows",
        ),
        (
            b'{"a": "\xc3',
            "line 1, column 8 is 0xc3: the body is cut off within a char",
        ),
        (b"[]", "a list is not accepted: expected a JSON object; POST /batch takes a list"),
        (b"5", "a number is not accepted: expected a JSON object"),
    ],
)
def test_body_that_is_not_json_is_refused_with_the_way_out(
    world: World, body: bytes, expected: str
) -> None:
    answer = ask(world, "PUT", "/task/task", body)
    assert answer.status == 400
    assert expected in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"task_name": "a"}\n{"task_name": "b"}\n', "line 2 begins another object; send one"),
        (b'{"tasks": [{"task_name": "a"}]}', "the body is an object: expected a JSON array"),
        (b'{"task_name": "a"},\n{"task_name": "b"}', "the body is an object: expected a JSON"),
        (b" ", "the body is empty: expected a JSON array of tasks"),
        (b"task_name=a", "looks like a form: expected a JSON array of tasks"),
        (b"task_name,trigger_at\na,+6h\n", "is not a JSON array: expected a JSON array of tasks"),
        (
            b'[{"a": 1} {"a": 2}]',
            'or ] at line 1, column 11, found "{": a comma is missing',
        ),
        (b"[{'a': 1}]", "found a single quote: names and strings take double quotes"),
        (b"[", "found the end: the body is cut off"),
    ],
)
def test_batch_that_is_not_an_array_is_refused_with_the_way_out(
    world: World, body: bytes, expected: str
) -> None:
    answer = ask(world, "POST", "/batch", body)
    assert answer.status == 400
    assert expected in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (b'{"retry": NaN}', "/retry", "NaN is not JSON"),
        (b'{"retry_delay": [1, -Infinity]}', "/retry_delay/1", "-Infinity is not JSON"),
        (b'{"max_delay": 1e400}', "/max_delay", 'the number "1e400" is too large'),
        (b'{"payload": {"a/b": [{"c": NaN}]}}', "/payload", "NaN is not JSON"),
        (b'{"payload": {"a": 1, "a": 2}}', "/payload", 'the name "a" occurs twice'),
        (b'{"labels": {"a": "\\ud800"}}', "/labels/a", "lone surrogate"),
        (b'{"retry": ' + b"9" * 5000 + b"}", "/retry", "too many digits"),
        (b'{"a": ' + b"9" * 400 + b', "retry": NaN}', "/retry", "NaN is not JSON"),
        (b'{"retry": NaN, oops', "", "NaN is not JSON"),
    ],
)
def test_value_that_json_does_not_have_is_refused_with_its_place(
    world: World, body: bytes, pointer: str, detail: str
) -> None:
    answer = ask(world, "PUT", "/task/task", body)
    ((found, text),) = ((e["pointer"], e["detail"]) for e in answer.json["errors"])
    assert (answer.status, found) == (400, pointer)
    assert detail in text
    assert answer.json["detail"] == (f"{pointer[1:]}: {text}" if pointer else text)
    of_batch = ask_batch(world, b"[" + body + b"]", "application/json")
    if "oops" not in body.decode():
        assert of_batch[0]["errors"] == answer.json["errors"]
    of_lines = ask_batch(world, b"\n{}\n\n" + body, "application/x-ndjson")
    assert of_lines[1]["errors"][0]["pointer"] == pointer
    assert of_lines[1]["errors"][0]["detail"].startswith("line 4: ")


def ask_batch(world: World, body: bytes, kind: str) -> list[Any]:
    headers = {"Content-Type": kind}
    pending = world.http.request("POST", "http://callme/batch", data=body, headers=headers)
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    text = world.result(world.result(pending).text())
    return (
        [json.loads(line) for line in text.splitlines()] if "ndjson" in kind else json.loads(text)
    )


def test_line_of_a_batch_is_named_in_its_error(world: World) -> None:
    body = b'{"task_name": "a"\n[]\n\n  {"a": 1,}\n"x"'
    details = [result["detail"] for result in ask_batch(world, body, "application/x-ndjson")]
    assert details[0].startswith("line 1 is not JSON: Expecting")
    assert details[1:3] == [
        "line 2 is a list: send an array as application/json",
        "line 4 is not JSON: Illegal trailing comma at column 10: leave it out",
    ]
    assert details[3] == "line 5: a string is not accepted: expected a JSON object"


def test_all_wrong_members_of_a_value_are_reported(world: World) -> None:
    body = {
        **BODY,
        "headers": {"Host": "a", "X-A": 1, "X-B": "b", "a b": "c", "X-C": " "},
        "labels": {"A": "b", "c": 1, "d": "e", "f": "\0"},
        "expected_http_status": [200, 99, "2xx", "ok"],
        "retry_delay": [1, "x", -1],
    }
    answer = ask(world, "PUT", "/task/task", body)
    assert answer.status == 422
    assert pointers(answer) == [
        *("/headers/Host", "/headers/X-A", "/headers", "/headers/X-C"),
        *("/labels", "/labels/c", "/labels/f"),
        *("/expected_http_status/1", "/expected_http_status/3"),
        *("/retry_delay/1", "/retry_delay/2"),
    ]
    many = {"headers": {f"X-{n}": n for n in range(100)}}
    assert len(pointers(ask(world, "PUT", "/task/task", {**BODY, **many}))) == 20


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"retry": "3"}, "expected an integer from 0 to 1,000, without quotes"),
        ({"retry": None}, "; leave it out for the default"),
        ({"callback": None}, "null is not a URL: expected a string"),
        ({"headers": ["A: b"]}, 'expected one such as {"X-Customer": "42"}'),
        ({"headers": {"Host": "a"}}, "is set by callme itself: leave it out"),
        ({"callback": "example.com"}, "such as http://example.com/run-it"),
        ({"trigger_at": "5 minutes"}, "expected a duration in whole w, d, h, m and s"),
        ({"trigger_at": "+1.5h"}, "expected a duration in whole w, d, h, m and s"),
        ({"trigger_at": "-5m"}, "a duration counts from now on"),
        ({"trigger_at": "10:00"}, "expected a date before it"),
        ({"trigger_at": "5"}, "a duration has a unit, such as +5m"),
        ({"trigger_at": "2020-01-01T00:00Z"}, "expected a time to come, or now"),
        ({"trigger_at": "20281126T0900Z"}, "expected separators in it, such as 2028-11-26T09:00Z"),
        ({"trigger_at": "1e9"}, "expected the digits of a Unix timestamp"),
        ({"trigger_at": "+6h "}, "expected it without the spaces around it"),
        ({"cron": "0 3 * * *"}, "callme has no recurring tasks"),
        ({"callback": ""}, "such as http://example.com/run-it"),
        ({"timeout": "30s"}, "from 1 to 1,800 seconds, the number alone and without quotes"),
        ({"timezone": "Europe/Berlin"}, "trigger_at names the zone, as in 2028-11-26T09:00[Eu"),
        ({"task": {"retry": 3}}, '"task" is not a parameter: put its members, such as retry, in'),
        ({"headers": {"X-A": 5}}, 'the value of "X-A" is a number: expected a string'),
        ({"headers": {"X-A": "a\nb"}}, "contains a control character: expected none"),
        ({"headers": {"X-A: b": "c"}}, "expected a name such as X-Customer, and its value apart"),
        ({"callback": "http://a:99999/"}, 'a:99999/" has no valid port: expected 1 to 65535'),
        ({"callback": "http://a:http/"}, "has no valid port: expected 1 to 65535"),
        ({"callback": " http://a/"}, "begins or ends with white space: expected none there"),
        ({"callback": "http://a/\u00fc"}, 'contains "\\u00fc", which is not allowed in a URL'),
        ({"trigger_at": "20281126090000"}, "expected separators in it, such as 2028-11-26T09:00"),
        ({"trigger_at": "2028-11-26T09Z"}, "expected the hour and the minute, such as T09:00Z"),
        ({"trigger_at": "2028-11-26T09:00:00,5Z"}, "expected a point before the fraction of a"),
        (
            {"trigger_at": "x", "callback": "x", "retry": "x", "timeout": 0, "max_delay": 0},
            "from 0 to 1,000; and 2 more errors",
        ),
    ],
)
def test_wrong_parameter_is_refused_with_the_way_out(
    world: World, more: dict[str, object], expected: str
) -> None:
    answer = ask(world, "PUT", "/task/task", {**BODY, **more})
    assert answer.status == 422
    assert expected in answer.json["detail"]


@pytest.mark.parametrize("path", ["/task/task", "/batch"])
def test_encoded_body_is_refused_with_the_accepted_encoding(world: World, path: str) -> None:
    method = "POST" if path == "/batch" else "PUT"
    for encoding in ("gzip", "identity, br", "GZip"):
        headers = {"Content-Encoding": encoding}
        answer = ask(world, method, path, json.dumps(BODY).encode(), headers)
        assert (answer.status, answer.header("accept-encoding")) == (415, "identity")
    accepted = ask(world, "PUT", "/task/task", BODY, {"Content-Encoding": "identity"})
    assert accepted.status == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/task/x", 405, "use PUT"),
        ("POST", "/task/", 405, "use PUT"),
        ("POST", "/task/x/cancel", 405, "DELETE cancels it"),
        ("POST", "/hosts/a:80/pause", 405, '{"paused": true} pauses it'),
        ("PATCH", "/task/x", 405, "use DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PATCH", "/task/x", 405, "PUT creates or replaces a task, POST /reschedule/<task> moves"),
        ("DELETE", "/status/x", 405, "; PUT and DELETE /task/<task> change a task"),
        ("GET", "/batch", 405, "use OPTIONS, POST; POST creates many tasks, GET /status lists"),
        ("GET", "/reschedule/x", 405, "use OPTIONS, POST; POST moves tasks"),
        ("GET", "/hosts/a:80", 405, "; GET /hosts lists them"),
        ("POST", "/forecast", 405, "; PUT /task/<task>?dry_run previews a task"),
        ("POST", "/healthz", 405, "is not allowed here: use GET, HEAD, OPTIONS"),
        ("GET", "/status/x", 404, 'no task named "x": GET /status lists the tasks'),
        ("PUT", "/hosts/example.com:99999", 400, "and a port up to 65535"),
        ("DELETE", "/hosts/example.com", 400, "expected host:port, such as example.com:443"),
        ("GET", "/tasks/x", 404, "did you mean /task/x?"),
        ("PUT", "/api/v1/tasks/x", 404, "did you mean /task/x?"),
        ("GET", "/jobs", 404, "did you mean /task?"),
        ("GET", "/health", 404, "did you mean /healthz?"),
        ("GET", "/readyz", 404, "did you mean /healthz?"),
        ("GET", "/docs", 404, "did you mean /openapi.json?"),
        ("GET", "/metric/x", 404, "did you mean /metrics?"),
        ("POST", "/reschedul/", 404, "did you mean /reschedule/<task_name>?"),
        ("POST", "/reschedule/", 400, "expected at least one of state, reason, host, prefix, "),
        ("DELETE", "/task/", 400, "expected at least one of state, reason, host, prefix, "),
        ("GET", "/xyz", 404, "/openapi.json describes the API"),
        ("GET", "/tasks/%00%C3%A9%22", 404, "did you mean /task/%00%C3%A9%22?"),
        ("GET", "/status?limit=0", 400, 'limit: "0" is not accepted: expected an integer from 1'),
        ("GET", "/status?state=fail", 400, 'state: "fail" is not accepted: expected one of sch'),
        ("GET", "/status?order=desc", 400, 'order: "desc" is not accepted: expected one of name'),
        ("GET", "/status?pretty=5", 400, 'pretty: "5" is not accepted: expected true or false'),
        ("GET", "/status/x@60?wait=5s", 400, "expected an integer from 0 to 60 seconds"),
        ("GET", "/status/x?start_from=y@60", 400, '"y@60" is not accepted: expected a key of "x"'),
        ("POST", "/reschedule?state=failed&spread=1h", 400, "from 1 to 10,080 minutes"),
        ("POST", "/reschedule?state=succeeded", 400, "is not accepted: add all=true to move"),
        ("GET", "/status?label=a=b", 400, "expected key:value, such as customer:42"),
        ("GET", "/status/?limt=5", 400, "did you mean limit?"),
        (
            "GET",
            "/status/?colour=5",
            400,
            "expected start_from, future_only, limit, order, state, ",
        ),
        ("GET", "/status/?page=5", 400, "did you mean start_from?"),
        ("GET", "/status/?sort=due", 400, "did you mean order?"),
        ("GET", "/status/?since=now", 400, "did you mean due_from?"),
        ("GET", "/status/x?wait=5", 400, "needs the path of one task"),
        ("PUT", "/task/x?retry=3", 400, "put it into the body of PUT /task/<task_name>"),
        ("DELETE", "/task/x?retry=3", 400, "put it into the body of PUT /task/<task_name>"),
        ("GET", "/task/x@60?state=failed", 400, "belongs to requests about many tasks: GET /st"),
        ("GET", "/task/x@60?state=failed", 400, "; here, expected wait, start_from, pretty"),
        ("GET", "/task/x@60?stat=failed", 400, "did you mean state? It belongs to requests ab"),
        ("GET", "/task/x@60?prefix=a", 400, "belongs to requests about many tasks: GET /status"),
        ("GET", "/task/x@60?order=due", 400, "belongs to lists: GET /status"),
        ("GET", "/task/x@60?prety", 400, "did you mean pretty? Expected wait"),
        ("GET", "/task/x@60?dry_run", 400, "belongs to requests that change tasks: PUT /task"),
        ("GET", "/task/x?dry-run", 400, "did you mean dry_run? It belongs to requests that"),
        ("DELETE", "/task/x?dry_run", 400, "or POST /reschedule and DELETE /task with filters"),
        ("DELETE", "/task/x?label=a:b", 400, "belongs to requests about many tasks"),
        ("PUT", "/task/x?limit=5", 400, "belongs to requests about many tasks"),
        ("GET", "/status?labels=a:b", 400, "did you mean label?"),
        ("GET", "/status?all", 400, "belongs to POST /reschedule"),
        ("GET", "/status?hours=5", 400, "belongs to GET /forecast"),
        ("POST", "/reschedule/x?spread=5", 400, "belongs to POST /reschedule with filters"),
        ("POST", "/reschedule/x?trigger_at=%2B5m", 400, "put it into the body of PUT /task/<task"),
        ("PUT", "/hosts/a:80?paused=true", 400, "put it into the body of PUT /hosts/<host:port>"),
        ("PUT", "/task/x?replace=true", 400, "is not a parameter: send the header If-Match: *"),
        ("GET", "/status?token=a", 400, "send the header Authorization: Bearer <token>"),
        ("GET", "/status/?label=a", 400, 'label: "a" is not a label: expected key:value'),
        ("GET", "/status/?%FF=1", 400, "is not percent-encoded UTF-8"),
        ("POST", "/retry/x", 404, "did you mean POST /reschedule/x?"),
        ("POST", "/run/x", 404, "did you mean POST /reschedule/x?"),
        ("POST", "/requeue", 404, "did you mean POST /reschedule/<task_name>?"),
        ("POST", "/cancel/x", 404, "did you mean DELETE /task/x?"),
        ("POST", "/pause/a:80", 404, "did you mean PUT /hosts/a:80?"),
        ("GET", "/host", 404, "did you mean /hosts?"),
        ("GET", "/status/x@+6h", 400, '"+6h" counts from now: expected the minute of a task'),
        ("GET", "/status/x@now", 400, '"now" counts from now: expected the minute of a task'),
        ("DELETE", "/task/x@", 400, "or a local time with a zone such as 2028"),
        ("GET", "/status/bob@example.com", 400, "a name has no '@'"),
    ],
)
def test_request_is_refused_with_the_way_out(
    world: World, method: str, path: str, status: int, expected: str
) -> None:
    answer = ask(world, method, path)
    assert answer.status == status
    assert expected in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        (f"/task/trial-end@{AT + 60}", f"the nearest is trial-end@{AT}, and GET /status/trial-end"),
        (f"/task/trial-end@{AT + 600}", f"the nearest is trial-end@{AT + 300}, and GET"),
        (f"/task/trial-ends@{AT}", 'did you mean "trial-end"?'),
        ("/task/trial", 'did you mean "trial-end"?'),
        ("/task/unlike", "GET /status lists the tasks"),
    ],
)
def test_missing_task_error_suggests_the_nearest(world: World, path: str, advice: str) -> None:
    for at in (AT, AT + 300):
        put(world, "trial-end", trigger_at=at)
    for method, place in (("GET", "task"), ("DELETE", "task"), ("POST", "reschedule")):
        answer = ask(world, method, path.replace("task", place, 1))
        assert (answer.status, advice in answer.json["detail"]) == (404, True), answer.json


def test_limit_of_a_host_that_is_no_integer_is_refused_with_its_value(world: World) -> None:
    answer = ask(world, "PUT", "/hosts/example.com:80", {"max_concurrent": "5"})
    assert answer.status == 422
    assert (
        '"5" is not accepted: expected an integer from 1 to 10,000, without quotes'
        in (answer.json["detail"])
    )


def test_pause_that_is_not_a_time_is_refused_with_the_way_out(world: World) -> None:
    answer = ask(world, "PUT", "/hosts/example.com:80", {"paused": "yes"})
    assert answer.status == 422
    assert "expected true, false or a time to come" in answer.json["detail"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("multipart/form-data; boundary=b", "with curl as --data and not as --form"),
        ("application/x-ndjson", "POST /batch takes one object per line"),
    ],
)
def test_other_media_type_is_refused_with_the_way_out(
    world: World, kind: str, expected: str
) -> None:
    answer = ask(world, "PUT", "/task/a", json.dumps(BODY).encode(), {"Content-Type": kind})
    assert answer.status == 415
    assert expected in answer.json["detail"]


def test_address_as_a_name_is_refused_with_advice(world: World) -> None:
    for path in ("/task/bob@example.com", "/task/bob%40example.com"):
        answer = ask(world, "PUT", path, BODY)
        assert answer.status == 422
        assert "a name has no '@'" in answer.json["detail"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (660, "11 minutes"),
        (3_600, "1 hour"),
        (3 * 86_400, "3 days"),
        (4 * 31_557_600, "4 years"),
    ],
)
def test_error_for_past_time_contains_its_age(world: World, seconds: int, expected: str) -> None:
    answer = put(world, trigger_at=NOON - seconds)
    assert answer.status == 422
    assert f"trigger_at is {expected} in the past" in answer.json["detail"]
    assert answer.json["title"] == "Unprocessable Content"


def test_success_that_was_not_expected_is_explained(world: World) -> None:
    world.caller.status = 204
    world.scheduler.start()
    task = world.put(retry=0)
    world.turn_to(NOON + 60)
    detail = ask(world, "GET", f"/task/{task.key}").json["attempts"][0]["detail"]
    assert '"expected_http_status": "2xx" accepts any success' in detail
    world.caller.status = 500
    task = world.put("other", NOON + 120, retry=0)
    world.turn_to(NOON + 120)
    detail = ask(world, "GET", f"/task/{task.key}").json["attempts"][0]["detail"]
    assert "2xx" not in detail
