from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from callme.store.changes import Changes
from callme.store.database import Unfinished
from callme.store.group_commit import (
    MAX_AGE_SECONDS,
    MAX_AGE_SINGLY_SECONDS,
    MIN_BATCH,
    PARALLEL_AFTER_SECONDS,
    GroupCommit,
)
from callme.store.interface import StoreUnavailable

Operation = Callable[[list[str]], Any]


class Locked(Exception):
    """An error of the whole batch."""


class Database:
    """Transactions that end when the test decides; a connection is the list of its writes."""

    def __init__(self, max_parallel: int = 1, max_batch: int = 3) -> None:
        self.clock = Clock()
        self.committed: list[list[str]] = []
        self.published: list[Changes] = []
        self.running: list[tuple[Sequence[Operation], Deferred[tuple[list[Any], Changes]]]] = []
        self.commits: GroupCommit[Operation] = GroupCommit(
            clock=self.clock,
            transact=self.transact,
            fails_all=lambda failure: failure.check(Locked) is not None,
            publish=self.published.append,
            max_batch=max_batch,
            keys=lambda operation: operation.__dict__["keys"],
            max_parallel=max_parallel,
        )

    def transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        done: Deferred[tuple[list[Any], Changes]] = Deferred()
        self.running.append((operations, done))
        return done

    def finish(self, error: Exception | None = None, number: int = 0) -> None:
        """End a transaction, the oldest one by default."""
        operations, done = self.running.pop(number)
        written: list[str] = []
        try:
            if error:
                raise error
            results = [operation(written) for operation in operations]
        except Exception:
            done.errback(Failure())
        else:
            self.committed.append(written)
            done.callback((results, Changes()))

    def write(self, text: str, responses: list[Any]) -> Deferred[Any]:
        def operation(connection: list[str]) -> Any:
            if text.startswith("bad"):
                raise ValueError(text)
            connection.append(text)
            if text.endswith("?"):
                return Unfinished(lambda written: written.append("rest") or text.upper())
            return text.upper()

        # A text that begins with a capital must be written alone.
        operation.__dict__["keys"] = None if text[:1].isupper() else {text[:1]}
        return self.commits.write(operation).addBoth(responses.append)


def values(responses: list[Any]) -> list[Any]:
    return [repr(one.value) if isinstance(one, Failure) else one for one in responses]


def test_queued_writes_share_a_commit_in_order() -> None:
    database, responses = Database(), list[Any]()
    for text in "ab":
        database.write(text, responses)
    database.clock.advance(0)
    for text in "cdef":
        database.write(text, responses)
    assert responses == []
    database.finish()
    assert responses == ["A", "B"]
    database.finish()
    database.finish()
    assert database.committed == [["a", "b"], ["c", "d", "e"], ["f"]]
    assert responses == ["A", "B", "C", "D", "E", "F"]
    assert [changes.operations for changes in database.published] == [2, 3, 1]


def test_failing_write_does_not_fail_its_batch() -> None:
    database, responses = Database(), list[Any]()
    for text in ("a", "bad", "c"):
        database.write(text, responses)
    database.clock.advance(0)
    for _ in range(4):
        database.finish()
    assert database.committed == [["a"], ["c"]]
    assert values(responses) == ["A", "ValueError('bad')", "C"]


@pytest.mark.parametrize("texts", [("a", "bad"), ("bad", "a")])
def test_failing_write_does_not_fail_the_only_other_one(texts: tuple[str, str]) -> None:
    database, responses = Database(), dict[str, list[Any]]()
    for text in texts:
        database.write(text, responses.setdefault(text, []))
    database.clock.advance(0)
    for _ in range(3):
        database.finish()
    assert database.committed == [["a"]]
    assert responses["a"] == ["A"]
    assert values(responses["bad"]) == ["ValueError('bad')"]
    # After that, writes share a transaction again.
    for text in ("c", "d"):
        database.write(text, [])
    database.clock.advance(0)
    database.finish()
    assert database.committed == [["a"], ["c", "d"]]


def test_long_queue_is_written_in_halves_of_at_least_a_minimum_and_at_most_a_maximum() -> None:
    database, responses = Database(max_batch=4 * MIN_BATCH), list[Any]()
    for _ in range(10 * MIN_BATCH):
        database.write("a", responses)
    database.clock.advance(0)
    while database.running:
        database.finish()
    sizes = [len(written) / MIN_BATCH for written in database.committed]
    assert sizes == [4, 3, 1.5, 1, 0.5]
    assert len(responses) == 10 * MIN_BATCH


def test_connection_error_fails_the_whole_batch() -> None:
    database, responses = Database(), list[Any]()
    for text in "abcd":
        database.write(text, responses)
    database.clock.advance(0)
    database.finish(Locked("locked"))
    assert values(responses) == ["Locked('locked')"] * 3
    database.finish()
    assert responses[-1] == "D"


def test_cancelled_write_does_not_stop_its_batch() -> None:
    database, responses = Database(), list[Any]()
    database.write("a", responses).cancel()
    database.write("b", responses)
    database.clock.advance(0)
    database.finish()
    assert database.committed == [["a", "b"]]
    assert values(responses) == ["CancelledError()", "B"]


def test_idle_waits_for_queued_writes() -> None:
    database, responses, idle = Database(), list[Any](), list[Any]()
    database.commits.idle().addCallback(lambda _: idle.append("before"))
    database.write("a", responses)
    database.commits.idle().addCallback(lambda _: idle.append("after"))
    assert idle == ["before"]
    database.clock.advance(0)
    database.commits.idle().addCallback(lambda _: idle.append("during"))
    assert idle == ["before"], "a transaction is in flight"
    database.finish()
    assert idle == ["before", "after", "during"]


def test_store_is_unhealthy_from_a_batch_error_until_a_commit() -> None:
    database, responses = Database(), list[Any]()
    assert not database.commits.failing
    for text, error, failing in (
        ("a", None, False),
        ("bad", None, False),
        ("b", Locked(), True),
        ("bad", None, True),
        ("c", None, False),
    ):
        database.write(text, responses)
        database.clock.advance(0)
        database.finish(error)
        assert database.commits.failing is failing


def test_error_of_all_fails_queued_writes_that_have_waited_for_long() -> None:
    database, responses = Database(), list[Any]()
    database.write("a", responses)
    database.clock.advance(0)
    database.write("old", responses)
    database.clock.advance(MAX_AGE_SECONDS)
    database.write("young", responses)
    database.finish(Locked())
    assert values(responses) == ["Locked()", "Locked()"]
    database.finish()
    assert values(responses)[2:] == ["YOUNG"]


def test_slow_error_of_one_write_fails_old_writes_of_its_transaction() -> None:
    database, responses = Database(), list[Any]()
    for text in "ab":
        database.write(text, responses)
    database.clock.advance(0)
    database.write("c", responses)
    database.clock.advance(MAX_AGE_SINGLY_SECONDS - 1)
    database.finish(StoreUnavailable("slow"))
    assert responses == []
    database.write("d", responses)
    database.clock.advance(1)
    database.finish(StoreUnavailable("slow"))
    assert values(responses) == ["StoreUnavailable('slow')"] * 3
    # The rest is written together again.
    database.write("e", responses)
    database.finish()
    database.finish()
    assert values(responses)[3:] == ["D", "E"]
    assert database.committed == [["d"], ["e"]]
    assert not database.commits.failing


def test_error_outside_of_the_queue_counts_until_a_write_succeeds() -> None:
    database, responses = Database(), list[Any]()
    database.commits.mark_failing()
    assert database.commits.failing
    database.write("a", responses)
    database.clock.advance(0)
    database.finish()
    assert not database.commits.failing


def parallel(*texts: str) -> tuple[Database, list[Any]]:
    """Return a database with the first write in flight and the others queued for long enough."""
    database, responses = Database(max_parallel=2), list[Any]()
    database.write(texts[0], responses)
    database.clock.advance(0)
    for text in texts[1:]:
        database.write(text, responses)
    assert len(database.running) == 1
    database.clock.advance(PARALLEL_AFTER_SECONDS)
    return database, responses


def test_second_transaction_begins_while_a_long_one_is_in_flight() -> None:
    database, responses = parallel("a", "b", "c")
    assert len(database.running) == 2
    database.finish(number=1)
    assert responses == ["B", "C"]
    database.write("d", responses)
    database.finish()
    assert responses == ["B", "C", "A"]
    database.finish()
    assert responses == ["B", "C", "A", "D"]
    assert database.commits.idle().called
    assert database.clock.getDelayedCalls() == []


def test_writes_beyond_a_full_transaction_begin_another_one_soon() -> None:
    database, responses = Database(max_parallel=2), list[Any]()
    for text in "abcd":
        database.write(text, responses)
    database.clock.advance(0)
    assert [len(operations) for operations, _ in database.running] == [3]
    database.clock.advance(PARALLEL_AFTER_SECONDS)
    assert [len(operations) for operations, _ in database.running] == [3, 1]


def test_no_more_transactions_than_allowed_are_in_flight() -> None:
    database, responses = parallel("a", "b")
    database.write("c", responses)
    database.clock.advance(1)
    assert len(database.running) == 2


def test_writes_of_one_key_are_never_in_flight_together() -> None:
    database, responses = parallel("a1", "b", "a2", "c")
    assert len(database.running) == 2
    database.finish(number=1)
    # The write of the same key waits, and those behind it do.
    assert responses == ["B"]
    assert len(database.running) == 1
    database.finish()
    database.finish()
    assert responses == ["B", "A1", "A2", "C"]


def test_write_without_keys_runs_alone() -> None:
    database, responses = parallel("a", "B", "c")
    assert len(database.running) == 1
    database.finish()
    database.clock.advance(1)
    # The rest of the queue fails with it, because no other transaction is in flight.
    assert len(database.running) == 1
    database.write("d", responses)
    database.clock.advance(1)
    assert len(database.running) == 1
    database.finish()
    database.finish()
    assert responses == ["A", "B", "C", "D"]


def test_failed_transactions_are_repeated_singly_after_those_in_flight() -> None:
    database, responses = parallel("a", "b", "bad")
    database.write("c", responses)
    database.finish(number=1)
    assert len(database.running) == 1
    assert responses == []
    for _ in range(4):
        database.finish()
    assert values(responses) == ["A", "B", "ValueError('bad')", "C"]
    assert database.committed == [["a"], ["b"], ["c"]]


def test_rest_of_an_unfinished_operation_runs_next() -> None:
    database, responses = Database(), list[Any]()
    for text in ("a?", "b"):
        database.write(text, responses)
    database.clock.advance(0)
    database.write("c", responses)
    database.finish()
    assert responses == ["B"]
    assert database.published[0].operations == 1
    database.finish()
    assert responses == ["B", "A?", "C"]
    assert database.committed == [["a?", "b"], ["rest", "c"]]


def test_transaction_that_finishes_nothing_publishes_nothing() -> None:
    database, responses = Database(), list[Any]()
    database.write("a?", responses)
    database.clock.advance(0)
    database.finish()
    assert (responses, database.published) == ([], [])
    database.finish()
    assert responses == ["A?"]
    assert len(database.published) == 1
