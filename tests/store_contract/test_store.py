"""The contract of the store: requirements on every database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from callme.core.notification import build_notification
from callme.core.representation import task_to_dict
from callme.core.task import ATTEMPTS_PER_PAGE, Claim, Definition, Reason, State, Transition
from callme.core.times import MAX_TIMESTAMP, Key
from callme.core.transitions import (
    PutCondition,
    PutOutcome,
    decide_after_attempt,
    decide_put,
    interrupted,
)
from callme.store import queue, stats, tasks
from callme.store.changes import Changes
from callme.store.database import Store, Write
from callme.store.interface import (
    MAX_BACKLOG_COUNT,
    ActivitySnapshot,
    Deleted,
    Histogram,
    InFlightCall,
    MinuteOutcomes,
    Page,
    StoreUnavailable,
    TaskVersion,
)
from callme.store.sqlite.engine import SqliteStore
from tests.helpers.logs import LoggedFailures
from tests.helpers.stores import (
    HOST,
    NOW,
    claim_all,
    finish,
    put,
    put_in,
    record_changes,
    state_of,
)
from tests.helpers.tasks import NOON, definition


async def test_changed_returns_tasks_with_another_version(store: Store) -> None:
    states = list(reversed(State))
    keys = [await put_in(store, state, "näme", NOON + 60 * n) for n, state in enumerate(states)]
    failed, _, running, scheduled = keys
    known = {key: await store.read(tasks.get, key) for key in keys}
    seen: dict[Key, TaskVersion | None] = {
        key: TaskVersion.of(task) for key, task in known.items() if task
    }
    assert len(seen) == len(keys)
    assert await store.read(tasks.get_if_modified, seen, 9) == {}
    assert await store.read(tasks.get_if_modified, seen | {running: None}, 9) == {
        running: known[running]
    }
    # Two unknown versions; one of the tasks exists.
    absent = Key("absent", NOON)
    told = await store.read(tasks.get_if_modified, {absent: None, running: None}, 9)
    assert told == {absent: None, running: known[running]}
    assert len(await store.read(tasks.get_if_modified, dict.fromkeys(keys), 3)) == 3
    await store.write(tasks.delete, failed)
    assert await store.read(tasks.get_if_modified, seen, 9) == {failed: None}
    del seen[failed]
    (claim,) = await claim_all(store, now=NOON + 180)
    assert await store.read(tasks.get_if_modified, seen, 9) == {
        scheduled: await store.read(tasks.get, scheduled)
    }
    await finish(store, claim, 200, now=NOON + 180)
    assert await store.read(tasks.get_if_modified, seen, 9) == {
        scheduled: await store.read(tasks.get, scheduled)
    }


async def test_attempt_and_replacement_change_the_version(store: Store) -> None:
    key = await put(store, retry=1)
    task = await store.read(tasks.get, key)
    assert task is not None
    await finish(store, (await claim_all(store))[0], 500)
    again = (await store.read(tasks.get_if_modified, {key: TaskVersion.of(task)}, 9))[key]
    assert again is not None
    assert (again.state, again.attempts_used) == (State.SCHEDULED, 1)
    other = definition(callback="http://other.example/")
    await store.write(tasks.put, other, PutCondition.MUST_EXIST, NOW + 1)
    assert (await store.read(tasks.get_if_modified, {key: TaskVersion.of(again)}, 9))[
        key
    ] == await store.read(tasks.get, key)


TOLD: dict[str, Any] = {"on_failure": "http://told.example/", "on_success": "https://told.example/"}


async def names_in(store: Store) -> list[str]:
    page = await store.read(tasks.list_page)
    assert page is not None
    return [str(task.key) for task in page.tasks]


async def test_end_is_stored_with_its_notification(store: Store) -> None:
    key = await put(store, retry=0, payload="\\x41 \0", **TOLD)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    task, made = (
        await store.read(tasks.get, key),
        await store.read(tasks.get, Key(f"task.{NOON}.on_failure", NOON)),
    )
    assert task is not None
    assert made is not None
    assert made.definition == build_notification(task, NOW)
    assert json.loads(made.definition.payload) == task_to_dict(task)
    assert (made.state, made.due_at) == (State.SCHEDULED, NOON)
    # A repeated record adds no second notification.
    await finish(store, claim, 500)
    assert len(await names_in(store)) == 2
    (again,) = await store.write(queue.claim, {"told.example:80": 9}, NOW)
    assert again.definition == made.definition


async def test_default_url_is_notified_of_failures_only_and_once(store: Store) -> None:
    store.on_failure = "http://all.example/"
    try:
        await put(store, "failed", retry=0)
        await put(store, "good", retry=0)
        await put(store, "own", retry=0, **TOLD)
        late = await put(store, "late", NOON - 600, max_delay=1)
        await store.write(queue.expire_overdue, NOW)
        claims = {claim.definition.task_name: claim for claim in await claim_all(store)}
        await finish(store, claims["failed"], 500)
        await finish(store, claims["good"], 200)
        await finish(store, claims["own"], 500)
        hosts = {"told.example:80": 9, "all.example:80": 9}
        notifications = await store.write(queue.claim, hosts, NOW)
        called = {one.definition.key: one.definition.callback for one in notifications}
        assert called == {
            Key(f"failed.{NOON}.on_failure", NOON): store.on_failure,
            Key(f"late.{late.trigger_at}.on_failure", NOON): store.on_failure,
            Key(f"own.{NOON}.on_failure", NOON): TOLD["on_failure"],
        }
        for claim in notifications:
            await finish_finally(store, claim)
            assert State.FAILED is await state_of(store, claim.definition.key)
        # Four tasks, and the notifications of three of them.
        assert len(await names_in(store)) == 7
    finally:
        store.on_failure = None


async def finish_finally(store: Store, claim: Claim) -> None:
    """Let a claim fail without a retry."""
    detail = "d"
    transition = Transition(
        state=State.FAILED,
        reason=Reason.TIMEOUT,
        detail=detail,
        attempt=decide_after_attempt(claim, interrupted(claim), NOW).attempt,
    )
    assert await store.write(queue.record, claim, transition, NOW)


async def test_each_of_many_ends_has_its_notification(store: Store) -> None:
    keys = [await put(store, "n\u00e4me", NOON - 60 * n, **TOLD) for n in range(3)]
    taken = await put(store, f"n\u00e4me.{NOON}.on_success")
    also = await put(store, taken.task_name, NOON + 60)
    await put(store, "untold")
    claims = await claim_all(store)
    await gatherResults([Deferred.fromCoroutine(finish(store, one, 200)) for one in claims])
    expected = {f"n\u00e4me.{key.trigger_at}.on_success@{NOON}" for key in keys}
    # If the minute is taken, the next free one is used.
    expected |= {f"{taken.task_name}@{NOON + 120}", str(also), f"untold@{NOON}", *map(str, keys)}
    assert set(await names_in(store)) == expected


async def test_conflicts_among_writes_made_at_once_affect_no_other_write(store: Store) -> None:
    ended = [await put(store, f"ended{n}", retry=0) for n in range(3)]
    claims = await claim_all(store)
    await put(store, "taken", NOON + 60)
    # The record of a claim that is recorded already is lost.
    await finish(store, claims[0], 200)
    taken = definition("taken", NOON + 60)
    other = definition("taken", NOON + 60, callback="http://other.example/")
    new = [definition(f"new{n}", NOON + 60) for n in range(6)]
    none = PutCondition.NONE
    writes: list[Deferred[Any]] = [
        *(Deferred.fromCoroutine(finish(store, claim, 500)) for claim in claims),
        store.write(tasks.put, new[0], none, NOW),
        store.write(tasks.put, taken, none, NOW),
        store.write(tasks.put, new[1], none, NOW),
        store.write(tasks.put_many, new[2:4], NOW),
        store.write(tasks.put_many, [other, new[4]], NOW),
        store.write(tasks.put, new[5], PutCondition.MUST_EXIST, NOW),
    ]
    results = await gatherResults(writes)
    outcomes = [result.outcome.name for result in results[3:6]]
    outcomes += [result.outcome.name for many in results[6:8] for result in many]
    assert results[:3] == [False, True, True]
    assert outcomes == ["CREATED", "UNCHANGED", "CREATED", *["CREATED"] * 2, "CONFLICT", "CREATED"]
    assert results[8].outcome is PutOutcome.MISSING
    states = [await state_of(store, key) for key in ended]
    assert states == [State.SUCCEEDED, State.FAILED, State.FAILED]
    expected = [*map(str, ended), *(f"new{n}@{NOON + 60}" for n in range(5)), f"taken@{NOON + 60}"]
    assert await names_in(store) == expected


async def test_expired_task_has_its_notification(store: Store) -> None:
    key = await put(store, max_delay=1, payload="p", **TOLD)
    due = await store.write(queue.expire_overdue, NOON + 61)
    assert due.hosts == ["told.example:80"]
    assert State.FAILED is await state_of(store, key)
    made = await store.read(tasks.get, Key(f"task.{NOON}.on_failure", NOON + 60))
    assert made is not None
    assert json.loads(made.definition.payload)["reason"] == "too_late"


async def test_payload_in_base64_round_trips_through_the_store(store: Store) -> None:
    made = definition("bytes", payload_base64="AP8BgA==")
    await store.write(tasks.put, made, PutCondition.NONE, NOW)
    task = await store.read(tasks.get, made.key)
    assert task is not None
    assert task.definition == made
    (claim,) = await claim_all(store)
    assert claim.definition.body == b"\x00\xff\x01\x80"


async def test_task_round_trips_through_the_store(store: Store) -> None:
    made = definition(
        "näme \U0001f600'\"%_",
        callback_method="POST",
        payload="\0 ünï \U0001f600",
        headers={"X-A": "é"},
        expected_http_status=["2xx", 404],
        no_retry_http_status=[410],
        retry_delay=[1, 2],
        timeout=7,
        labels={"customer": '"42" é \U0001f600'},
        on_failure="http://a.example/",
        on_success="http://b.example/",
    )
    created = await store.write(tasks.put, made, PutCondition.NONE, NOW)
    task = await store.read(tasks.get, made.key)
    assert created.task == task
    assert task is not None
    assert made == task.definition
    assert (
        task.state,
        task.reason,
        task.detail,
        task.due_at,
        task.attempts_used,
        task.attempts_left,
    ) == (State.SCHEDULED, None, "", NOON, 0, 2)
    assert (task.created_at_ms, task.finished_at_ms, task.attempts) == (NOON * 1000 + 500, None, ())


async def test_first_and_last_timestamps_are_stored(store: Store) -> None:
    for at in (0, MAX_TIMESTAMP - 59):
        key = await put(store, at=at)
        task = await store.read(tasks.get, key)
        assert task is not None
        assert at == task.due_at


async def test_operations_on_a_missing_task_return_none(store: Store) -> None:
    key = Key("nobody", NOON)
    assert await store.read(tasks.get, key) is None
    assert await store.write(tasks.delete, key) is None
    assert await store.write(tasks.delete_name, "nobody") is None
    assert await store.write(tasks.reschedule, key, NOON, NOW, include_all_states=True) is None
    assert (
        await store.write(tasks.reschedule_name, "nobody", NOON, NOW, include_all_states=True)
        is None
    )
    assert await store.read(tasks.list_page, task_name="nobody") is None
    assert Page([], None) == await store.read(tasks.list_page)
    assert await store.read(queue.backlog, NOW) == 0
    assert await claim_all(store) == []
    assert await store.write(queue.take_orphans, NOW) == []


async def test_repeated_put_changes_nothing(store: Store) -> None:
    key = await put(store)
    again = await store.write(tasks.put, definition(), PutCondition.NONE, NOW + 100)
    assert PutOutcome.UNCHANGED is again.outcome
    assert await store.read(tasks.get, key) == again.task


@pytest.mark.parametrize("state", list(State))
async def test_put_of_another_definition_does_not_change_the_existing_one(
    store: Store, state: State
) -> None:
    key = await put_in(store, state)
    before = await store.read(tasks.get, key)
    result = await store.write(tasks.put, definition(payload="other"), PutCondition.NONE, NOW)
    refusal = PutOutcome.CONFLICT if state is State.SCHEDULED else PutOutcome.NOT_SCHEDULED
    assert (refusal, before) == (result.outcome, result.task)
    assert before == await store.read(tasks.get, key)


async def test_a_scheduled_task_can_be_replaced(store: Store) -> None:
    key = await put(store, retry=3)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    other = definition(payload="other", callback="http://other.example/", max_delay=5)
    result = await store.write(tasks.put, other, PutCondition.MUST_EXIST, NOW + 1)
    assert PutOutcome.REPLACED is result.outcome
    task = await store.read(tasks.get, key)
    assert result.task == task
    assert task is not None
    assert (other, NOON, 0) == (task.definition, task.due_at, task.attempts_used)
    assert [attempt.number for attempt in task.attempts or ()] == [1]
    assert await claim_all(store) == []
    (claim,) = await store.write(queue.claim, {"other.example:80": 5}, NOW)
    assert (claim.number, claim.attempts_used) == (2, 1)


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.FAILED])
async def test_only_a_scheduled_task_can_be_replaced(store: Store, state: State) -> None:
    await put_in(store, state)
    result = await store.write(tasks.put, definition(payload="other"), PutCondition.MUST_EXIST, NOW)
    assert PutOutcome.NOT_SCHEDULED is result.outcome


async def test_put_that_only_replaces_does_not_create(store: Store) -> None:
    result = await store.write(tasks.put, definition(), PutCondition.MUST_EXIST, NOW)
    assert (result.outcome, result.task) == (PutOutcome.MISSING, None)
    assert Page([], None) == await store.read(tasks.list_page)


async def test_due_tasks_are_claimed_in_order_and_not_early(store: Store) -> None:
    for name, at in [("c", 120), ("a", 60), ("b", 0), ("d", 0)]:
        await put(store, name, NOON + at)
    assert await claim_all(store, now=NOON - 0.001) == []
    claims = await claim_all(store, now=NOON + 60)
    assert [claim.definition.task_name for claim in claims] == ["b", "d", "a"]
    assert await claim_all(store, now=NOON + 119.999) == []
    assert [c.definition.task_name for c in await claim_all(store, now=NOON + 120)] == ["c"]


async def test_a_claim_counts_its_attempt_and_no_task_is_claimed_twice(store: Store) -> None:
    key = await put(store, timeout=7)
    (claim,) = await claim_all(store)
    assert (
        claim.number,
        claim.attempts_used,
        claim.host,
        claim.claimed_at_ms,
    ) == (1, 1, HOST, NOON * 1000 + 500)
    assert definition(timeout=7) == claim.definition
    assert await claim_all(store) == []
    task = await store.read(tasks.get, key)
    assert task is not None
    assert (
        task.state,
        task.due_at,
        task.attempts_used,
        task.attempts_left,
    ) == (State.RUNNING, None, 1, 1)


async def test_claim_has_the_time_when_its_definition_was_put(store: Store) -> None:
    key = await put(store)
    (claim,) = await store.write(queue.claim, {HOST: 1}, NOW)
    assert claim.created_at_ms == NOW * 1000
    due = Transition(state=State.SCHEDULED, due_at=NOON)
    await store.write(queue.record, claim, due, NOW)
    replaced = definition("task", NOON, payload="other")
    assert (
        PutOutcome.REPLACED
        is (await store.write(tasks.put, replaced, PutCondition.MUST_EXIST, NOW + 1)).outcome
    )
    (claim,) = await store.write(queue.claim, {HOST: 1}, NOW + 1)
    assert claim.created_at_ms == (NOW + 1) * 1000
    assert claim.definition.key == key
    await store.write(queue.record, claim, due, NOW + 1)
    (claim,) = await store.write(queue.claim, {HOST: 1}, NOW + 2)
    assert claim.created_at_ms == (NOW + 1) * 1000


async def test_claim_takes_up_to_the_share_of_each_host(store: Store) -> None:
    for number in range(5):
        await put(store, f"a{number}")
        await put(store, f"b{number}", callback="https://other.example/")
    assert sorted((await store.write(queue.expire_overdue, NOW)).hosts) == [
        "other.example:443",
        HOST,
    ]
    claims = await store.write(queue.claim, {HOST: 2, "other.example:443": 3, "nobody:80": 9}, NOW)
    assert sorted(c.definition.task_name for c in claims) == ["a0", "a1", "b0", "b1", "b2"]
    assert await store.read(queue.backlog, NOW) == 5


async def test_claim_takes_the_longest_due_of_a_host_first(store: Store) -> None:
    for number in range(5):
        await put(store, f"task{9 - number}", NOON + 60 * (number % 2))
    claims = await claim_all(store, count=2, now=NOON + 600)
    assert [claim.definition.task_name for claim in claims] == ["task9", "task7"]


async def test_success_is_recorded(store: Store) -> None:
    key = await put(store)
    (claim,) = await claim_all(store)
    assert await finish(store, claim, 200, NOW + 1)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert (
        task.state,
        task.finished_at_ms,
        task.due_at,
    ) == (State.SUCCEEDED, NOON * 1000 + 1500, None)
    assert task.attempts is not None
    (attempt,) = task.attempts
    assert (
        attempt.number,
        attempt.status,
        attempt.reason,
        attempt.duration_ms,
        attempt.lateness_ms,
        attempt.body,
    ) == (1, 200, None, 5, 1500, "b")
    assert task.attempts_left == 0


async def test_retry_is_claimed_at_its_minute(store: Store) -> None:
    key = await put(store)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    assert State.SCHEDULED is await state_of(store, key)
    assert await claim_all(store, now=NOON + 59) == []
    (again,) = await claim_all(store, now=NOON + 60)
    assert (again.number, again.attempts_used) == (2, 2)
    await finish(store, again, 500, NOON + 61)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.attempts is not None
    assert (task.state, task.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    assert [attempt.status for attempt in task.attempts] == [500, 500]


async def test_record_of_a_lost_claim_is_rejected(store: Store) -> None:
    key = await put(store, retry=5)
    (old,) = await claim_all(store)
    assert await store.write(
        queue.record, old, decide_after_attempt(old, interrupted(old), NOW), NOW
    )
    assert not await finish(store, old, 200)
    (new,) = await claim_all(store, now=NOON + 60)
    assert not await finish(store, old, 200)
    assert State.RUNNING is await state_of(store, key)
    assert await finish(store, new, 200)
    assert not await finish(store, new, 500)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert [attempt.status for attempt in task.attempts or ()] == [None, 200]


async def test_returned_claim_does_not_spend_an_attempt(store: Store) -> None:
    key = await put(store)
    before = await store.read(tasks.get, key)
    (claim,) = await claim_all(store)
    assert await store.write(
        queue.record, claim, Transition(state=State.SCHEDULED, due_at=NOON), NOW
    )
    assert before == await store.read(tasks.get, key)
    (claim,) = await claim_all(store)
    assert (claim.number, claim.attempts_used) == (1, 1)


async def test_task_past_max_delay_fails_as_too_late(store: Store) -> None:
    late = await put(store, "late", max_delay=1)
    fine = await put(store, "fine", max_delay=2)
    changes = record_changes(store)
    await store.write(queue.expire_overdue, NOON + 59.9)
    assert changes[-1].transitions == []
    due = await store.write(queue.expire_overdue, NOON + 60)
    assert (list(due.hosts), due.more) == ([HOST], False)
    assert [late] == [one.key for one in changes[-1].transitions] == list(changes[-1].changed())
    task = await store.read(tasks.get, late)
    assert task is not None
    assert (task.state, task.reason, task.attempts_used) == (State.FAILED, Reason.TOO_LATE, 0)
    assert "1 minute after trigger_at" in task.detail
    assert task.finished_at_ms == (NOON + 60) * 1000
    assert [fine] == [c.definition.key for c in await claim_all(store, now=NOON + 60)]


async def test_expired_task_is_not_claimed(store: Store) -> None:
    await put(store, max_delay=1)
    assert await claim_all(store, now=NOON + 60) == []


async def test_lease_outlasts_the_call(store: Store) -> None:
    await put(store, timeout=100)
    (claim,) = await claim_all(store, now=NOON)
    assert await store.write(queue.take_orphans, NOON + 100) == []
    assert [claim] == await store.write(queue.take_orphans, NOON + 200)
    await finish(store, claim, 200)
    assert await store.write(queue.take_orphans, NOON + 400) == []


async def test_attempt_has_the_name_of_its_daemon(store: Store) -> None:
    key = await put(store)
    (claim,) = await claim_all(store)
    await finish(store, claim, 200)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.attempts is not None
    assert (claim.node, task.attempts[0].node) == ("node", "node")


async def test_waiting_lists_hosts_with_due_tasks(store: Store) -> None:
    await put(store, "a")
    await put(store, "b", callback="https://other.example/")
    await put(store, "c", NOON + 60, callback="https://later.example/")
    assert sorted(await store.read(queue.hosts_with_due_tasks, NOW)) == ["other.example:443", HOST]
    await claim_all(store)
    assert list(await store.read(queue.hosts_with_due_tasks, NOW)) == ["other.example:443"]
    assert list(await store.read(queue.hosts_with_due_tasks, NOON - 1)) == []


async def test_page_is_ordered_by_name_then_time(store: Store) -> None:
    names = ["b", "a", "\U0001f600", "B", "é", "z", "\uffee"]
    for name in names:
        for at in (120, 0, 60):
            await put(store, name, NOON + at)
    expected = [Key(name, NOON + at) for name in sorted(names) for at in (0, 60, 120)]
    found: list[Key] = []
    following: Key | None = None
    while True:
        page = await store.read(tasks.list_page, start_from=following, limit=4)
        assert page is not None
        found += [task.key for task in page.tasks]
        following = page.next
        if following is None:
            break
        assert len(page.tasks) == 4
    assert expected == found


async def test_full_last_page_has_no_next(store: Store) -> None:
    for at in (0, 60):
        await put(store, at=NOON + at)
    page = await store.read(tasks.list_page, limit=2)
    assert page is not None
    assert (len(page.tasks), page.next) == (2, None)


async def test_page_of_large_tasks_ends_before_its_limit(store: Store) -> None:
    large = {f"{number:02}-{'x' * 77}": "" for number in range(100)}
    large_ones = [definition(f"task{number:03}", headers=large) for number in range(300)]
    await store.write(tasks.put_many, large_ones, NOW)
    found: list[Key] = []
    start: Key | None = None
    pages = 0
    while True:
        page = await store.read(tasks.list_page, start_from=start, limit=1000)
        assert page is not None
        pages += 1
        found += [task.key for task in page.tasks]
        if page.next is None:
            break
        assert 100 <= len(page.tasks) <= 130
        start = page.next
    assert found == [made.key for made in large_ones]
    assert pages == 3


async def test_paging_is_stable_under_inserts_and_deletes(store: Store) -> None:
    stay = [await put(store, f"n{number:02d}") for number in range(0, 20, 2)]
    seen: list[Key] = []
    following: Key | None = None
    for turn in range(20):
        page = await store.read(tasks.list_page, start_from=following, limit=3)
        assert page is not None
        seen += [task.key for task in page.tasks]
        following = page.next
        if following is None:
            break
        # Before, at and after where the next page begins.
        await put(store, f"m{turn:02d}")
        await put(store, f"{following.task_name}x{turn}")
        if turn == 1:
            await store.write(tasks.delete, following)
            stay.remove(following)
    assert len(set(seen)) == len(seen)
    assert set(stay) <= set(seen)


async def test_page_is_filtered(store: Store) -> None:
    failed = await put_in(store, State.FAILED, "failed")
    done = await put_in(store, State.SUCCEEDED, "done")
    running = await put_in(store, State.RUNNING, "running")
    later = await put(store, "later", NOON + 60)
    for state, key in [
        (State.FAILED, failed),
        (State.SUCCEEDED, done),
        (State.RUNNING, running),
        (State.SCHEDULED, later),
    ]:
        page = await store.read(tasks.list_page, state=state)
        assert page is not None
        assert [key] == [task.key for task in page.tasks]
    page = await store.read(tasks.list_page, due_from=NOON + 60)
    assert page is not None
    assert [later] == [task.key for task in page.tasks]
    page = await store.read(tasks.list_page, task_name="done", due_from=NOON + 60)
    assert Page([], None) == page


async def test_page_omits_payload_and_attempts(store: Store) -> None:
    await put(store, payload="large")
    page = await store.read(tasks.list_page)
    assert page is not None
    assert (page.tasks[0].definition.payload, page.tasks[0].attempts) == ("", None)


@pytest.mark.parametrize("state", [State.SCHEDULED, State.SUCCEEDED, State.FAILED])
async def test_deleted_task_is_gone(store: Store, state: State) -> None:
    key = await put_in(store, state)
    other = await put(store, at=NOON + 60)
    assert Deleted(count=1) == await store.write(tasks.delete, key)
    assert await store.read(tasks.get, key) is None
    assert State.SCHEDULED is await state_of(store, other)
    await put(store)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.attempts == ()


async def test_running_task_is_not_deleted(store: Store) -> None:
    running = await put_in(store, State.RUNNING)
    await put(store, at=NOON + 60)
    assert Deleted(count=0, running=[running]) == await store.write(tasks.delete, running)
    assert Deleted(count=1, running=[running]) == await store.write(tasks.delete_name, "task")
    assert State.RUNNING is await state_of(store, running)


async def test_a_failed_task_is_rescheduled_with_its_full_budget(store: Store) -> None:
    key = await put_in(store, State.FAILED)
    changes = record_changes(store)
    result = await store.write(tasks.reschedule, key, NOON + 120, NOW, include_all_states=False)
    assert result is not None
    to = Key("task", NOON + 120)
    assert ([(key, to)], []) == (list(result.moved), list(result.skipped))
    assert (list(changes[-1].keys), changes[-1].due_hosts) == ([key], {HOST: NOON + 120})
    assert await store.read(tasks.get, key) is None
    task = await store.read(tasks.get, to)
    assert task is not None
    assert (
        task.state,
        task.reason,
        task.detail,
        task.due_at,
        task.attempts_used,
        task.attempts_left,
        task.finished_at_ms,
    ) == (State.SCHEDULED, None, "", NOON + 120, 0, 1, None)
    assert task.definition.expires_at == NOON + 120 + 525_600 * 60
    assert [attempt.number for attempt in task.attempts or ()] == [1]
    (claim,) = await claim_all(store, now=NOON + 120)
    assert (claim.number, claim.attempts_used) == (2, 1)


async def test_a_task_may_be_rescheduled_to_its_own_minute(store: Store) -> None:
    key = await put_in(store, State.FAILED)
    result = await store.write(tasks.reschedule, key, NOON, NOW, include_all_states=False)
    assert result is not None
    assert [(key, key)] == result.moved
    assert State.SCHEDULED is await state_of(store, key)


async def test_claim_of_a_rescheduled_task_has_the_minute_before(store: Store) -> None:
    (claim,) = [await claim_of(store, await put(store))]
    assert claim.rescheduled_from is None
    await store.write(queue.record, claim, Transition(state=State.FAILED, reason=None), NOW)
    key = claim.definition.key
    to = NOON + 60
    await store.write(tasks.reschedule, key, to, NOW, include_all_states=False)
    claim = await claim_of(store, Key("task", to), NOW + 60)
    assert (claim.rescheduled_from, claim.definition.trigger_at) == (NOON, to)
    await store.write(queue.record, claim, Transition(state=State.FAILED, reason=None), NOW + 60)
    await store.write(tasks.reschedule_name, "task", to + 60, NOW + 60, include_all_states=False)
    moved = Key("task", to + 60)
    replaced = definition("task", moved.trigger_at, payload="other")
    claim = await claim_of(store, moved, NOW + 120)
    assert claim.rescheduled_from == to
    await store.write(
        queue.record, claim, Transition(state=State.SCHEDULED, due_at=moved.trigger_at), NOW + 120
    )
    await store.write(tasks.put, replaced, PutCondition.MUST_EXIST, NOW + 120)
    claim = await claim_of(store, moved, NOW + 121)
    assert (claim.rescheduled_from, claim.definition.payload) == (None, "other")


async def claim_of(store: Store, key: Key, now: float = NOW) -> Claim:
    (claim,) = await store.write(queue.claim, {HOST: 1}, now)
    assert claim.definition.key == key
    return claim


async def test_reschedule_does_not_overwrite_a_task(store: Store) -> None:
    key = await put_in(store, State.FAILED)
    other = await put(store, at=NOON + 60)
    result = await store.write(tasks.reschedule, key, NOON + 60, NOW, include_all_states=True)
    assert result is not None
    assert result.conflict == f"another task has the key {other}: use another minute"
    assert State.FAILED is await state_of(store, key)


@pytest.mark.parametrize("state", [State.SCHEDULED, State.RUNNING, State.SUCCEEDED])
async def test_reschedule_moves_only_failed_tasks_by_default(store: Store, state: State) -> None:
    key = await put_in(store, state)
    result = await store.write(tasks.reschedule, key, NOON + 60, NOW, include_all_states=False)
    assert result is not None
    assert result.conflict is not None
    result = await store.write(tasks.reschedule, key, NOON + 60, NOW, include_all_states=True)
    assert result is not None
    if state is State.RUNNING:
        assert ([], [(key, "running")]) == (list(result.moved), list(result.skipped))
    else:
        assert [(key, Key("task", NOON + 60))] == result.moved


async def test_reschedule_past_max_delay_moves_nothing(store: Store) -> None:
    key = await put_in(store, State.FAILED)
    far = NOON + 525_600 * 60 + 60
    result = await store.write(tasks.reschedule, key, NOON, far, include_all_states=False)
    assert result is not None
    assert [(key, "too_late")] == result.skipped
    result = await store.write(tasks.reschedule_name, "task", NOON, far, include_all_states=False)
    assert result is not None
    assert ([], [(key, "too_late")]) == (list(result.moved), list(result.skipped))


@pytest.mark.parametrize(("seconds", "is_moved"), [(-1, True), (0, False), (1, False)])
async def test_reschedule_is_possible_until_max_delay(
    store: Store, seconds: int, is_moved: bool
) -> None:
    key = await put(store, max_delay=7, retry=0)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    past, now = NOON + 3600, NOON + 3600 + 7 * 60 + seconds
    result = await store.write(tasks.reschedule, key, past, now, include_all_states=False)
    assert result is not None
    assert bool(result.moved) == is_moved
    assert bool(result.skipped) != is_moved
    assert len(await claim_all(store, now=now)) == is_moved


async def test_rescheduled_name_takes_the_next_free_minutes(store: Store) -> None:
    failed = [await put_in(store, State.FAILED, at=NOON + 60 * n) for n in (0, 1, 2)]
    running = await put_in(store, State.RUNNING, at=NOON + 240)
    waiting = await put(store, at=NOON + 300)
    elsewhere = await put(store, "other", NOON + 180)
    result = await store.write(
        tasks.reschedule_name, "task", NOON + 120, NOON + 120, include_all_states=False
    )
    assert result is not None
    to = [Key("task", NOON + 60 * n) for n in (2, 3, 6)]
    assert list(zip(failed, to, strict=True)) == list(result.moved)
    assert [(running, "running")] == result.skipped
    for key in [*to, waiting, elsewhere]:
        assert State.SCHEDULED is await state_of(store, key)
    page = await store.read(tasks.list_page, task_name="task")
    assert page is not None
    assert len(page.tasks) == 5


async def test_rescheduled_states_reuse_the_minutes_they_leave(store: Store) -> None:
    keys = [
        await put_in(store, State.SUCCEEDED, at=NOON),
        await put_in(store, State.FAILED, at=NOON + 60),
        await put(store, at=NOON + 120),
    ]
    result = await store.write(
        tasks.reschedule_name, "task", NOON + 60, NOON + 60, include_all_states=True
    )
    assert result is not None
    assert [Key("task", NOON + 60 * n) for n in (1, 2, 3)] == [new for _, new in result.moved]
    assert keys == [old for old, _ in result.moved]


async def test_reschedule_beyond_the_last_minute_is_refused(store: Store) -> None:
    for at in (0, 60):
        await put_in(store, State.FAILED, at=NOON + at)
    result = await store.write(
        tasks.reschedule_name, "task", MAX_TIMESTAMP - 59, NOW, include_all_states=False
    )
    assert result is not None
    assert result.conflict is not None
    assert list(result.moved) == []


async def test_purge_deletes_the_oldest_first_in_batches(store: Store) -> None:
    old = [await put_in(store, State.SUCCEEDED, f"old{n}", NOON + 60 * n) for n in range(3)]
    failed = await put_in(store, State.FAILED, "failed", NOON + 600)
    waiting = await put(store, "waiting", 0)
    assert await store.write(queue.purge, NOON + 500, 2, 0) == 2
    assert [await state_of(store, key) for key in old] == [None, None, State.SUCCEEDED]
    assert await store.write(queue.purge, NOON + 500, 2, 0) == 1
    assert await store.write(queue.purge, NOON + 500, 2, 0) == 0
    assert State.FAILED is await state_of(store, failed)
    assert State.SCHEDULED is await state_of(store, waiting)


async def test_grouped_writes_each_get_their_own_result(store: Store) -> None:
    puts = [
        store.write(tasks.put, definition(f"n{number % 50}"), PutCondition.NONE, NOW)
        for number in range(100)
    ]
    results = [(await one).outcome for one in puts]
    assert results == [PutOutcome.CREATED] * 50 + [PutOutcome.UNCHANGED] * 50


# Stats


async def test_stats_count_tasks_and_backlog(store: Store) -> None:
    empty = await store.read(stats.store_stats, NOW, count=True)
    assert (empty.backlog, empty.oldest_due) == (0, 0)
    assert empty.tasks is not None
    assert set(empty.tasks.values()) == {0}
    await put(store, "later", NOON + 3600)
    assert (await store.read(stats.store_stats, NOW)).oldest_due == 0
    for minute, state in enumerate([State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.RUNNING]):
        await put_in(store, state, at=NOON - 600 + 60 * minute)
    await put(store, "due", NOON - 120)
    await put(store, "late", NOON - 1200, max_delay=1)
    await put(store, "due", NOON - 60)
    await store.write(queue.expire_overdue, NOW)
    figures = await store.read(stats.store_stats, NOW, count=True)
    assert (figures.backlog, figures.oldest_due) == (2, 120.5)
    assert figures.size >= 8192
    assert figures.tasks is not None
    assert {which: count for which, count in figures.tasks.items() if count} == {
        (State.SCHEDULED, None): 3,
        (State.RUNNING, None): 1,
        (State.SUCCEEDED, None): 2,
        (State.FAILED, Reason.UNEXPECTED_STATUS): 1,
        (State.FAILED, Reason.TOO_LATE): 1,
    }
    assert figures.tasks.keys() == empty.tasks.keys()
    assert (await store.read(stats.store_stats, NOW)).tasks is None


async def test_stats_count_the_backlog_up_to_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in range(5):
        await put(store, at=NOON - 60 * minute)
    monkeypatch.setattr(
        stats, "_SOME_BACKLOG", stats._SOME_BACKLOG.replace(str(MAX_BACKLOG_COUNT), "3")
    )
    assert (await store.read(stats.store_stats, NOW)).backlog == 3


# Changes of commits


async def test_each_commit_reports_its_operations(store: Store) -> None:
    published = record_changes(store)
    puts = [
        store.write(tasks.put, definition(at=NOON + 60 * minute), PutCondition.NONE, NOW)
        for minute in range(3)
    ]
    for putting in puts:
        await putting
    await put(store, "one more")
    assert [changes.operations for changes in published] == [3, 1]
    assert published[0].due_hosts == {HOST: NOON}


async def test_put_that_must_not_create_does_not_among_puts_made_at_once(store: Store) -> None:
    late = NOON + 3600
    puts = (
        (definition("new"), PutCondition.NONE, NOW),
        (definition("missing"), PutCondition.MUST_EXIST, NOW),
        (definition("late", max_delay=1), PutCondition.NONE, late),
        (definition("last"), PutCondition.MUST_NOT_EXIST, NOW),
    )
    results = await gatherResults([store.write(tasks.put, *one) for one in puts])
    assert [one.outcome for one in results] == [
        PutOutcome.CREATED,
        PutOutcome.MISSING,
        PutOutcome.NEVER_RUNS,
        PutOutcome.CREATED,
    ]
    states = [await state_of(store, one.key) for one, _, _ in puts]
    assert states == [State.SCHEDULED, None, None, State.SCHEDULED]


async def test_ends_of_many_calls_share_a_commit(store: Store) -> None:
    for number in range(7):
        await put(store, f"n{number}", retry=0)
    claims = await claim_all(store)
    published = record_changes(store)
    records = [Deferred.fromCoroutine(finish(store, claim, 500)) for claim in claims]
    assert await gatherResults(records) == [True] * 7
    assert [changes.operations for changes in published] == [7]
    for claim in claims:
        task = await store.read(tasks.get, claim.definition.key)
        assert task is not None
        assert [attempt.status for attempt in task.attempts or ()] == [500]


async def test_a_commit_is_published_before_its_results_are_returned(store: Store) -> None:
    order: list[str] = []
    store.changes.subscribe(lambda _: order.append("published"))
    putting = store.write(tasks.put, definition(), PutCondition.NONE, NOW)
    await putting.addCallback(lambda _: order.append("returned"))
    assert order == ["published", "returned"]


async def test_a_cancelled_write_is_committed_and_published(store: Store) -> None:
    published = record_changes(store)
    putting = store.write(tasks.put, definition(), PutCondition.NONE, NOW)
    putting.cancel()
    with pytest.raises(CancelledError):
        await putting
    await put(store, "another")
    assert await state_of(store, definition().key) is State.SCHEDULED
    assert sum(changes.operations for changes in published) == 2


async def test_writes_repeated_singly_are_published_once_each_as_committed(store: Store) -> None:
    def fail(write: Write, made: Definition) -> None:
        tasks.put(write, made, PutCondition.NONE, NOW)
        raise RuntimeError("bad")

    key = await put_in(store, State.FAILED)
    published = record_changes(store)
    bad = store.write(fail, definition("bad", callback="http://bad.example/"))
    deleting = store.write(tasks.delete, key)
    putting = store.write(tasks.put, definition("good"), PutCondition.NONE, NOW)
    with pytest.raises(RuntimeError):
        await bad
    await deleting
    await putting
    assert [list(changes.changed()) for changes in published] == [[key], []]
    assert [changes.due_hosts for changes in published] == [{}, {HOST: NOON}]


async def test_an_error_of_a_subscriber_disturbs_no_write(
    store: Store, logged_failures: LoggedFailures
) -> None:
    def fail(changes: Changes) -> None:
        raise ZeroDivisionError

    store.changes.subscribe(fail)
    published = record_changes(store)
    await put(store)
    assert len(published) == logged_failures.flush(ZeroDivisionError) == 1


async def test_every_write_publishes_its_changes(store: Store) -> None:
    made = definition(**TOLD, retry=1)
    key, published = made.key, record_changes(store)
    await store.write(tasks.put, made, PutCondition.NONE, NOW)
    await store.write(tasks.put, definition(payload="2", **TOLD), PutCondition.MUST_EXIST, NOW)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    (claim,) = await claim_all(store, now=NOON + 60)
    await finish(store, claim, 500, NOON + 61)
    await store.write(tasks.reschedule_name, "task", NOON + 120, NOW, include_all_states=False)
    await store.write(tasks.delete, Key("task", NOON + 120))
    await store.write(tasks.delete_name, f"task.{NOON}.on_failure")
    assert [list(changes.changed()) for changes in published] == [
        [],
        [key],
        [key],
        [key],
        [key],
        [key],
        [],
        [Key("task", NOON + 120)],
        [],
    ]
    assert [list(changes.names) for changes in published if changes.names] == [
        ["task"],
        [f"task.{NOON}.on_failure"],
    ]
    assert [changes.due_hosts for changes in published] == [
        {HOST: NOON},
        {HOST: NOON},
        {},
        {HOST: NOON + 60},
        {},
        {"told.example:80": NOON + 60},
        {HOST: NOON + 120},
        {},
        {},
    ]
    transitions = [one for changes in published for one in changes.transitions]
    assert [(one.transition.state, one.attempts_used) for one in transitions] == [
        (State.SCHEDULED, 1),
        (State.FAILED, 2),
    ]


async def test_record_whose_result_was_lost_is_published_when_it_is_repeated(store: Any) -> None:
    key = await put(store, on_success="http://notify.example/")
    (claim,) = await claim_all(store)
    published = record_changes(store)
    transact: Callable[[Any], Deferred[Any]] = store._commits._transact

    def lose(operations: Any) -> Deferred[Any]:
        store._commits._transact = transact

        def lost(_: object) -> None:
            raise StoreUnavailable("lost")

        return transact(operations).addCallback(lost)

    store._commits._transact = lose
    with pytest.raises(StoreUnavailable):
        await finish(store, claim, 200)
    assert published == []
    assert await finish(store, claim, 200)
    assert [one.key for changes in published for one in changes.transitions] == [key]
    assert published[0].lost == []
    assert published[0].due_hosts == {"notify.example:80": NOON}, "its notification waits"


async def test_a_result_of_a_lost_claim_is_published_as_lost(store: Store) -> None:
    await put(store)
    (claim,) = await claim_all(store)
    await finish(store, claim, 200)
    published = record_changes(store)
    assert not await finish(store, claim, 500)
    assert published[0].transitions == []
    assert [one.key for one in published[0].lost] == [claim.definition.key]


# Corrupt rows, and definitions that could never run


async def corrupt(store: Store, name: str) -> None:
    """Make the stored definition of a task unreadable, as another program may."""

    def spoil(write: Write) -> None:
        write.cursor.execute("UPDATE task SET headers = '{' WHERE task_name = ?", (name,))

    await store.write(spoil)


async def test_replacement_that_could_never_run_is_refused(store: Store) -> None:
    await put(store, retry=3)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    late = definition(payload="other", max_delay=1)
    result = await store.write(tasks.put, late, PutCondition.MUST_EXIST, NOON + 60)
    assert result.outcome is PutOutcome.NEVER_RUNS
    assert result.task is not None
    assert result.task.definition == definition(retry=3)


@pytest.mark.parametrize("condition", PutCondition)
async def test_preview_of_a_put_on_a_corrupt_row_agrees_with_the_put(
    store: Store, condition: PutCondition
) -> None:
    key = await put(store)
    await corrupt(store, key.task_name)
    (preview,) = await store.read(stats.preview_put, [definition()], NOW)
    result = await store.write(tasks.put, definition(), condition, NOW)
    assert decide_put(preview.existing, definition(), condition, NOW) is result.outcome
    assert result.outcome is not PutOutcome.UNCHANGED


async def test_late_corrupt_row_is_published_with_its_recorded_reason(store: Store) -> None:
    key = await put(store, max_delay=1)
    await corrupt(store, key.task_name)
    published = record_changes(store)
    await store.write(queue.expire_overdue, NOON + 61)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.reason is Reason.CONNECTION_FAILED
    assert list(published[0].changed()) == [key]
    assert [one.transition.reason for one in published[0].transitions] == [task.reason]


async def test_corrupt_row_failed_by_a_claim_is_published(store: Store) -> None:
    key = await put(store, "corrupt")
    fine = await put(store, "fine")
    await corrupt(store, key.task_name)
    published = record_changes(store)
    assert [claim.definition.key for claim in await claim_all(store)] == [fine]
    assert set(published[0].changed()) == {key, fine}
    assert [(one.key, one.transition.state) for one in published[0].transitions] == [
        (key, State.FAILED)
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("headers", "{"),
        ("headers", '{"a": 1}'),
        ("labels", "nothing"),
        ("labels", "[1]"),
        ("retry_delay", "soon"),
        ("retry_delay", '["2xx"]'),
        ("expected_http_status", "[]"),
        ("no_retry_http_status", "410"),
        ("payload_base64", "?"),
        ("reason", "boredom"),
    ],
)
async def test_damaged_task_is_listed_with_its_damaged_members_and_can_be_deleted(
    store: Store, column: str, value: str
) -> None:
    key = await put(store, labels={"team": "a"})
    (claim,) = await claim_all(store)
    await finish(store, claim, 200)

    def spoil(write: Write) -> None:
        # The trigger refuses labels that it cannot parse.
        update = f"UPDATE task SET {column} = ?"
        if isinstance(store, SqliteStore):
            write.cursor.execute("DROP TRIGGER task_relabelled")
            write.cursor.execute(update, (value,))
        else:
            write.cursor.execute("ALTER TABLE task DISABLE TRIGGER task_relabelled")
            write.cursor.execute(update, (value,))
            write.cursor.execute("ALTER TABLE task ENABLE TRIGGER task_relabelled")

    await store.write(spoil)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.damaged == (column,)
    assert task_to_dict(task)["damaged"] == [column]
    page = await store.read(tasks.list_page)
    assert page is not None
    # Lists have no payload.
    listed = () if column == "payload_base64" else (column,)
    assert [one.damaged for one in page.tasks] == [listed]
    assert await store.write(tasks.delete, key) == Deleted(count=1)
    page = await store.read(tasks.list_page, labels=[("team", "a")])
    assert page is not None
    assert page.tasks == []


async def test_damaged_reason_is_counted_as_a_failure_without_one(store: Store) -> None:
    await put(store, retry=0)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)

    def spoil(write: Write) -> None:
        write.cursor.execute("UPDATE task SET reason = 'boredom'")

    await store.write(spoil)
    found = await store.read(stats.store_stats, NOON, count=True)
    assert found.tasks is not None
    assert found.tasks[State.FAILED, None] == 1
    assert found.tasks[State.SUCCEEDED, None] == 0


async def test_damaged_attempt_is_left_out_and_named(store: Store) -> None:
    key = await put(store, retry=1)
    for now in (NOON, NOON + 60):
        (claim,) = await claim_all(store, now=now)
        await finish(store, claim, 500, now)

    def spoil(write: Write) -> None:
        write.cursor.execute("UPDATE attempt SET reason = 'boredom' WHERE number = 1")

    await store.write(spoil)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.damaged == ("attempts",)
    assert [attempt["number"] for attempt in task_to_dict(task)["attempts"]] == [2]


# Queries of the web page


async def test_history_counts_ends_by_minute(store: Store) -> None:
    assert await store.read(stats.history, 0) == []
    for number, (at, status, later) in enumerate(
        [
            (NOON, 200, 0.0),
            (NOON, 200, 1.25),
            (NOON, 500, 59.9),
            (NOON + 60, 200, 0.0),
            (NOON + 60, 200, 12_345.678),
        ]
    ):
        await put(store, f"t{number}", at, retry=0)
        (claim,) = await claim_all(store, now=at)
        await finish(store, claim, status, at + later)
    assert await store.read(stats.history, NOON) == [
        MinuteOutcomes(
            minute=NOON, succeeded=2, failed=1, lateness_ms=Histogram.of({0: 1, 1200: 1, 59000: 1})
        ),
        MinuteOutcomes(minute=NOON + 60, succeeded=1, failed=0, lateness_ms=Histogram.of({0: 1})),
        MinuteOutcomes(
            minute=NOON + 60 + 12_300,
            succeeded=1,
            failed=0,
            lateness_ms=Histogram.of({12_340_000: 1}),
        ),
    ]
    assert [one.minute for one in await store.read(stats.history, NOON + 60)] == [
        NOON + 60,
        NOON + 12_360,
    ]


async def test_history_measures_lateness_of_first_attempts_only(store: Store) -> None:
    """Retries are late by design, and expired tasks have no attempt."""
    key = await put(store, retry=1, max_delay=10)
    for at, status in ((NOON + 1, 500), (NOON + 62, 500)):
        (claim,) = await claim_all(store, now=at)
        await finish(store, claim, status, at)
    past = MinuteOutcomes(
        minute=NOON + 60, succeeded=0, failed=1, lateness_ms=Histogram.of({1000: 1})
    )
    assert await store.read(stats.history, NOON) == [past]
    moved = await store.write(
        tasks.reschedule, key, NOON + 120, NOON + 100, include_all_states=False
    )
    assert moved is not None
    assert await store.read(stats.history, NOON) == [past]
    (claim,) = await claim_all(store, now=NOON + 123)
    await finish(store, claim, 200, NOON + 123)
    assert await store.read(stats.history, NOON) == [
        past,
        MinuteOutcomes(
            minute=NOON + 120, succeeded=1, failed=0, lateness_ms=Histogram.of({3000: 1})
        ),
    ]
    await put(store, "late", NOON, max_delay=1)
    await store.write(queue.expire_overdue, NOON + 180)
    assert (await store.read(stats.history, NOON))[2:] == [
        MinuteOutcomes(minute=NOON + 180, succeeded=0, failed=1, lateness_ms=Histogram())
    ]


async def test_activity_lists_calls_in_flight_and_last_failures(store: Store) -> None:
    assert await store.read(stats.recent_activity, 2) == ActivitySnapshot(
        running=0, in_flight=[], failures=[]
    )
    for number in range(3):
        await put_in(store, State.FAILED, f"failed{number}", NOON + 60 * number)
    for number in range(3):
        await put_in(store, State.RUNNING, f"running{number}", NOON + 600 + 60 * number)
    glance = await store.read(stats.recent_activity, 2)
    assert glance.running == 3
    assert glance.in_flight == [
        InFlightCall(
            key=Key(f"running{n}", NOON + 600 + 60 * n),
            host=HOST,
            number=1,
            since_ms=(NOON + 600 + 60 * n) * 1000,
            node="node",
        )
        for n in (0, 1)
    ]
    assert [task.key.task_name for task in glance.failures] == ["failed2", "failed1"]
    assert glance.failures[0].reason is Reason.UNEXPECTED_STATUS


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("", ["A", "a", "ab", "ab\U0010ffff", "ac", "b", "\ud7ff", "\ue000"]),
        ("a", ["a", "ab", "ab\U0010ffff", "ac"]),
        ("ab", ["ab", "ab\U0010ffff"]),
        ("ab\U0010ffff", ["ab\U0010ffff"]),
        ("\ud7ff", ["\ud7ff"]),
        ("\U0010ffff", []),
        ("a%", []),
        ("A", ["A"]),
    ],
)
async def test_page_is_filtered_by_name_prefix(store: Store, prefix: str, names: list[str]) -> None:
    for name in ("b", "ab", "a", "ac", "A", "ab\U0010ffff", "\ud7ff", "\ue000"):
        await put(store, name)
    page = await store.read(tasks.list_page, prefix=prefix)
    assert page is not None
    assert [task.key.task_name for task in page.tasks] == names
    first = await store.read(tasks.list_page, prefix=prefix, limit=1)
    assert first is not None
    if len(names) > 1:
        assert first.next == Key(names[1], NOON)
        rest = await store.read(tasks.list_page, prefix=prefix, start_from=first.next)
        assert rest is not None
        assert [task.key.task_name for task in rest.tasks] == names[1:]


async def attempt_repeatedly(store: Store, key: Key, attempts: int) -> None:
    """Make attempts of a task, an hour apart, which all fail."""
    await put(store, key.task_name, key.trigger_at, retry=attempts - 1)
    for hour in range(attempts):
        now = key.trigger_at + 3600.0 * hour
        (claim,) = await claim_all(store, now=now)
        await finish(store, claim, 500, now=now)


async def test_attempts_are_read_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Key("task", NOON)
    await attempt_repeatedly(store, key, ATTEMPTS_PER_PAGE + 3)
    last = await store.read(tasks.get, key)
    assert last is not None
    assert [attempt.number for attempt in last.attempts or ()] == [*range(4, 104)]
    assert (last.first_attempt, last.last_attempt, last.earlier_attempts) == (1, 103, 3)
    first = await store.read(tasks.get, key, last.earlier_attempts)
    assert first is not None
    assert [attempt.number for attempt in first.attempts or ()] == [1, 2, 3]
    assert (first.first_attempt, first.last_attempt, first.earlier_attempts) == (1, 103, None)
    assert await store.read(tasks.get_if_modified, {key: None}, 1) == {key: last}
    beyond = await store.read(tasks.get, key, 999_999_999)
    assert beyond == last
    without = await store.read(tasks.get, await put(store, "other"), 5)
    assert without is not None
    assert (without.attempts, without.first_attempt, without.last_attempt) == ((), 1, 0)


async def test_only_the_last_attempts_stay_on_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_ATTEMPTS", 5)
    key = Key("task", NOON)
    await attempt_repeatedly(store, key, 5)
    whole = await store.read(tasks.get, key)
    assert whole is not None
    assert [attempt.number for attempt in whole.attempts or ()] == [1, 2, 3, 4, 5]
    await store.write(tasks.reschedule, key, NOON, NOON, include_all_states=False)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)
    (claim,) = await claim_all(store, now=NOON + 3600)
    await finish(store, claim, 200, now=NOON + 3600)
    task = await store.read(tasks.get, key)
    assert task is not None
    assert [attempt.number for attempt in task.attempts or ()] == [3, 4, 5, 6, 7]
    assert (task.first_attempt, task.last_attempt, task.earlier_attempts) == (3, 7, None)
    assert await store.read(tasks.get_if_modified, {key: None}, 1) == {key: task}
    assert task_to_dict(task)["attempts_dropped"] == 2
