"""Moving and deleting tasks, whoever asks for it: a client of the API, or a person on a page."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from ..core.errors import FieldError
from ..core.task import Reason
from ..core.trigger import Key
from ..problem import Problem
from ..scheduler import Scheduler
from ..store.port import Deleted, Rescheduled, Store
from .put import whoever_waits


@define(eq=False)
class Changes:
    """What can be done to tasks that are there; what cannot be done raises :exc:`Problem`.

    :param now: the wall clock: seconds since 1970.
    """

    _store: Store
    _scheduler: Scheduler
    _now: Callable[[], float]

    async def reschedule(
        self, target: Key | str, trigger_at: int, *, every_state: bool
    ) -> Rescheduled:
        """Move one task, or those of a name, to another minute; what is due then is called."""
        now = self._now()
        if isinstance(target, Key):
            moving = self._store.reschedule(target, trigger_at, now, every_state=every_state)
        else:
            moving = self._store.reschedule_name(target, trigger_at, now, every_state=every_state)
        result = await whoever_waits(moving.addCallback(self._wake))
        if result is None:
            raise Problem(404, f"there is no task {target}")
        if result.conflict is not None:
            raise Problem(409, result.conflict)
        if not result.moved and any(why == Reason.TOO_LATE.value for _, why in result.skipped):
            raise Problem(
                422,
                "no task could run at that time",
                [FieldError("/trigger_at", "is max_delay or more in the past")],
            )
        return result

    async def delete(self, target: Key | str) -> Deleted:
        """Forget one task, or those of a name."""
        if isinstance(target, Key):
            deleting = self._store.delete(target)
        else:
            deleting = self._store.delete_name(target)
        deleted = await whoever_waits(deleting)
        if deleted is None:
            raise Problem(404, f"there is no task {target}")
        if isinstance(target, Key) and deleted.running:
            raise Problem(409, f"{target} is running: it cannot be deleted now")
        return deleted

    def _wake(self, result: Rescheduled | None) -> Rescheduled | None:
        if result is not None and result.moved:
            trigger_at = result.moved[0][1].trigger_at
            if trigger_at <= self._now():
                self._scheduler.wake(result.hosts)
        return result
