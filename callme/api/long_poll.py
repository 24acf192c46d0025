"""Clients that wait for a task to change: woken by what happens to it, not by looking again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.task import State, Task
from ..core.times import Key
from ..errors import quoted
from ..store import tasks
from ..store.changes import Changes
from ..store.database import Store
from ..store.interface import StoreUnavailable, TaskVersion

log = Logger(namespace="callme")

READ_BATCH = 250
"""Tasks that are read in one transaction: the answers of so many are in memory at once."""
ANSWERS_PER_TURN = 50
"""Answers that are given before others have a turn: some ten milliseconds of work."""
BETWEEN_SECONDS = 1.0
"""How often is looked for what other daemons changed, and for what could not be looked at."""
_ENDED = (State.SUCCEEDED, State.FAILED)


class TooManyWaiters(Exception):
    """As many wait as may."""


@define(eq=False)
class _Waiter:
    """One client that waits.

    :ivar seen: what it knows of the task; ``None`` before it knows anything.
    :ivar stirred: whether the task may have changed before that.
    :ivar over: whether it is to be answered whatever the task is.
    """

    key: Key
    answered: Deferred[Task | None] = field(factory=Deferred)
    seen: TaskVersion | None = None
    stirred: bool = False
    over: bool = False


@define(eq=False)
class LongPoll:
    """Clients that wait for a task to change, and the change feed's subscriber for them.

    Where this daemon alone changes tasks, nothing is read but what has changed. Where there are
    others, all tasks waited for are compared every second, for as long as anybody waits.

    :param store: where tasks are looked at.
    :param clock: what sets timers.
    :param others: whether other daemons change tasks too.
    :param most: how many may wait.
    :ivar count: the number of clients that wait.
    """

    _store: Store
    _clock: IReactorTime
    _others: bool = False
    _most: int = 750
    count: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    # By name, then by minute. Dictionaries for their order.
    _watches: dict[str, dict[Key, dict[_Waiter, None]]] = field(factory=dict, init=False)
    # What may have changed, and is to be looked at.
    _stirred: dict[Key, None] = field(factory=dict, init=False)
    _looking: bool = field(default=False, init=False)
    _again: IDelayedCall | None = field(default=None, init=False)
    _comparing: LoopingCall | None = field(default=None, init=False)

    async def wait(self, key: Key, seconds: float) -> Task | None:
        """Return a task when it changes or after some seconds; at once if it has ended.

        :return: ``None`` where there is none, or none any more.
        :raises StoreUnavailable: when the database cannot be read in the end.
        :raises TooManyWait: when as many wait as may.
        """
        if self.count >= self._most:
            raise TooManyWaiters
        watch = self._enter(key)
        ending: IDelayedCall | None = None
        try:
            task = await self._store.read(tasks.get, key)
            if task is None or task.state in _ENDED or self._closed:
                return task
            watch.seen = TaskVersion.of(task)
            # Not kept for as long as somebody waits.
            del task
            if watch.stirred:
                self._stir([key])
            ending = self._clock.callLater(seconds, self._end, watch)
            return await watch.answered
        finally:
            if ending is not None and ending.active():
                ending.cancel()
            self._leave(watch)

    def _enter(self, key: Key) -> _Waiter:
        watch = _Waiter(key)
        self._watches.setdefault(key.task_name, {}).setdefault(key, {})[watch] = None
        self.count += 1
        if self._others and self._comparing is None:
            self._comparing = LoopingCall(self._compare)
            self._comparing.clock = self._clock
            self._comparing.start(BETWEEN_SECONDS, now=False)
        return watch

    def _leave(self, watch: _Waiter) -> None:
        self.count -= 1
        of_name = self._watches[watch.key.task_name]
        del of_name[watch.key][watch]
        if not of_name[watch.key]:
            del of_name[watch.key]
            self._stirred.pop(watch.key, None)
        if not of_name:
            del self._watches[watch.key.task_name]
        if not self.count:
            if self._comparing is not None:
                self._comparing.stop()
                self._comparing = None
            if self._again is not None and self._again.active():
                self._again.cancel()

    def _of(self, key: Key) -> Iterable[_Waiter]:
        return list(self._watches.get(key.task_name, {}).get(key, ()))

    def _keys(self) -> list[Key]:
        return [key for of_name in self._watches.values() for key in of_name]

    def on_changes(self, changes: Changes) -> None:
        """Read the tasks again that a commit has changed and that clients wait for."""
        if not self.count:
            return
        self._stir(key for key in changes.keys if key in self._watches.get(key.task_name, ()))
        for task_name in changes.names:
            self._stir(list(self._watches.get(task_name, ())))

    def _compare(self) -> None:
        self._stir(self._keys())

    def _end(self, watch: _Waiter) -> None:
        watch.over = True
        self._stir([watch.key])

    def close(self) -> None:
        """Answer everybody with what is now, and let nobody wait any more."""
        self._closed = True
        for key in self._keys():
            for watch in self._of(key):
                watch.over = True
        self._stir(self._keys())

    def _stir(self, keys: Iterable[Key]) -> None:
        """Look at these tasks soon: many together, where much happens at once."""
        self._stirred.update(dict.fromkeys(keys))
        if self._stirred and not self._looking:
            self._looking = True
            self._clock.callLater(0, self._look)

    def _look(self) -> None:
        looking = Deferred.fromCoroutine(self._look_at_all())
        looking.addErrback(lambda failure: log.failure("looking at tasks failed", failure))

    async def _look_at_all(self) -> None:
        try:
            while self._stirred:
                seen: dict[Key, TaskVersion | None] = {}
                for key in self._stirred:
                    self._ask(key, seen)
                self._stirred.clear()
                if seen:
                    await self._look_at(seen)
        finally:
            self._looking = False

    def _ask(self, key: Key, seen: dict[Key, TaskVersion | None]) -> None:
        """Note what those who wait for a task know of it; ``None`` where not all know the same."""
        known = []
        for watch in self._of(key):
            if watch.seen is None:
                watch.stirred = True
            else:
                known.append(None if watch.over else watch.seen)
        if known:
            seen[key] = known[0] if len(set(known)) == 1 else None

    async def _look_at(self, seen: Mapping[Key, TaskVersion | None]) -> None:
        try:
            found = await self._store.read(tasks.get_if_modified, seen, READ_BATCH)
        except Exception:
            self._could_not_look(seen, Failure())
            return
        if len(found) >= READ_BATCH:
            self._stirred.update(dict.fromkeys(key for key in seen if key not in found))
        answered = 0
        for key, task in found.items():
            now = None if task is None else TaskVersion.of(task)
            for watch in self._of(key):
                if watch.seen is not None and (watch.over or watch.seen != now):
                    _answer(watch, task)
                    answered += 1
                    if answered % ANSWERS_PER_TURN == 0:
                        await deferLater(self._clock, 0)

    def _could_not_look(self, keys: Iterable[Key], failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            error = quoted(str(failure.value), 300)
            log.error("looking at tasks failed: {error}; trying again soon", error=error)
        else:
            log.failure("looking at tasks failed; trying again soon", failure)
        for key in keys:
            for watch in self._of(key):
                if watch.over:
                    _answer(watch, failure)
        left = [key for key in keys if self._of(key)]
        if left and (self._again is None or not self._again.active()):
            # All of them: what else could not be looked at meanwhile is among them.
            self._again = self._clock.callLater(BETWEEN_SECONDS, self._compare)


def _answer(watch: _Waiter, answer: Task | Failure | None) -> None:
    if not watch.answered.called:
        if isinstance(answer, Failure):
            watch.answered.errback(answer)
        else:
            watch.answered.callback(answer)
