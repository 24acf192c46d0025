"""The API against a model of it, after any sequence of requests.

Every response is also checked against the OpenAPI document: see ``ask``.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.helpers.api_client import Response, ask
from tests.helpers.openapi_checks import check_response
from tests.helpers.world import World

PATHS = {"a": "a", "é b": "%C3%A9%20b"}
NAMES = st.sampled_from([*PATHS])
ANSWERS = st.sampled_from([200, 500, None])
MINUTES = st.integers(0, 3)
PAYLOADS = st.sampled_from(["", "x"])

STATES = [None, "scheduled", "running", "succeeded", "failed"]
LISTS = [
    (name, state, future_only, by_due)
    for state in STATES
    for future_only in (False, True)
    for name in (None, *PATHS)
    for by_due in (False, True)
]

Key = tuple[str, int]


def filters_of(prefix: str | None, state: str | None) -> str:
    """Return the query string of filters."""
    given = {"prefix": prefix and PATHS[prefix], "state": state}
    return "&".join(f"{name}={value}" for name, value in given.items() if value)


@define
class Modelled:
    """A task of the model."""

    payload: str
    state: str = "scheduled"


class ApiMachine(RuleBasedStateMachine):
    """A client that models every task, and compares the responses of a daemon."""

    @initialize(start=st.integers(0, 100), answer=ANSWERS)
    def begin(self, start: int, answer: int | None) -> None:
        self.world = World()
        self.world.caller.status = answer
        self.world.scheduler.start()
        self.tasks: dict[Key, Modelled] = {}
        self.steps = start

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    # Model

    def minute(self, offset: int) -> int:
        return int(self.world.now() // 60 + offset) * 60

    def due(self) -> None:
        """Call the due tasks of the model, as the daemon does."""
        ends = {200: "succeeded", 500: "failed", None: "running"}
        for (_, at), task in self.tasks.items():
            if task.state == "scheduled" and at <= self.world.now():
                task.state = ends[self.world.caller.status]

    def of_name(self, name: str) -> list[Key]:
        return sorted(key for key in self.tasks if key[0] == name)

    def expect_put(self, key: Key, payload: str, condition: str | None) -> int:
        standing = self.tasks.get(key)
        if standing is None:
            if condition == "If-Match":
                return 412
            self.tasks[key] = Modelled(payload)
            return 201
        if condition == "If-None-Match":
            return 412
        if standing.payload == payload:
            return 200
        if condition == "If-Match" and standing.state == "scheduled":
            standing.payload = payload
            return 200
        return 409

    def move(self, old: Key, to: int) -> None:
        task = self.tasks.pop(old)
        task.state = "scheduled"
        self.tasks[old[0], to] = task

    # Requests

    @rule(
        name=NAMES,
        offset=MINUTES,
        payload=PAYLOADS,
        condition=st.sampled_from([None, None, "If-Match", "If-None-Match"]),
        relative=st.booleans(),
        in_url=st.booleans(),
    )
    def put(
        self,
        name: str,
        offset: int,
        payload: str,
        condition: str | None,
        relative: bool,
        in_url: bool,
    ) -> None:
        at = self.minute(offset)
        body = self.body(payload)
        path = f"/task/{PATHS[name]}"
        if in_url:
            path += f"@{at}"
        elif relative and (self.world.now() % 60 == 0 or offset == 0):
            body["trigger_at"] = f"+{offset}m"
        else:
            body["trigger_at"] = at
        answer = self.ask("PUT", path, body, {condition: "*"} if condition else None)
        if answer is None:
            return
        assert answer.status == self.expect_put((name, at), payload, condition)
        if answer.status < 400:
            self.check_task((name, at), answer.json)
        if answer.status == 409:
            self.check_task((name, at), answer.json["task"])
        assert answer.header("location") == (
            f"/task/{PATHS[name]}@{at}" if answer.status == 201 else None
        )
        self.due()

    def body(self, payload: str) -> dict[str, Any]:
        return {"callback": "http://x/", "payload": payload, "retry": 0, "max_delay": 525_600}

    @rule(wanted=st.lists(st.tuples(NAMES, MINUTES, PAYLOADS, st.booleans()), max_size=5))
    def batch(self, wanted: list[tuple[str, int, str, bool]]) -> None:
        tasks = [
            {"task_name": name, "trigger_at": self.minute(offset), **self.body(payload)}
            | ({"retry": -1} if wrong else {})
            for name, offset, payload, wrong in wanted
        ]
        asking = self.world.http.request(
            "POST", "http://callme/batch", data=json.dumps(tasks).encode()
        )
        self.world.clock.advance(0)
        self.world.http.flush()
        response = World.result(asking)
        text = World.result(response.text("utf-8"))
        raw = response.headers.getAllRawHeaders()
        headers = {name.decode().lower(): values[0].decode() for name, values in raw}
        check_response("POST", "/batch", response.code, headers, text)
        if self.world.store.is_broken:
            assert response.code == (503 if wanted else 200)
            self.world.store.is_broken = False
            return
        expected = [
            422 if wrong else self.expect_put((name, self.minute(offset)), payload, None)
            for name, offset, payload, wrong in wanted
        ]
        assert [answer["status"] for answer in json.loads(text)] == expected
        self.due()

    def one(self, which: int) -> Key:
        """Return the key of a task, or a key without a task."""
        keys = [*sorted(self.tasks), ("a", self.minute(10))]
        return keys[which % len(keys)]

    @rule(which=st.integers(0, 20), every=st.booleans(), to=MINUTES)
    def reschedule_one(self, which: int, every: bool, to: int) -> None:
        key, new = self.one(which), self.minute(to)
        name = key[0]
        path = f"/reschedule/{PATHS[name]}@{key[1]}" + ("?all" if every else "")
        answer = self.ask("POST", path, {"trigger_at": new})
        if answer is None:
            return
        task = self.tasks.get(key)
        if task is None:
            assert answer.status == 404
        elif task.state == "running" and every:
            assert answer.json["skipped"] == [{"task": f"{name}@{key[1]}", "reason": "running"}]
        elif (task.state != "failed" and not every) or (
            (name, new) in self.tasks and new != key[1]
        ):
            assert answer.status == 409
        else:
            moved = [{"from": f"{name}@{key[1]}", "to": f"{name}@{new}"}]
            assert answer.json == {"rescheduled": moved, "skipped": []}
            self.move(key, new)
            self.due()

    @rule(name=NAMES, every=st.booleans(), to=st.none() | MINUTES)
    def reschedule_name(self, name: str, every: bool, to: int | None) -> None:
        body = None if to is None else {"trigger_at": self.minute(to)}
        answer = self.ask(
            "POST", f"/reschedule/{PATHS[name]}" + ("?all=true" if every else ""), body
        )
        if answer is None:
            return
        keys = self.of_name(name)
        if not keys:
            assert answer.status == 404
            return
        states = ("failed", "scheduled", "succeeded") if every else ("failed",)
        moving = [key for key in keys if self.tasks[key].state in states]
        taken = {key[1] for key in keys if key not in moving}
        running = [key for key in keys if self.tasks[key].state == "running"]
        minute, moves = self.minute(1 if to is None else to), []
        for key in moving:
            while minute in taken:
                minute += 60
            moves.append((key, minute, self.tasks.pop(key)))
            minute += 60
        assert answer.json == {
            "rescheduled": [
                {"from": f"{name}@{key[1]}", "to": f"{name}@{new}"} for key, new, _ in moves
            ],
            "skipped": [{"task": f"{name}@{key[1]}", "reason": "running"} for key in running],
        }
        for _, new, task in moves:
            self.tasks[name, new] = Modelled(task.payload)
        self.due()

    @rule(
        prefix=NAMES | st.none(),
        state=st.sampled_from(STATES),
        every=st.booleans(),
        to=MINUTES,
        spread=st.sampled_from([None, 2]),
        preview=st.booleans(),
    )
    def reschedule_all(
        self,
        prefix: str | None,
        state: str | None,
        every: bool,
        to: int,
        spread: int | None,
        preview: bool,
    ) -> None:
        query = filters_of(prefix, state) + ("&all" if every else "")
        query += f"&spread={spread}" if spread else ""
        query += "&dry_run" if preview else ""
        request = ("POST", f"/reschedule/?{query}", {"trigger_at": self.minute(to)})
        if not (prefix or state) or (state not in (None, "failed") and not every):
            assert ask(self.world, *request).status == 400
            return
        answer = self.ask(*request)
        if answer is None:
            return
        keys = self.matching(prefix, state if every else "failed")
        moves: list[tuple[Key, int]] = []
        moving = [key for key in keys if self.tasks[key].state != "running"]
        taken = {*self.tasks} - {*moving}
        for key in moving:
            at = self.minute(to) + 60 * ((spread or 0) * keys.index(key) // len(keys))
            while (key[0], at) in taken:
                at += 60
            taken.add((key[0], at))
            moves.append((key, at))
        skipped = [key for key in keys if key not in moving]
        assert answer.json == {
            "rescheduled": [
                {"from": f"{name}@{at}", "to": f"{name}@{new}"} for (name, at), new in moves
            ],
            "skipped": [{"task": f"{name}@{at}", "reason": "running"} for name, at in skipped],
        }
        if not preview:
            moved = {(key[0], new): self.tasks.pop(key) for key, new in moves}
            self.tasks |= {key: Modelled(task.payload) for key, task in moved.items()}
            self.due()

    @rule(prefix=NAMES | st.none(), state=st.sampled_from(STATES), preview=st.booleans())
    def delete_all(self, prefix: str | None, state: str | None, preview: bool) -> None:
        query = filters_of(prefix, state) + ("&dry_run" if preview else "")
        if not (prefix or state):
            assert ask(self.world, "DELETE", f"/task/?{query}").status == 400
            return
        answer = self.ask("DELETE", f"/task/?{query}")
        if answer is None:
            return
        keys = self.matching(prefix, state)
        running = [key for key in keys if self.tasks[key].state == "running"]
        skipped = [{"task": f"{name}@{at}", "reason": "running"} for name, at in running]
        assert answer.json == {"deleted": len(keys) - len(running), "skipped": skipped}
        for key in {*keys} - {*running} if not preview else ():
            del self.tasks[key]

    def matching(self, prefix: str | None, state: str | None) -> list[Key]:
        return sorted(
            key
            for key, task in self.tasks.items()
            if key[0].startswith(prefix or "") and state in (None, task.state)
        )

    @rule(which=st.integers(0, 20))
    def delete_one(self, which: int) -> None:
        key = self.one(which)
        answer = self.ask("DELETE", f"/task/{PATHS[key[0]]}@{key[1]}")
        if answer is None:
            return
        if key not in self.tasks:
            assert answer.status == 404
        elif self.tasks[key].state == "running":
            assert answer.status == 409
        else:
            assert answer.status == 204
            del self.tasks[key]

    @rule(name=NAMES)
    def delete_name(self, name: str) -> None:
        answer = self.ask("DELETE", f"/task/{PATHS[name]}")
        if answer is None:
            return
        keys = self.of_name(name)
        running = [key for key in keys if self.tasks[key].state == "running"]
        if not keys:
            assert answer.status == 404
            return
        skipped = [{"task": f"{name}@{at}", "reason": "running"} for _, at in running]
        assert answer.json == {"deleted": len(keys) - len(running), "skipped": skipped}
        for key in set(keys) - set(running):
            del self.tasks[key]

    # Other events

    @rule(seconds=st.integers(1, 150))
    def wait(self, seconds: int) -> None:
        self.world.store.is_broken = False
        self.world.turn_to(self.world.now() + seconds)
        self.due()

    @rule(answer=ANSWERS)
    def answer_with(self, answer: int | None) -> None:
        self.world.caller.status = answer

    @precondition(lambda self: self.world.caller.pending and not self.world.store.is_broken)
    @rule(which=st.integers(0, 10), status=st.sampled_from([200, 500]))
    def end(self, which: int, status: int) -> None:
        pending = sorted(self.world.caller.pending)
        key = pending[which % len(pending)]
        self.world.caller.end(key, status)
        self.tasks[key.task_name, key.trigger_at].state = "succeeded" if status == 200 else "failed"

    @rule()
    def lock(self) -> None:
        """Lock the database for the next request."""
        self.world.store.is_broken = True

    # Invariants

    def ask(
        self, method: str, path: str, body: object = None, headers: Any = None
    ) -> Response | None:
        """Make a request; return ``None`` if the response reports the locked database."""
        answer = ask(self.world, method, path, body, headers)
        if self.world.store.is_broken:
            assert (answer.status, answer.header("retry-after")) == (503, "2")
            self.world.store.is_broken = False
            return None
        return answer

    def check_task(self, key: Key, told: dict[str, Any]) -> None:
        task = self.tasks[key]
        assert told["task"] == f"{key[0]}@{key[1]}"
        assert told["state"] == task.state
        assert told.get("payload", task.payload) == task.payload
        assert (told["reason"] == "unexpected_status") == (task.state == "failed")

    @invariant()
    def a_list_is_told(self) -> None:
        """Request a list after every step, a different one each time."""
        if hasattr(self, "world") and not self.world.store.is_broken:
            chosen = LISTS[self.steps % len(LISTS)]
            self.steps += 1
            self.pages(1 + self.steps % 3, *chosen)

    def pages(
        self, limit: int, name: str | None, state: str | None, future_only: bool, by_due: bool
    ) -> None:
        query = f"limit={limit}" + (f"&state={state}" if state else "")
        query += "&future_only" if future_only else ""
        query += "&order=due" if by_due else ""
        target = f"/status/{PATHS[name] if name else ''}?{query}"
        told: list[dict[str, Any]] = []
        while True:
            answer = self.ask("GET", target)
            if answer is None:
                return
            if name and not self.of_name(name):
                assert answer.status == 404
                return
            told += answer.json["tasks"]
            assert len(told) <= len(self.tasks)
            assert len(answer.json["tasks"]) <= limit
            link = answer.header("link")
            assert (link is None) == ("next" not in answer.json)
            if link is None:
                break
            target = link.partition("<")[2].partition(">")[0]
        expected = [
            key
            for key in (self.of_name(name) if name else sorted(self.tasks))
            if (state in (None, self.tasks[key].state))
            and not (future_only and key[1] <= self.world.now())
        ]
        if by_due:
            expected.sort(key=lambda key: (key[1], key[0]))
        assert [one["task"] for one in told] == [f"{of}@{at}" for of, at in expected]
        for key, one in zip(expected, told, strict=True):
            self.check_task(key, one)

    @invariant()
    def a_task_is_told(self) -> None:
        """Request a task after every step, a different one each time."""
        if hasattr(self, "world") and self.tasks and not self.world.store.is_broken:
            name, at = self.one(self.steps)
            answer = ask(self.world, "GET", f"/task/{PATHS[name]}@{at}")
            assert answer.status == (200 if (name, at) in self.tasks else 404)
            if answer.status == 200:
                self.check_task((name, at), answer.json)


TestApiMachine = ApiMachine.TestCase
TestApiMachine.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
