"""The changes of a commit, and the feed that publishes them to subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field
from twisted.logger import Logger

from ..core.task import Transition
from ..core.times import MINUTE, Key

log = Logger(namespace="callme")


@define(kw_only=True)
class TaskTransition:
    """Transition of one task that the commit has stored.

    :ivar attempts_used: as in :class:`callme.core.task.Task`, including the recorded attempt.
    """

    key: Key
    transition: Transition
    attempts_used: int = 0


@define(kw_only=True)
class Changes:
    """Changes that one transaction makes.

    :ivar keys: existing tasks that were changed or deleted, except those of ``transitions`` and
        those that a purge deletes, which ended days ago.
    :ivar names: task names of which any task may have been changed or deleted.
    :ivar due_hosts: each ``host:port`` with newly scheduled tasks, and when the first of them is
        due: seconds since 1970.
    :ivar due_soon: each ``host:port`` with a task that is newly scheduled for a second within a
        minute, and that second since 1970.
    :ivar changed_hosts: hosts whose settings may have changed; ``*`` stands for all hosts.
    :ivar transitions: the ends of attempts and of tasks.
    :ivar lost: transitions that were not stored because their claim was no longer valid.
    :ivar operations: the number of operations in the transaction; 0 for a heartbeat.
    """

    keys: list[Key] = field(factory=list)
    names: list[str] = field(factory=list)
    due_hosts: dict[str, int] = field(factory=dict)
    due_soon: set[tuple[str, int]] = field(factory=set)
    changed_hosts: set[str] = field(factory=set)
    transitions: list[TaskTransition] = field(factory=list)
    lost: list[TaskTransition] = field(factory=list)
    operations: int = 0

    def add_due(self, host: str, due_at: int) -> None:
        """Record that a task of a host is newly scheduled."""
        if due_at % MINUTE:
            self.due_soon.add((host, due_at))
        known = self.due_hosts.get(host)
        if known is None or due_at < known:
            self.due_hosts[host] = due_at

    def changed(self) -> Iterator[Key]:
        """Yield the key of each changed task, perhaps more than once."""
        yield from self.keys
        for transition in self.transitions:
            yield transition.key


@define(eq=False)
class ChangeFeed:
    """Publisher of committed changes: once for each transaction, on the reactor's thread."""

    _subscribers: list[Callable[[Changes], None]] = field(factory=list, init=False)

    def subscribe(self, subscriber: Callable[[Changes], None]) -> None:
        """Call a function with the changes of every commit from now on; it must return at once."""
        self._subscribers.append(subscriber)

    def publish(self, changes: Changes) -> None:
        """Pass changes to every subscriber. An error of one of them is logged."""
        for subscriber in self._subscribers:
            try:
                subscriber(changes)
            except Exception:
                log.failure("a subscriber of the change feed failed")
