"""The record of refused requests: counts by reason, and summaries in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

log = Logger(namespace="callme")

LOG_SECONDS = 5.0
"""Minimum interval between two log lines, in seconds."""
MAX_SOURCES = 1000
"""Maximum number of distinct pairs of reason and peer between two log lines."""
LISTED_SOURCES = 5
"""Number of pairs in a log line."""
LOCAL_PEER = "a local socket"
_OTHERS = "other peers"


class Refusal(Enum):
    """Reason for refusing a request before any other work."""

    TOKEN_MISSING = "token_missing"  # noqa: S105
    TOKEN_WRONG = "token_wrong"  # noqa: S105
    READ_ONLY = "read_only"
    PREFIX = "prefix"
    LOGIN_WRONG = "login_wrong"
    LOGIN_TOO_OFTEN = "login_too_often"
    CROSS_ORIGIN = "cross_origin"
    HOST = "host"
    OVERLOAD = "overload"


def mark_refused(request: IRequest, reason: Refusal) -> None:
    """Mark a request as refused, so that it is counted when its response is written."""
    cast(Any, request).refusal = reason


def peer_name(address: object) -> str:
    """Return the address of a client for the log: its IP address, if it has one."""
    return getattr(address, "host", None) or LOCAL_PEER


@define(eq=False)
class Refusals:
    """Record of refused requests, with bounded memory.

    :param clock: schedules the log lines.
    :param count: called with the reason of each refusal, for the metrics.
    """

    _clock: IReactorTime
    _count: Callable[[Refusal], None] = field(default=lambda _: None)
    _sources: Counter[tuple[Refusal, str]] = field(factory=Counter, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def record(self, reason: Refusal, peer: str) -> None:
        """Count a refused request; the log line follows within :data:`LOG_SECONDS`.

        :param peer: the address of the client.
        """
        self._count(reason)
        source = (reason, peer)
        if source not in self._sources and len(self._sources) >= MAX_SOURCES:
            source = (reason, _OTHERS)
        self._sources[source] += 1
        if self._timer is None:
            self._timer = self._clock.callLater(LOG_SECONDS, self.flush)

    def flush(self) -> None:
        """Log the refusals since the last log line, if any."""
        if self._timer is None:
            return
        if self._timer.active():
            self._timer.cancel()
        self._timer = None
        listed = self._sources.most_common(LISTED_SOURCES)
        text = ", ".join(f"{n:,} {reason.value} from {peer}" for (reason, peer), n in listed)
        if rest := self._sources.total() - sum(number for _, number in listed):
            text += f", {rest:,} more"
        log.warn("requests refused: {text}", text=text)
        self._sources.clear()
