"""The audit log: one line for each change that a client makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from ..core.task import Definition
from ..core.times import Key, quoted_key, rfc3339
from ..core.transitions import PutOutcome
from ..errors import quoted
from ..process.log_limit import LogLimit
from ..server.auth import Author

log = Logger(namespace="callme")
_VERBS = {PutOutcome.CREATED: "created", PutOutcome.REPLACED: "replaced"}


def _log_omitted(count: int, kind: tuple[str, str]) -> None:
    name, verb = kind
    log.info("{by} {verb} {count} more tasks in that second", by=name, verb=verb, count=count)


@define(eq=False)
class AuditLog:
    """Log of changes, with the client, the request and the tasks of each change.

    If a client changes many tasks within a second, only the first ones have lines, and another line
    counts the rest.

    :param now: returns the wall-clock time: seconds since 1970.
    """

    _now: Callable[[], float]
    _limit: LogLimit[tuple[str, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limit = LogLimit(self._now, _log_omitted)

    def put(self, by: Author, definition: Definition, outcome: PutOutcome) -> None:
        """Log a put, unless it changed nothing."""
        verb = _VERBS.get(outcome)
        if verb is not None and self._limit.has_line((by.name, verb)):
            self._log(by, verb, quoted_key(definition.key))

    def rescheduled(self, by: Author, old: Key, new: Key) -> None:
        """Log that a task was moved to another minute."""
        if self._limit.has_line((by.name, "rescheduled")):
            self._log(by, "rescheduled", f"{quoted_key(old)} to {new.trigger_at}")

    def deleted(self, by: Author, target: Key | str, count: int) -> None:
        """Log the deletion of a task, or of all tasks of a name."""
        if isinstance(target, Key):
            self._log(by, "deleted", quoted_key(target))
        elif count:
            self._log(by, "deleted", f"{count:,} tasks named {quoted(target)}")

    def rescheduled_all(self, by: Author, filters: str, count: int) -> None:
        """Log that tasks which match filters were moved to other minutes."""
        if count:
            self._log(by, "rescheduled", f"{count:,} tasks that match {filters}")

    def deleted_all(self, by: Author, filters: str, count: int) -> None:
        """Log the deletion of tasks that match filters."""
        if count:
            self._log(by, "deleted", f"{count:,} tasks that match {filters}")

    def acknowledged(self, by: Author, until_ms: int) -> None:
        """Log that failures up to a time were acknowledged.

        :param until_ms: milliseconds since 1970.
        """
        self._log(by, "acknowledged", f"the failures until {rfc3339(until_ms)}")

    def host_set(self, by: Author, host: str, settings: Mapping[str, Any]) -> None:
        """Log the new settings of a host, as in a response."""
        given = [
            f"{name}={value}" for name, value in settings.items() if value not in (None, False)
        ]
        text = " ".join(given) or "the defaults"
        self._log(by, "set", f"the host {quoted(host)} to {text}")

    def flush(self) -> None:
        """Log the number of changes without a line."""
        self._limit.flush()

    @staticmethod
    def _log(by: Author, verb: str, task: str) -> None:
        log.info(
            "{by} {verb} {task}, request {request_id}",
            by=by.name,
            verb=verb,
            task=task,
            request_id=by.request_id,
        )
