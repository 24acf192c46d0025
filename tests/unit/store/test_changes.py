"""The changes of a commit: when the first of its tasks is due, and which tasks they are."""

from __future__ import annotations

from callme.core.task import State, Transition
from callme.core.times import Key
from callme.store.changes import Changes, TaskTransition
from tests.helpers.tasks import NOON

HOST, OTHER = "sink.example:80", "other.example:80"


def test_host_is_due_with_the_first_of_its_tasks() -> None:
    changes = Changes()
    for host, due_at in ((HOST, NOON + 60), (HOST, NOON), (HOST, NOON + 120), (OTHER, NOON + 60)):
        changes.add_due(host, due_at)
    assert changes.due_hosts == {HOST: NOON, OTHER: NOON + 60}
    assert changes.due_soon == set()


def test_task_that_is_due_between_two_minutes_is_due_soon() -> None:
    changes = Changes()
    for due_at in (NOON, NOON + 1, NOON + 59, NOON + 60):
        changes.add_due(HOST, due_at)
    assert changes.due_soon == {(HOST, NOON + 1), (HOST, NOON + 59)}


def test_changed_tasks_are_those_with_a_key_or_a_transition() -> None:
    changes = Changes(keys=[Key("a", NOON)])
    transition = Transition(state=State.SCHEDULED, due_at=NOON)
    changes.transitions.append(TaskTransition(key=Key("b", NOON), transition=transition))
    assert list(changes.changed()) == [Key("a", NOON), Key("b", NOON)]
    assert changes.transitions[0].attempts_used == 0
    assert (changes.changed_hosts, changes.operations) == (set(), 0)
