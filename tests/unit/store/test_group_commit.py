from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from callme.store.changes import Changes
from callme.store.group_commit import MAX_AGE_SECONDS, MAX_AGE_SINGLY_SECONDS, GroupCommit
from callme.store.interface import StoreUnavailable

Operation = Callable[[list[str]], Any]


class Locked(Exception):
    """An error of the whole batch."""


class Database:
    """Transactions that end when the test decides; a connection is the list of its writes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.committed: list[list[str]] = []
        self.published: list[Changes] = []
        self.running: list[tuple[Sequence[Operation], Deferred[tuple[list[Any], Changes]]]] = []
        self.commits: GroupCommit[Operation] = GroupCommit(
            clock=self.clock,
            transact=self.transact,
            fails_all=lambda failure: failure.check(Locked) is not None,
            publish=self.published.append,
            max_batch=3,
        )

    def transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        done: Deferred[tuple[list[Any], Changes]] = Deferred()
        self.running.append((operations, done))
        return done

    def finish(self, error: Exception | None = None) -> None:
        """End the current transaction."""
        operations, done = self.running.pop()
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
        def operation(connection: list[str]) -> str:
            if text.startswith("bad"):
                raise ValueError(text)
            connection.append(text)
            return text.upper()

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
    database.finish()
    assert idle == ["before", "after"]


def test_store_is_unhealthy_from_a_batch_error_until_a_commit() -> None:
    database, responses = Database(), list[Any]()
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


def test_slow_error_of_one_fails_what_would_wait_for_too_long_singly() -> None:
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
