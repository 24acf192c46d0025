"""Dry runs of puts, and the JSON of the forecast."""

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
from ..store import stats
from ..store.database import Store
from ..store.interface import PutPreview, PutResult
from ..worker.throughput import Capacity
from .responses import JSON
from .task_service import put_problem

MAX_ATTEMPTS_IN_BATCH = 10
"""Maximum number of attempts in the result of a task in a batch."""
_WOULD = {
    PutOutcome.CREATED: (201, "create"),
    PutOutcome.REPLACED: (200, "replace"),
    PutOutcome.UNCHANGED: (200, "keep"),
}


@frozen(kw_only=True)
class PutForecast:
    """Effect of a put, and the load of its minute.

    :ivar result: the result that the put would have.
    :ivar calls: the number of calls due in the minute, including that of the task.
    :ivar calls_to_host: the number of these calls to the host of the task.
    """

    result: PutResult
    calls: int
    calls_to_host: int


@define(eq=False)
class DryRun:
    """Preview of consecutive puts, each as if the earlier ones had been made.

    :param capacity: the throughput of calls.
    :param now: the server's time: seconds since 1970.
    """

    _capacity: Capacity
    _now: float
    _created: dict[Key, Task] = field(factory=dict, init=False)
    # The number of calls added by earlier puts, by (minute, None) and by (minute, host).
    _added: Counter[tuple[int | None, str | None]] = field(factory=Counter, init=False)

    def put(
        self,
        definition: Definition,
        preview: PutPreview,
        condition: PutCondition = PutCondition.NONE,
    ) -> PutForecast:
        """Return the effect that a put would have, and the load of its minute.

        :param preview: the state of the store that is relevant for the put.
        """
        existing = self._created.get(definition.key, preview.existing)
        outcome = decide_put(existing, definition, condition, self._now)
        task = existing
        if outcome in (PutOutcome.CREATED, PutOutcome.REPLACED):
            task = new_task(definition, self._now, existing)
        # All tasks whose minute has begun are due together, under the key None.
        minute = None if definition.trigger_at <= self._now else definition.trigger_at
        host = host_of(definition.callback)
        if outcome is PutOutcome.CREATED and task is not None:
            self._created[definition.key] = task
            self._added.update([(minute, None), (minute, host)])
        own = outcome is PutOutcome.REPLACED
        return PutForecast(
            result=PutResult(outcome, task),
            calls=preview.calls + self._added[minute, None] + own,
            calls_to_host=preview.calls_to_host + self._added[minute, host] + own,
        )

    async def preview(
        self,
        store: Store,
        definition: Definition,
        condition: PutCondition = PutCondition.NONE,
    ) -> PutForecast:
        """Return the effect that a put would have, and the load of its minute.

        :raises Problem: when the put would be refused.
        """
        (preview,) = await store.read(stats.preview_put, [definition], self._now)
        forecast = self.put(definition, preview, condition)
        problem = put_problem(definition, forecast.result, self._now)
        if problem is not None:
            raise problem
        return forecast

    def response(self, definition: Definition, put: PutForecast) -> JSON:
        """Return the response to the dry run of one put, which is not refused."""
        task = put.result.task
        assert task is not None
        return self._to_dict(definition, put, task_to_dict(task), None)

    def batch_result(self, definition: Definition, put: PutForecast) -> JSON:
        """Return the result of one task of a batch, which may be a problem."""
        problem = put_problem(definition, put.result, self._now)
        if problem is not None:
            return problem.to_dict()
        task = put.result.task
        assert task is not None
        return self._to_dict(definition, put, task_summary(task), MAX_ATTEMPTS_IN_BATCH)

    def _to_dict(
        self, definition: Definition, put: PutForecast, task: JSON, max_attempts: int | None
    ) -> JSON:
        status, would = _WOULD[put.result.outcome]
        members: JSON = {"dry_run": True, "status": status, "would": would, "task": task}
        if put.result.outcome is PutOutcome.UNCHANGED:
            return members
        host = host_of(definition.callback)
        late = forecast.lateness(
            self._capacity, definition, self._now, put.calls, put.calls_to_host
        )
        attempts = forecast.attempts_at(definition, self._now, max_attempts)
        return members | {
            "attempts_at": [rfc3339(at * 1000) for at in attempts],
            "expires_at": rfc3339(definition.expires_at * 1000),
            "calls_in_minute": put.calls,
            "calls_to_host": put.calls_to_host,
            "lateness_ms": round(late * 1000),
            "rate": rate(self._capacity),
            "host_rate": rate(self._capacity, host),
        }


def forecast_to_dict(result: Forecast) -> JSON:
    """Return a forecast as JSON: calls by minute, and overloaded minutes by host.

    The long lists in it are iterators.
    """
    return {
        "as_of": rfc3339(to_ms(result.as_of)),
        "from": rfc3339(result.begin * 1000),
        "until": rfc3339(result.until * 1000),
        "calls": sum(result.minutes.values()),
        "rate": rate(result.capacity),
        "minutes": (
            {"minute": rfc3339(minute * 1000), "calls": calls}
            for minute, calls in result.minutes.items()
        ),
        "overloaded": (
            {
                "host": host,
                "rate": rate(result.capacity, host),
                "minutes": list(map(_overload_to_dict, overloads)),
            }
            for host, overloads in groupby(
                result.overloads, key=lambda overload: overload.load.host
            )
        ),
        "complete": result.complete,
    }


def _overload_to_dict(overload: Overload) -> JSON:
    load = overload.load
    return {
        "minute": rfc3339(load.minute * 1000),
        "calls": load.calls,
        "lateness_ms": round((overload.last_start_at - load.minute) * 1000),
        "too_late": overload.too_late,
    }


def rate(capacity: Capacity, host: str | None = None) -> JSON:
    """Return the throughput as JSON, in total or for one host."""
    return {
        "calls_per_second": round(capacity.calls_per_second(host), 3),
        "measured": capacity.is_measured(host),
    }
