"""An operator: pauses hosts, limits the calls to them, and returns them to the defaults."""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import define

from .checker import Checker
from .history import FOREVER, History
from .hosts import HOSTS, HostRule
from .wire import Service


@define(eq=False)
class Operator:
    """The only client that changes settings of hosts, with one request at a time.

    :ivar until: the end of its requests (monotonic).
    """

    random: Random
    service: Service
    checker: Checker
    history: History
    until: float

    def begin(self) -> None:
        """Make the first request after a random time."""
        self.service.timeline.after(self.random.expovariate(1 / 15), None, self._turn)

    def _turn(self) -> None:
        if self.service.timeline.elapsed < self.until:
            host = self.random.choice(HOSTS)
            self._ask(host, self._body(host))

    def _body(self, host: str) -> dict[str, Any] | None:
        if self.random.random() < 0.35:
            return None
        choices: list[dict[str, Any]] = [{"paused": True}, {"paused": False}, {"paused": "+1m"}]
        if host != "*":
            choices += [{"max_per_minute": number} for number in (1, 2, 5)]
            choices += [{"max_concurrent": 1}, {"max_concurrent": None, "max_per_minute": None}]
        return self.random.choice(choices)

    def _ask(self, host: str, body: dict[str, Any] | None) -> None:
        known = self.checker.hosts[host]
        known.may_be_set(self.history.elapsed())

        def answered(status: int, answer: Any) -> None:
            self.history.say(f"settings of {host}: {body} -> {status} {answer}")
            now = self.history.elapsed()
            if status == 204:
                known.is_set(HostRule(), now)
            elif status == 200:
                known.is_set(self._rule(answer), now)
            elif status >= 500 and status != 503:
                self.checker.breaks(f"the settings of {host} were answered {status}")
            self.begin()

        method = "DELETE" if body is None else "PUT"
        self.service.ask(method, f"/hosts/{host}", body, answered)

    def _rule(self, answer: dict[str, Any]) -> HostRule:
        return HostRule(
            paused_until=self._end_of_pause(answer["paused"]),
            max_per_minute=answer["max_per_minute"],
            max_concurrent=answer["max_concurrent"],
        )

    def _end_of_pause(self, paused: bool | str) -> float:
        if isinstance(paused, bool):
            return FOREVER if paused else 0.0
        return self.history.parse(paused)
