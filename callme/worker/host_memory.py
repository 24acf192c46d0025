"""The memory of hosts' responses, by which claims prefer hosts that respond."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto

from attrs import define, field, frozen

MAX_TRACKED_HOSTS = 10_000
"""Maximum number of hosts in memory."""
PROMPT_SECONDS = 2.0
"""Age in seconds of the oldest call in flight from which a host counts as not responding."""


FAILURES_IN_A_ROW = 10
"""Number of consecutive failed attempts from which a host counts as failing."""


class Trust(Enum):
    """Trust in a host to respond to the next call."""

    UNRESPONSIVE = auto()
    """The last call got no response, or a call has been in flight for long."""
    UNKNOWN = auto()
    """No call has ended yet."""
    KNOWN = auto()
    """The host responded to the last call."""


@define(kw_only=True)
class HostResults:
    """Results of a host's latest calls since the start of the daemon.

    :ivar last_success_at: seconds since 1970, as is ``last_failure_at``.
    :ivar failures: the number of failures since the last success.
    """

    last_success_at: float | None = None
    last_failure_at: float | None = None
    failures: int = 0


@define(eq=False)
class _OpenCalls:
    """Calls in flight to one host.

    :ivar responses: the number of responses since no call was in flight, plus the earlier ones if
        they were prompt.
    :ivar begun: the start of each call, and the number of responses before it, the oldest first.
    """

    responses: int = 0
    begun: dict[Hashable, tuple[float, int]] = field(factory=dict)

    def oldest(self) -> tuple[float, int]:
        """Return the start of the oldest call, and the number of responses since."""
        began_at, responses_before = next(iter(self.begun.values()))
        return began_at, self.responses - responses_before


@frozen(kw_only=True)
class _Last:
    """Latest calls to a host.

    :ivar responded: whether the host responded to the last call.
    :ivar responses: the number of responses since no call was in flight.
    :ivar ended_at: the end of the last call: seconds of the monotonic clock.
    """

    responded: bool
    responses: int
    ended_at: float


@define(eq=False)
class HostMemory:
    """Memory of the hosts' responses.

    :ivar results: the results by host, the least recently called first; at most
        :data:`MAX_TRACKED_HOSTS`.
    """

    results: dict[str, HostResults] = field(factory=dict, init=False)

    # The least recently called host comes first.
    _last: dict[str, _Last] = field(factory=dict, init=False)
    _open: dict[str, _OpenCalls] = field(factory=dict, init=False)

    def begin_call(self, host: str, call: Hashable, now: float) -> None:
        """Record the start of a call.

        :param call: identifies the call among those in flight.
        :param now: the monotonic clock, in seconds.
        """
        calls = self._open.get(host)
        if calls is None:
            self._open[host] = _OpenCalls(self.responses(host, now), {call: (now, 0)})
        else:
            calls.begun[call] = now, calls.responses

    def end_call(self, host: str, call: Hashable, now: float, *, responded: bool) -> None:
        """Record the end of a call, and whether the host has responded.

        :param now: the monotonic clock, in seconds.
        """
        calls = self._open[host]
        del calls.begun[call]
        calls.responses += responded
        if not calls.begun:
            del self._open[host]
        self._last.pop(host, None)
        self._last[host] = _Last(responded=responded, responses=calls.responses, ended_at=now)
        if len(self._last) > MAX_TRACKED_HOSTS:
            del self._last[next(iter(self._last))]

    def withdraw_call(self, host: str, call: Hashable) -> None:
        """Forget a call that was not made: it says nothing about its host."""
        calls = self._open[host]
        del calls.begun[call]
        if not calls.begun:
            del self._open[host]

    def record_result(self, host: str, *, succeeded: bool, at: float) -> None:
        """Record whether an attempt has succeeded.

        :param at: the end of the attempt: seconds since 1970.
        """
        results = self.results.pop(host, HostResults())
        self.results[host] = results
        if succeeded:
            results.last_success_at, results.failures = at, 0
        else:
            results.last_failure_at, results.failures = at, results.failures + 1
        if len(self.results) > MAX_TRACKED_HOSTS:
            del self.results[next(iter(self.results))]

    def failing(self) -> int:
        """Return the number of hosts whose last :data:`FAILURES_IN_A_ROW` attempts have failed."""
        return sum(one.failures >= FAILURES_IN_A_ROW for one in self.results.values())

    def trust(self, host: str, now: float) -> Trust:
        """Return the trust in a host, considering its calls in flight."""
        last = self._last.get(host)
        calls = self._open.get(host)
        if calls is not None and now - calls.oldest()[0] >= PROMPT_SECONDS:
            return Trust.UNRESPONSIVE
        if last is None:
            return Trust.UNKNOWN
        return Trust.KNOWN if last.responded else Trust.UNRESPONSIVE

    def responses(self, host: str, now: float) -> int:
        """Return the number of responses of a host since its oldest call in flight began.

        While no call is in flight, the responses to the last calls count for a short time:
        otherwise a host whose calls all end at the same time would start from zero each time.
        """
        calls = self._open.get(host)
        if calls is not None:
            return calls.oldest()[1]
        last = self._last.get(host)
        return last.responses if last and now - last.ended_at < PROMPT_SECONDS else 0

    def newcomers(self) -> int:
        """Return the number of hosts with calls in flight none of whose calls has ended yet."""
        return sum(host not in self._last for host in self._open)
