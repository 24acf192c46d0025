"""What is not counted but looked up, each time that somebody asks."""

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

Counts = Mapping[tuple[State, Reason | None], int]


@frozen
class Gauges:
    """What there is to tell just now.

    :ivar node: the daemon's name.
    :ivar concurrency: how many calls may be under way.
    :ivar figures: what the database says; ``None`` where it cannot be asked.
    :ivar counts: tasks by state and reason; ``None`` while nobody has counted them.
    :ivar as_of: when they were counted, seconds since 1970.
    """

    node: str
    concurrency: int
    health: Health
    figures: StoreStats | None
    counts: Counts | None
    as_of: float


class ReadingsCollector(Collector):
    """Tells Prometheus what was read.

    :param read: returns the readings; ``None`` before there are any.
    """

    def __init__(self, read: Callable[[], Gauges | None]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        # So that the registry need not collect in order to know the names.
        return []

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        if now is None:
            return
        yield InfoMetricFamily("callme", "This daemon.", {"version": __version__, "node": now.node})
        yield _gauge("callme_calls_in_flight", "Calls under way.", now.health.calls_in_flight)
        yield _gauge("callme_max_concurrent_calls", "Calls that may be under way.", now.concurrency)
        if now.health.last_tick is not None:
            yield _gauge(
                "callme_last_tick_timestamp_seconds",
                "When this daemon last looked for what is due.",
                now.health.last_tick,
            )
        yield _gauge(
            "callme_database_up",
            "Whether the database answered just now.",
            now.figures is not None,
        )
        if now.figures is not None:
            yield from _of_database(now.figures)
        if now.counts is not None:
            yield from _of_counts(now.counts, now.as_of)


def _of_database(figures: StoreStats) -> Iterable[Metric]:
    yield _gauge(
        "callme_backlog_tasks",
        "Tasks due and not yet claimed; beyond 10,000 they are not counted.",
        figures.backlog,
    )
    yield _gauge(
        "callme_oldest_due_seconds",
        "How long the longest due of them has been due; 0 without any.",
        figures.oldest_due,
    )
    yield _gauge("callme_database_bytes", "Bytes that the tasks take.", figures.size)


def _of_counts(counts: Counts, as_of: float) -> Iterable[Metric]:
    tasks = GaugeMetricFamily(
        "callme_tasks",
        "Tasks that there are; counted when last asked for, a minute or more ago.",
        labels=["state", "reason"],
    )
    for (state, reason), count in counts.items():
        tasks.add_metric([state.value, "" if reason is None else reason.value], count)
    yield tasks
    yield _gauge("callme_tasks_counted_timestamp_seconds", "When they were counted.", as_of)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
