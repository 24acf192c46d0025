"""The gauges: the state of the daemon and its database at the time of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from .. import __version__
from ..core.task import Reason, State
from ..store.interface import StoreStats
from ..worker.scheduler import Health


@frozen
class TaskCounts:
    """Number of tasks by state and reason.

    :ivar as_of: the time of the count: seconds since 1970.
    """

    counts: Mapping[tuple[State, Reason | None], int]
    as_of: float


@frozen(kw_only=True)
class Gauges:
    """Values of the gauges at the time of a scrape.

    :ivar node: the daemon's name.
    :ivar concurrency: the maximum number of calls in flight.
    :ivar longest_turn: the longest turn of the reactor in seconds; ``None`` if unknown.
    :ivar stats: statistics of the database; ``None`` while it cannot be queried.
    :ivar tasks: the counts of all tasks; ``None`` before the first count.
    """

    node: str
    concurrency: int
    longest_turn: float | None
    health: Health
    stats: StoreStats | None
    tasks: TaskCounts | None


class GaugeCollector(Collector):
    """Collector of the gauges.

    :param read: returns the gauges; ``None`` before the first scrape.
    """

    def __init__(self, read: Callable[[], Gauges | None]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        # Without this method, the registry would collect all values to learn their names.
        return []

    def collect(self) -> Iterable[Metric]:
        gauges = self._read()
        if gauges is None:
            return
        health = gauges.health
        labels = {"version": __version__, "node": gauges.node}
        yield InfoMetricFamily("callme", "Version and name of this daemon.", labels)
        yield _gauge("callme_calls_in_flight", "Calls that are in flight.", health.calls_in_flight)
        yield _gauge(
            "callme_max_concurrent_calls",
            "The largest number of calls in flight (--concurrency).",
            gauges.concurrency,
        )
        yield _gauge(
            "callme_saturated_seconds",
            "Time for which calls have found no free slot; 0 if none wait.",
            health.saturated_seconds,
        )
        if gauges.longest_turn is not None:
            yield _gauge(
                "callme_reactor_longest_turn_seconds",
                "Processor time of the longest turn of the reactor in the last one to two minutes.",
                gauges.longest_turn,
            )
        yield _gauge(
            "callme_paused_hosts",
            "Hosts that are paused by settings of their own.",
            health.paused_hosts,
        )
        yield _gauge("callme_all_paused", "1 if all hosts are paused, else 0.", health.all_paused)
        yield _gauge(
            "callme_failing_hosts",
            "Hosts to which the last 10 attempts of this daemon have all failed.",
            health.failing_hosts,
        )
        yield _gauge(
            "callme_damaged_rows",
            "Rows of the database that another program has damaged.",
            health.damaged_rows,
        )
        if health.last_tick is not None:
            yield _gauge(
                "callme_last_tick_timestamp_seconds",
                "Time at which this daemon last queried for due tasks.",
                health.last_tick,
            )
        yield _gauge(
            "callme_database_up",
            "1 if the database responded to the last query, else 0.",
            gauges.stats is not None,
        )
        if gauges.stats is not None:
            yield from _store_gauges(gauges.stats)
        if gauges.tasks is not None:
            yield from _task_gauges(gauges.tasks)


def _store_gauges(stats: StoreStats) -> Iterable[Metric]:
    yield _gauge(
        "callme_backlog_tasks",
        "Due tasks that are not claimed yet, counted up to 10,000.",
        stats.backlog,
    )
    yield _gauge(
        "callme_oldest_due_seconds",
        "Time since the oldest task in the backlog became due; 0 if the backlog is empty.",
        stats.oldest_due,
    )
    yield _gauge("callme_database_bytes", "Size of tasks, attempts and their indexes.", stats.size)


def _task_gauges(tasks: TaskCounts) -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "callme_tasks",
        "Tasks in the database, counted once a minute or less often.",
        labels=["state", "reason"],
    )
    for (state, reason), count in tasks.counts.items():
        family.add_metric([state.value, "" if reason is None else reason.value], count)
    yield family
    yield _gauge(
        "callme_tasks_counted_timestamp_seconds",
        "Time at which callme_tasks was counted.",
        tasks.as_of,
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)
