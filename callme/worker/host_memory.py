"""The memory of how hosts respond: claims prefer hosts that respond to those that may hang."""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum

from attrs import define, field

MAX_TRACKED_HOSTS = 10_000
"""Maximum number of hosts whose last call is remembered."""
PROMPT_SECONDS = 2.0
"""Age of its oldest call in flight from which on a host does not count as responding."""


FAILURES_IN_A_ROW = 10
"""Number of failed attempts in a row from which on a host counts as failing."""


class Trust(IntEnum):
    """The trust in a host's next responses."""

    UNRESPONSIVE = 0
    """Its last call had no response, or a call has been in flight for long."""
    UNKNOWN = 1
    """None of its calls has ended."""
    KNOWN = 2
    """It responded to its last call."""
    RESPONSIVE = 3
    """It has responded since its oldest call in flight began, often enough for their number."""


@define(kw_only=True)
class HostResults:
    """The results of a host's latest calls, since the daemon has started.

    :ivar last_success_at: seconds since 1970, as is ``last_failure_at``.
    :ivar failures: the number of failures since the last success.
    """

    last_success_at: float | None = None
    last_failure_at: float | None = None
    failures: int = 0


@define(eq=False)
class _OpenCalls:
    """The calls to one host that are in flight.

    :ivar responses: the number of responses since none was in flight.
    :ivar begun: when each call began, and the number of responses before it; the oldest first.
    """

    responses: int = 0
    begun: dict[Hashable, tuple[float, int]] = field(factory=dict)

    def oldest(self) -> tuple[float, int]:
        """Return when the oldest call began, and the number of responses since."""
        began_at, responses_before = next(iter(self.begun.values()))
        return began_at, self.responses - responses_before


@define(eq=False)
class HostMemory:
    """The hosts that are called, and how they have responded.

    :ivar results: the results of each host, the one called longest ago first; at most
        :data:`MAX_TRACKED_HOSTS`.
    """

    results: dict[str, HostResults] = field(factory=dict, init=False)

    # For each host, whether it responded to its last call; least recently called hosts first.
    _responded: dict[str, bool] = field(factory=dict, init=False)
    _open: dict[str, _OpenCalls] = field(factory=dict, init=False)

    def begin_call(self, host: str, call: Hashable, now: float) -> None:
        """Remember a call that begins.

        :param call: identifies it among the calls in flight.
        :param now: the monotonic clock, in seconds.
        """
        calls = self._open.get(host)
        if calls is None:
            calls = self._open[host] = _OpenCalls()
        calls.begun[call] = now, calls.responses

    def end_call(self, host: str, call: Hashable, *, responded: bool) -> None:
        """Remember whether a host has responded to a call."""
        calls = self._open[host]
        del calls.begun[call]
        calls.responses += responded
        if not calls.begun:
            del self._open[host]
        self._responded.pop(host, None)
        self._responded[host] = responded
        if len(self._responded) > MAX_TRACKED_HOSTS:
            del self._responded[next(iter(self._responded))]

    def record_result(self, host: str, *, succeeded: bool, at: float) -> None:
        """Remember whether an attempt has succeeded.

        :param at: the wall clock, seconds since 1970.
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
        """Return the trust in a host, with regard to its calls in flight."""
        responded = self._responded.get(host)
        calls = self._open.get(host)
        if calls is not None:
            began_at, responses = calls.oldest()
            if responded is False or now - began_at >= PROMPT_SECONDS:
                return Trust.UNRESPONSIVE
            # The responses count against the calls in flight: a host that responds to one call
            # and then hangs must not get more.
            if responses * 2 >= len(calls.begun):
                return Trust.RESPONSIVE
        if responded is None:
            return Trust.UNKNOWN
        return Trust.KNOWN if responded else Trust.UNRESPONSIVE

    def newcomers(self) -> int:
        """Return the number of hosts with calls in flight of which none has ended yet."""
        return sum(host not in self._responded for host in self._open)
