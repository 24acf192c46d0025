"""The longest turn of the reactor for each operation, on a store that is full to its bounds."""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from twisted.internet.defer import Deferred

from callme.api.openapi.operations import document
from callme.core.task import MAX_ATTEMPTS, Attempt, Reason
from callme.core.times import Key
from callme.server.paths import MAX_TASK_FORM
from callme.store.codec import ATTEMPT, attempt_values
from callme.webui.chart_panels import HOURS
from callme.webui.routes import WebUi
from tests.helpers.raw_client import Client
from tests.helpers.tasks import NOON
from tests.helpers.world import World

MAX_TURN_MS = 20.0
"""The bound on the duration of the reactor's turns, for any store and any request."""
REFERENCE_MS = 9.0
"""What :func:`reference_work` takes on the machine that the bound is stated for, or a bit more."""
TRACED_FACTOR = 4.0
"""How much longer a turn takes while coverage traces callme, though not the reference work."""
RUNS = 5
"""How often an operation that takes too long is repeated: the least of its longest turns counts."""

NAME = "\N{GRINNING FACE}" * 255
KEY = Key(NAME, NOON + 60)
URL = "http://sink.example/" + "x" * 2000
LARGE: dict[str, Any] = {
    "callback": URL,
    "headers": {f"X-{number:02}": "\xe9" * 30 for number in range(99)},
    "expected_http_status": list(range(200, 300)),
    "retry": 1000,
    "retry_delay": list(range(100)),
}
"""Parameters of the largest kind, without a payload."""
FAIL = """
    UPDATE task SET state = 'failed', reason = 'timeout', due_at = NULL, finished_at_ms = 1,
        last_attempt = 1000, attempts_used = 1000
    WHERE task_name = ?
"""


def fill(world: World) -> None:
    """Fill one task and its attempts, the list of its name, and the list of all tasks."""
    world.put(NAME, KEY.trigger_at, payload="\x01" * 256 * 1024, **LARGE)
    for number in range(1, 2000):
        world.put(NAME, KEY.trigger_at + 60 * number, **LARGE)
        host = f"http://host{number}.example/"
        world.put(f"{number:04}{NAME[4:]}", NOON + 60 * number, callback=host)
    connection = world.store.connection
    connection.execute("BEGIN")
    connection.execute(FAIL, (NAME,))
    (task_id,) = connection.execute(
        "SELECT task_id FROM task WHERE task_name = ? AND trigger_at = ?",
        (NAME, KEY.trigger_at),
    ).fetchone()
    attempts = [
        Attempt(
            number=number,
            started_at_ms=NOON * 1000,
            lateness_ms=0,
            duration_ms=1,
            status=500,
            reason=Reason.UNEXPECTED_STATUS,
            detail="\x01" * 500,
            body="\x01" * 1024,
            node="node",
        )
        for number in range(1, MAX_ATTEMPTS + 1)
    ]
    connection.executemany(
        f"INSERT INTO attempt (task_id, {ATTEMPT}) VALUES (?, {ATTEMPT.placeholders()})",
        [(task_id, *attempt_values(attempt)) for attempt in attempts],
    )
    connection.execute("COMMIT")


class Turns:
    """World whose turns of the reactor are measured; the store works in separate turns.

    :ivar longest_ms: the longest turn since it was last set, in ms of processor time.
    """

    def __init__(self) -> None:
        self.world = World()
        fill(self.world)
        self._filled = self.world.store.connection
        self.longest_ms = 0.0
        self._call_later = self.world.clock.callLater
        clock: Any = self.world.clock
        clock.callLater = self._measured_later
        self._read = self.world.store._read
        self.world.store._read = self._read_elsewhere

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a turn."""
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            self.longest_ms = max(self.longest_ms, 1000 * (time.thread_time() - began))

    def _measured_later(self, delay: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call_later(delay, self.run, function, *args, **kwargs)

    def _read_elsewhere(self, query: Any) -> Deferred[Any]:
        """Read as a thread does: not in a turn, and with the result in the next one."""
        result: Deferred[Any] = Deferred()
        self._call_later(0, lambda: self._deliver(self._read(query), result))
        return result

    def _deliver(self, found: Deferred[Any], result: Deferred[Any]) -> None:
        self._call_later(0, self.run, found.chainDeferred, result)

    def restored(self) -> World:
        """Return the world with its store as it was filled."""
        if self.world.store.connection is not self._filled:
            self.world.store.connection.close()
        self.world.store.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.world.store.connection.execute("PRAGMA foreign_keys = ON")
        self._filled.backup(self.world.store.connection)
        return self.world

    def close(self) -> None:
        """Close the filled store and its copy."""
        if self.world.store.connection is not self._filled:
            self._filled.close()
        self.world.close()

    def longest_of(self, request: bytes) -> tuple[float, int]:
        """Return the longest turn of a request in ms, and the status of its response."""
        self.restored()
        client = Client(self.world, self.world.parts.site)
        gc.collect()
        self.longest_ms = 0.0
        self.run(client.send, request)
        while not (response := client.transport.value()):
            self.world.clock.advance(0)
        for _ in range(1000):
            self.world.clock.advance(0)
        self.run(client.hang_up)
        longest_ms, self.longest_ms = self.longest_ms, 0.0
        return longest_ms, int(response[9:12])


def api_requests() -> Iterator[tuple[str, bytes]]:
    """Yield a name and a request for each operation of the API, plain and with every maximum."""
    described = document()
    path = {"task_name": quote(NAME), "trigger_at": KEY.trigger_at, "host": "sink.example:80"}
    for template, operations in described["paths"].items():
        for method in sorted(operations.keys() - {"parameters"}):
            operation = operations[method]
            most = "&".join(["pretty", *_maxima(described, operation)])
            for query in ("", most):
                yield (
                    f"{method.upper()} {template}?{query}",
                    _request(method, f"{template.format(**path)}?{query}", _body(operation)),
                )


def _maxima(described: Any, operation: Any) -> Iterator[str]:
    shared = described["components"]["parameters"]
    for given in operation["parameters"]:
        reference = given.get("$ref", "").rsplit("/", 1)[-1]
        parameter = shared[reference] if reference else given
        schema, name = parameter["schema"], parameter["name"]
        if parameter["in"] != "query" or name in ("pretty", "wait", "dry_run"):
            continue
        if schema.get("type") == "boolean":
            yield name
        elif "maximum" in schema:
            yield f"{name}={min(schema['maximum'], MAX_ATTEMPTS)}"


def _body(operation: Any) -> object:
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    kind = schema.rsplit("/", 1)[1]
    if kind == "Batch":
        task = {"task_name": NAME, "callback": "http://other.example/"}
        return [task | {"trigger_at": KEY.trigger_at + 60 * number} for number in range(1000)]
    if kind == "NewHostSettings":
        return {"paused": True, "max_per_minute": 10}
    if kind == "NewTime":
        return {"trigger_at": "+5m"}
    return {"callback": "http://other.example/", "task_name": NAME, "trigger_at": KEY.trigger_at}


def page_requests() -> Iterator[tuple[str, bytes]]:
    """Yield a name and a request for each route of the web UI."""
    for rule in WebUi.app.url_map.iter_rules():
        path = rule.rule.replace("<path:path>", quote(str(KEY))).replace("<name>", "x")
        query = f"?hours={max(HOURS)}" if path == "/" else ""
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            yield f"{method} {rule.rule}", _request(method, path + query, None, "text/html")
    duplicate = f"/page/new?from={quote(str(KEY))}"
    yield "GET /page/new?from", _request("get", duplicate, None, "text/html")
    payload = "\xe4" * ((MAX_TASK_FORM - 200) // 6)
    for action in ("preview", "create"):
        task = {"task_name": "new", "trigger_at": "+5m", "callback": "http://other.example/"}
        fields = {**task, "callback_method": "?", "payload": payload, "action": action}
        for method in ("?", "POST"):
            form = urlencode({**fields, "callback_method": method})
            yield f"POST /page/new {action} {method}", _form("/page/new", form)
    for doing in ("run", "reschedule", "delete"):
        target = f"/page/{doing}/{quote(str(KEY))}"
        yield f"POST form /page/{doing}", _form(target, "expected_state=failed")
    yield "POST form /page/acknowledge", _form("/page/acknowledge", "until_ms=1")
    many = f"due_from={NOON}"
    keys = [f"{quote(NAME)}@{KEY.trigger_at + 60 * number}" for number in range(12)]
    selected = urlencode([("task", key) for key in keys])
    for doing in ("reschedule", "delete"):
        target = f"/page/{doing}-many"
        yield f"GET {target} filtered", _request("get", f"{target}?{many}", None, "text/html")
        yield f"POST form {target} selected", _form(target, selected)
        confirmed = "confirmed=yes&expected=4000&spread=30"
        yield f"POST form {target}", _form(f"{target}?{many}", confirmed)
    for target in (
        f"/page/find?{many}&host=sink.example:80&state=failed",
        f"/page/find?{many}&order=due&start_from=x@{NOON + 60_000}",
        "/page/hosts/sink.example:80",
    ):
        yield f"GET {target}", _request("get", target, None, "text/html")
    yield "POST form /page/hosts", _form("/page/hosts/sink.example:80", "paused=yes")


def _form(target: str, form: str) -> bytes:
    head = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n"
        "Origin: http://localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n"
    )
    return (head + form).encode()


def _request(method: str, target: str, body: object, accept: str = "*/*") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method.upper()} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Origin: http://localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def reference_work() -> float:
    """Return how long a fixed piece of work takes now, in ms of processor time."""
    began = time.thread_time()
    json.loads(json.dumps([{"number": number, "text": "x" * 20} for number in range(8000)]))
    return 1000 * (time.thread_time() - began)


def slowness() -> float:
    """Return by what factor this machine is slower now than the one of the bound, at least 1."""
    traced = TRACED_FACTOR if sys.gettrace() is not None else 1.0
    return traced * max(1.0, reference_work() / REFERENCE_MS)


def check_longest_turn(measure: Callable[[], float], bound_ms: float = MAX_TURN_MS) -> None:
    """Fail if a turn exceeds its bound each time.

    A slower machine has a longer bound, and a turn that another program slows is repeated.

    :param measure: returns the longest turn, in ms of processor time.
    """
    for _ in range(RUNS):
        before = slowness()
        longest_ms = measure()
        if longest_ms <= bound_ms * max(before, slowness()):
            return
    pytest.fail(f"a turn took {longest_ms:.1f} ms of processor time")


@pytest.fixture(scope="module")
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.close()


@pytest.mark.parametrize(
    "request_bytes",
    [pytest.param(one, id=name) for name, one in [*api_requests(), *page_requests()]],
)
def test_no_turn_of_the_reactor_exceeds_its_bound(turns: Turns, request_bytes: bytes) -> None:
    def longest_ms() -> float:
        found, status = turns.longest_of(request_bytes)
        assert status < 500
        return found

    check_longest_turn(longest_ms)


def test_long_polls_of_a_large_task_end_in_several_turns(turns: Turns) -> None:
    """Each response is some megabytes: they are not all written at once."""
    check_longest_turn(lambda: longest_of_polls(turns), 2 * MAX_TURN_MS)


def longest_of_polls(turns: Turns) -> float:
    """Return the longest turn in which 20 long polls of the large task end, in ms."""
    world = turns.restored()
    world.store.connection.execute(
        "UPDATE task SET state = 'scheduled', reason = NULL, due_at = trigger_at,"
        " finished_at_ms = NULL WHERE task_name = ?",
        (NAME,),
    )
    request = _request("get", f"/status/{quote(NAME)}@{KEY.trigger_at}?wait=60", None)
    clients = [Client(world, world.parts.site) for _ in range(20)]
    for client in clients:
        client.send(request)
    for _ in range(200):
        world.clock.advance(0)
    assert world.parts.long_poll.count == len(clients)
    gc.collect()
    turns.longest_ms = 0.0
    world.clock.advance(60)
    for _ in range(200):
        world.clock.advance(0)
    assert all(client.transport.value().startswith(b"HTTP/1.1 200") for client in clients)
    longest_ms = turns.longest_ms
    for client in clients:
        client.hang_up()
    return longest_ms
