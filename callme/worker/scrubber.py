"""The scrubber, which slowly reads the whole database, and counts damaged rows."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..core.times import quoted_key
from ..hosts.operations import damaged_settings
from ..store.database import Store
from ..store.listing.damaged import DamagedTask, find_damaged

log = Logger(namespace="callme")

TASKS_PER_READ = 50
"""Maximum number of tasks that one query examines, in about a millisecond."""
READS_PER_RUN = 20
"""Maximum number of queries after a tick."""
DELAY_SECONDS = 5.0
"""Seconds between a tick, when the calls of the minute start, and the first query."""
PAUSE_SECONDS = 1.0
"""Seconds between two queries."""
MAX_LOGGED = 1_000
"""Maximum number of damaged rows that are logged in one scan of the database."""


@define(eq=False, kw_only=True)
class Scrubber:
    """Scrubber of one daemon.

    A new scan begins when a scan has reached the end.

    :param clock: schedules timers.
    """

    _store: Store
    _clock: IReactorTime
    _after: int = field(default=0, init=False)
    _found: int = field(default=0, init=False)
    _found_before: int = field(default=0, init=False)
    # The rows and hosts that this scan has found, and those that were logged.
    _seen: set[int | str] = field(factory=set, init=False)
    _logged: set[int | str] = field(factory=set, init=False)

    @property
    def damaged_rows(self) -> int:
        """The number of damaged rows that the last complete scan or the current one found."""
        return max(self._found, self._found_before)

    async def run(self) -> None:
        """Continue the scan by up to :data:`READS_PER_RUN` times :data:`TASKS_PER_READ` tasks."""
        await deferLater(self._clock, DELAY_SECONDS)
        for _ in range(READS_PER_RUN):
            examined = await self._store.read(find_damaged, self._after, TASKS_PER_READ)
            for task in examined.damaged:
                self._note_task(task)
            if examined.last_row is None:
                await self._end_scan()
                return
            self._after = examined.last_row
            await deferLater(self._clock, PAUSE_SECONDS)

    async def _end_scan(self) -> None:
        for host in await self._store.read(damaged_settings):
            self._note_setting(host)
        self._found_before, self._found, self._after = self._found, 0, 0
        # A row that was repaired or deleted, and is damaged again, is logged again.
        self._logged &= self._seen
        self._seen.clear()

    def _note_task(self, task: DamagedTask) -> None:
        if self._is_new(task.row):
            log.warn(
                "{task} is damaged: the stored values of {columns} cannot be read; "
                "DELETE /task/{key} deletes it",
                task=quoted_key(task.key),
                columns=", ".join(task.columns),
                key="<key>" if task.key.row_number is None else task.key,
            )

    def _note_setting(self, host: str) -> None:
        if self._is_new(host):
            log.warn(
                "the settings of {host} are damaged: see docs/operations.md, 'Damaged rows'",
                host=repr(host) if host else "a host whose name cannot be read",
            )

    def _is_new(self, row: int | str) -> bool:
        """Count a damaged row; return whether to log it."""
        self._found += 1
        if len(self._seen) >= MAX_LOGGED:
            return False
        self._seen.add(row)
        is_new = row not in self._logged
        self._logged.add(row)
        return is_new
