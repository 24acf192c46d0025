"""Long polling: requests that wait for a task to change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.task import State, Task
from ..core.times import Key
from ..store import tasks
from ..store.changes import Changes
from ..store.database import Store
from ..store.interface import TaskVersion, log_store_failure

log = Logger(namespace="callme")

READ_BATCH = 250
"""Maximum number of tasks that are read in one transaction, and thus in memory at once."""
RESPONSES_PER_TURN = 50
"""Number of small responses after which the reactor runs other work: about ten milliseconds."""
CHARACTERS_PER_TURN = 250_000
"""Number of characters of large responses after which the reactor runs other work."""
_RESPONSE_COST = CHARACTERS_PER_TURN // RESPONSES_PER_TURN
POLL_SECONDS = 1.0
"""Interval in seconds between reads of the changes of other daemons, and before a retry."""
_ENDED = (State.SUCCEEDED, State.FAILED)


class TooManyWaiters(Exception):
    """The maximum number of clients are already waiting."""


@define(eq=False, kw_only=True)
class _Waiter:
    """Client that waits for a task.

    :ivar version: the version of the task that the client knows; ``None`` before the first read.
    :ivar is_stale: whether the task may have changed during the first read.
    :ivar timed_out: whether to resolve ``done`` even if the task is unchanged.
    """

    key: Key
    done: Deferred[Task | None] = field(factory=Deferred)
    version: TaskVersion | None = None
    is_stale: bool = False
    timed_out: bool = False


@define(eq=False, kw_only=True)
class LongPoll:
    """Waiting clients, and the subscriber of the change feed that wakes them.

    A task is read again only when a commit of this daemon has changed it. If other daemons share
    the database, all tasks with waiting clients are also compared once a second.

    :param store: reads the tasks.
    :param clock: schedules timeouts and reads.
    :param is_shared: whether other daemons use the same database.
    :param max_waiters: the maximum number of waiting clients.
    :ivar count: the number of waiting clients.
    """

    _store: Store
    _clock: IReactorTime
    _is_shared: bool = False
    _max_waiters: int = 750
    count: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    # Waiters by name and by key, so that those of a name are found at once; dicts keep their order.
    _waiters: dict[str, dict[Key, dict[_Waiter, None]]] = field(factory=dict, init=False)
    # Tasks that may have changed and will be read.
    _dirty: dict[Key, None] = field(factory=dict, init=False)
    _reading: bool = field(default=False, init=False)
    _retry: IDelayedCall | None = field(default=None, init=False)
    _polling: LoopingCall | None = field(default=None, init=False)

    async def wait(self, key: Key, seconds: float) -> Task | None:
        """Return a task when it changes, or unchanged after some seconds.

        A task that has ended is returned at once.

        :return: ``None`` if the task does not exist, or no longer exists.
        :raises StoreUnavailable: when the last read of the task fails.
        :raises TooManyWaiters: when the maximum number of clients are already waiting.
        """
        if self.count >= self._max_waiters:
            raise TooManyWaiters
        waiter = self._add(key)
        timeout: IDelayedCall | None = None
        try:
            task = await self._store.read(tasks.get, key)
            if task is None or task.state in _ENDED or self._closed:
                return task
            waiter.version = TaskVersion.of(task)
            # While the client waits, only the version is needed, and the task may be large.
            del task
            if waiter.is_stale:
                self._mark_dirty([key])
            timeout = self._clock.callLater(seconds, self._time_out, waiter)
            return await waiter.done
        finally:
            if timeout is not None and timeout.active():
                timeout.cancel()
            self._remove(waiter)

    def _add(self, key: Key) -> _Waiter:
        waiter = _Waiter(key=key)
        self._waiters.setdefault(key.task_name, {}).setdefault(key, {})[waiter] = None
        self.count += 1
        if self._is_shared and self._polling is None:
            self._polling = LoopingCall(self._mark_all_dirty)
            self._polling.clock = self._clock
            self._polling.start(POLL_SECONDS, now=False)
        return waiter

    def _remove(self, waiter: _Waiter) -> None:
        self.count -= 1
        of_name = self._waiters[waiter.key.task_name]
        del of_name[waiter.key][waiter]
        if not of_name[waiter.key]:
            del of_name[waiter.key]
            self._dirty.pop(waiter.key, None)
        if not of_name:
            del self._waiters[waiter.key.task_name]
        if not self.count:
            if self._polling is not None:
                self._polling.stop()
                self._polling = None
            if self._retry is not None and self._retry.active():
                self._retry.cancel()

    def _waiters_for(self, key: Key) -> Iterable[_Waiter]:
        return list(self._waiters.get(key.task_name, {}).get(key, ()))

    def _keys(self) -> list[Key]:
        return [key for of_name in self._waiters.values() for key in of_name]

    def on_changes(self, changes: Changes) -> None:
        """Read again the changed tasks that clients wait for."""
        if not self.count:
            return
        self._mark_dirty(
            key for key in changes.changed() if key in self._waiters.get(key.task_name, ())
        )
        for task_name in changes.names:
            self._mark_dirty(list(self._waiters.get(task_name, ())))

    def _mark_all_dirty(self) -> None:
        self._mark_dirty(self._keys())

    def _time_out(self, waiter: _Waiter) -> None:
        waiter.timed_out = True
        self._mark_dirty([waiter.key])

    def close(self) -> None:
        """Respond to all clients with the current tasks; later calls of ``wait`` return at once."""
        self._closed = True
        for key in self._keys():
            for waiter in self._waiters_for(key):
                waiter.timed_out = True
        self._mark_dirty(self._keys())

    def _mark_dirty(self, keys: Iterable[Key]) -> None:
        """Read tasks in the next turn of the reactor, together with other changed tasks."""
        self._dirty.update(dict.fromkeys(keys))
        if self._dirty and not self._reading:
            self._reading = True
            self._clock.callLater(0, self._start_reading)

    def _start_reading(self) -> None:
        reading = Deferred.fromCoroutine(self._read_dirty())
        reading.addErrback(lambda failure: log.failure("long-poll query failed", failure))

    async def _read_dirty(self) -> None:
        try:
            while self._dirty:
                readers = {key: self._readers_of(key) for key in self._dirty}
                self._dirty.clear()
                if readers := {key: found for key, found in readers.items() if found}:
                    await self._read_for(readers)
        finally:
            self._reading = False

    def _readers_of(self, key: Key) -> list[_Waiter]:
        """Return the waiters of a task that the next read may resolve."""
        readers = []
        for waiter in self._waiters_for(key):
            if waiter.version is None:
                waiter.is_stale = True
            else:
                readers.append(waiter)
        return readers

    async def _read_for(self, readers: Mapping[Key, Sequence[_Waiter]]) -> None:
        """Read tasks, and resolve their waiters.

        Waiters that arrive during the read are excluded: they may know a newer version.
        """
        versions = {key: _common_version(waiters) for key, waiters in readers.items()}
        try:
            found = await self._store.read(tasks.get_if_modified, versions, READ_BATCH)
        except Exception:
            self._read_failed(versions, Failure())
            return
        if len(found) >= READ_BATCH:
            self._dirty.update(dict.fromkeys(key for key in versions if key not in found))
        written = 0
        for key, task in found.items():
            now = None if task is None else TaskVersion.of(task)
            for waiter in readers[key]:
                if waiter.timed_out or waiter.version != now:
                    _resolve(waiter, task)
                    written += _RESPONSE_COST + (0 if task is None else _characters(task))
                    if written >= CHARACTERS_PER_TURN:
                        written = 0
                        await deferLater(self._clock, 0)

    def _read_failed(self, keys: Iterable[Key], failure: Failure) -> None:
        log_store_failure(log, "long-poll query failed", failure, is_retried=True)
        for key in keys:
            for waiter in self._waiters_for(key):
                if waiter.timed_out:
                    _resolve(waiter, failure)
        left = [key for key in keys if self._waiters_for(key)]
        if left and (self._retry is None or not self._retry.active()):
            # The retry reads all tasks, including those whose reads fail until then.
            self._retry = self._clock.callLater(POLL_SECONDS, self._mark_all_dirty)


def _common_version(waiters: Iterable[_Waiter]) -> TaskVersion | None:
    """Return the version of a task that all its waiters know; ``None`` if the versions differ."""
    known = {None if waiter.timed_out else waiter.version for waiter in waiters}
    return known.pop() if len(known) == 1 else None


def _characters(task: Task) -> int:
    """Return the length of the large texts of a task, in characters."""
    bodies = sum(len(attempt.body) + len(attempt.detail) for attempt in task.attempts or ())
    return len(task.definition.payload) + len(task.definition.payload_base64) + bodies


def _resolve(waiter: _Waiter, result: Task | Failure | None) -> None:
    if not waiter.done.called:
        if isinstance(result, Failure):
            waiter.done.errback(result)
        else:
            waiter.done.callback(result)
