"""What would happen and what will: dry runs of puts, and the forecast."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from attrs import define, field, frozen

from ..core.callback_url import host_of
from ..core.representation import task_summary, task_to_dict
from ..core.task import Definition, Task, new_task
from ..core.times import Key, rfc3339, to_ms
from ..core.transitions import PutCondition, PutOutcome, decide_put
from ..reports import forecast
from ..reports.forecast import Forecast, Overload
from ..store.interface import PutPreview, PutResult
from ..worker.throughput import Capacity
from .responses import JSON
from .task_service import put_problem

MOST_IN_BATCH = 10
"""How many attempts are told of each task of a batch."""
_WOULD = {
    PutOutcome.CREATED: (201, "create"),
    PutOutcome.REPLACED: (200, "replace"),
    PutOutcome.UNCHANGED: (200, "keep"),
}


@frozen
class PutForecast:
    """What a put would come to.

    :ivar result: what it would have found and done.
    :ivar calls: how many calls its minute would have, its own among them.
    :ivar calls_to_host: ... of them to its host.
    """

    result: PutResult
    calls: int
    calls_to_host: int


@define(eq=False)
class DryRun:
    """Puts that are answered and not done, each as if those before it had been done.

    :param capacity: how fast calls can be made.
    :param now: the server's time.
    """

    _capacity: Capacity
    _now: float
    _made: dict[Key, Task] = field(factory=dict, init=False)
    # Calls that those before would have added, by minute and by minute and host.
    _added: Counter[tuple[int | None, str | None]] = field(factory=Counter, init=False)

    def put(
        self,
        definition: Definition,
        preview: PutPreview,
        condition: PutCondition = PutCondition.NONE,
    ) -> PutForecast:
        """Return what a put would do, and the calls that would be due with its task's."""
        existing = self._made.get(definition.key, preview.existing)
        outcome = decide_put(existing, definition, condition, self._now)
        task = existing
        if outcome in (PutOutcome.CREATED, PutOutcome.REPLACED):
            attempts = existing.attempts if existing is not None else ()
            task = new_task(definition, self._now, attempts)
        # All that has begun is due together.
        minute = None if definition.trigger_at <= self._now else definition.trigger_at
        host = host_of(definition.callback)
        if outcome is PutOutcome.CREATED and task is not None:
            self._made[definition.key] = task
            self._added.update([(minute, None), (minute, host)])
        own = outcome is PutOutcome.REPLACED
        return PutForecast(
            PutResult(outcome, task),
            preview.calls + self._added[minute, None] + own,
            preview.calls_to_host + self._added[minute, host] + own,
        )

    def answer(self, definition: Definition, foreseen: PutForecast) -> JSON:
        """Return the answer to a dry run of one put that would not be refused."""
        task = foreseen.result.task
        assert task is not None
        return self._members(definition, foreseen, task_to_dict(task), None)

    def answer_in_batch(self, definition: Definition, foreseen: PutForecast) -> JSON:
        """Return the answer to one of many, which may be a problem."""
        problem = put_problem(definition, foreseen.result)
        if problem is not None:
            return problem.to_dict()
        task = foreseen.result.task
        assert task is not None
        return self._members(definition, foreseen, task_summary(task), MOST_IN_BATCH)

    def _members(
        self, definition: Definition, foreseen: PutForecast, task: JSON, most: int | None
    ) -> JSON:
        status, would = _WOULD[foreseen.result.outcome]
        members: JSON = {"dry_run": True, "status": status, "would": would, "task": task}
        if foreseen.result.outcome is PutOutcome.UNCHANGED:
            return members
        host = host_of(definition.callback)
        late = forecast.lateness(
            self._capacity, definition, self._now, foreseen.calls, foreseen.calls_to_host
        )
        attempts = forecast.attempts_at(definition, self._now, most)
        return members | {
            "attempts_at": [rfc3339(at * 1000) for at in attempts],
            "expires_at": rfc3339(definition.expires_at * 1000),
            "calls_in_minute": foreseen.calls,
            "calls_to_host": foreseen.calls_to_host,
            "lateness_ms": round(late * 1000),
            "rate": rate(self._capacity),
            "host_rate": rate(self._capacity, host),
        }


def forecast_to_dict(ahead: Forecast) -> JSON:
    """Return what is ahead: calls by minute, minutes that are too overloaded."""
    return {
        "as_of": rfc3339(to_ms(ahead.as_of)),
        "from": rfc3339(ahead.begin * 1000),
        "until": rfc3339(ahead.until * 1000),
        "calls": sum(ahead.minutes.values()),
        "rate": rate(ahead.capacity),
        "minutes": [
            {"minute": rfc3339(minute * 1000), "calls": calls}
            for minute, calls in ahead.minutes.items()
        ],
        "overloaded": [
            {
                "host": host,
                "rate": rate(ahead.capacity, host),
                "minutes": list(map(_overloads, those)),
            }
            for host, those in groupby(ahead.overloads, key=lambda one: one.load.host)
        ],
        "complete": ahead.complete,
    }


def _overloads(one: Overload) -> JSON:
    load = one.load
    return {
        "minute": rfc3339(load.minute * 1000),
        "calls": load.calls,
        "lateness_ms": round((one.last_start_at - load.minute) * 1000),
        "too_late": one.too_late,
    }


def rate(capacity: Capacity, host: str | None = None) -> JSON:
    """Return how many calls end in a second, in all or of a host, and whether that was seen."""
    return {
        "calls_per_second": round(capacity.calls_per_second(host), 3),
        "measured": capacity.is_measured(host),
    }
