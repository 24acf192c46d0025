"""The Prometheus exporter, which renders the counters and gauges of this daemon."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..reports.single_flight import SingleFlight
from ..server.negotiation import wants_openmetrics
from ..store.database import Store
from ..store.interface import StoreStats, StoreUnavailable
from ..store.stats import store_stats
from ..worker.scheduler import Health
from .gauges import GaugeCollector, Gauges, TaskCounts

log = Logger(namespace="callme")

TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
QUERY_TIMEOUT_SECONDS = 2.0
"""Time limit of a database query in seconds; metrics whose query exceeds it are omitted."""
COUNT_TTL_SECONDS = 60.0
"""Minimum time in seconds for which the counts of all tasks stay fresh."""
COUNT_COST_FACTOR = 50
"""Multiple of their query's duration for which the counts of all tasks stay fresh."""


@define(eq=False, kw_only=True)
class MetricsExporter:
    """Exporter of the metrics, some of which it queries from the database.

    Counting a million tasks takes from 40 ms to several tenths of a second. No scrape waits for it:
    a scrape returns the last counts, and starts a new query if they are no longer fresh.

    :param registry: the registry of the counters.
    :param health: returns the state of the scheduler.
    :param clock: the monotonic clock.
    :param now: returns the wall-clock time: seconds since 1970.
    :param node: returns the daemon's name.
    :param concurrency: the maximum number of calls in flight.
    :param longest_turn: returns the longest turn of the reactor in seconds, if known.
    """

    _registry: CollectorRegistry
    _store: Store
    _health: Callable[[], Health]
    _clock: IReactorTime
    _now: Callable[[], float]
    _node: Callable[[], str]
    _concurrency: int
    _longest_turn: Callable[[], float | None]
    _gauges: Gauges | None = field(default=None, init=False)
    _counts: SingleFlight[TaskCounts | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = SingleFlight(
            fetch=self._count_tasks,
            ttl=lambda cost: max(COUNT_TTL_SECONDS, COUNT_COST_FACTOR * cost),
            clock=self._clock,
        )
        self._registry.register(GaugeCollector(lambda: self._gauges))
        ProcessCollector(registry=self._registry)

    async def write(self, accept: bytes | None) -> tuple[bytes, bytes]:
        """Return the metrics and their content type.

        :param accept: the ``Accept`` header of the request.
        """
        self._counts.refresh()
        stats = await self._read_stats()
        self._gauges = Gauges(
            node=self._node(),
            concurrency=self._concurrency,
            longest_turn=self._longest_turn(),
            health=self._health(),
            stats=stats,
            tasks=self._counts.last(),
        )
        if wants_openmetrics(accept):
            return generate_openmetrics(self._registry), OPENMETRICS_TYPE
        return generate_latest(self._registry), TEXT_TYPE

    async def _read_stats(self) -> StoreStats | None:
        reading = self._store.read(store_stats, self._now())
        reading.addTimeout(QUERY_TIMEOUT_SECONDS, self._clock)
        try:
            return await reading
        except (StoreUnavailable, defer.TimeoutError):
            return None

    async def _count_tasks(self) -> TaskCounts | None:
        """Return the counts of all tasks; ``None`` after a failure, to discard old counts."""
        try:
            stats = await self._store.read(store_stats, self._now(), count=True)
        except StoreUnavailable:
            return None
        except Exception:
            log.failure("counting the tasks failed")
            return None
        return TaskCounts(counts=stats.tasks or {}, as_of=self._now())
