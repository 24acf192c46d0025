"""The two forms of a task's JSON representation."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from callme.core.representation import encode_task, task_summary, task_to_dict
from callme.core.task import Attempt, Definition, Reason, State, Task, new_task

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 1_000),
    started_at_ms=st.integers(0, 10**14),
    lateness_ms=st.integers(0, 10**9),
    duration_ms=st.none() | st.integers(0, 10**6),
    status=st.none() | st.integers(200, 599),
    reason=st.none() | st.sampled_from(Reason),
    detail=_TEXTS,
    body=_TEXTS,
    node=st.none() | _TEXTS,
)
_CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "callback_method": st.sampled_from(["GET", "POST"]),
    "payload": _TEXTS,
    "headers": st.dictionaries(_TEXTS, _TEXTS, max_size=3),
    "expected_http_status": st.sampled_from([(200,), ("2xx",), (200, "3xx")]),
    "retry": st.integers(0, 3),
    "retry_delay": st.sampled_from([(1,), (0,), (1, 5, 60)]),
    "max_delay": st.integers(1, 20),
    "timeout": st.sampled_from([30, 5]),
    "on_failure": st.none() | st.just("http://alerts.example/x"),
}
_TASKS = st.builds(
    Task,
    definition=st.builds(
        lambda name, trigger_at, changes: Definition(
            **{
                "task_name": name,
                "trigger_at": 60 * trigger_at,
                "callback": "http://example.com/",
                **changes,
            }
        ),
        _TEXTS,
        st.integers(0, 4 * 10**9),
        st.fixed_dictionaries({}, optional=_CHANGES)
        | st.just({"payload_base64": "AAEC", "payload": ""}),
    ),
    state=st.sampled_from(State),
    reason=st.none() | st.sampled_from(Reason),
    detail=_TEXTS,
    due_at=st.none() | st.integers(0, 4 * 10**9),
    attempts_used=st.integers(0, 4),
    created_at_ms=st.integers(0, 10**14),
    finished_at_ms=st.none() | st.integers(0, 10**14),
    attempts=st.lists(_ATTEMPTS, max_size=2).map(tuple),
    damaged=st.sampled_from([(), ("headers", "retry"), ("reason", "due_at"), ("payload_base64",)]),
)


@given(_TASKS)
def test_encoded_task_has_the_members_of_its_dictionary_in_their_order(task: Task) -> None:
    members = task_to_dict(task)
    assert encode_task(task) == json.dumps(members, ensure_ascii=False, separators=(",", ":"))


def test_damaged_members_are_null_and_named() -> None:
    task = new_task(Definition(task_name="a", trigger_at=60, callback="http://example.com/"), 0)
    names = ("retry_delay", "headers", "payload", "state", "due_at", "created_at_ms")
    for members in (
        task_to_dict(evolve(task, damaged=names)),
        task_summary(evolve(task, damaged=names)),
    ):
        assert members["damaged"] == [
            "created_at",
            "headers",
            "next_attempt_at",
            "payload",
            "retry_delay",
            "state",
        ]
        assert {members.get(name) for name in members["damaged"]} == {None}
        assert members["attempts_left"] is None
        assert members["retry"] == 1
