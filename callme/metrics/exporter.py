"""The page that Prometheus reads: what is counted, and what is looked up for it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..server.negotiation import wants_openmetrics
from ..store.interface import Store, StoreStats, StoreUnavailable
from ..worker.scheduler import Health
from .gauges import Counts, Gauges, ReadingsCollector

log = Logger(namespace="callme")

TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
ASK_SECONDS = 2.0
"""How long the database may take; what it does not say then is left out."""
COUNT_SECONDS = 60.0
"""How old the count of all tasks may be before they are counted again."""
COUNT_SHARE = 50
"""How many times as long as a count took there is none after it."""


class MetricsExporter:
    """Writes the page, and asks the database for what it needs.

    All tasks are counted while nobody waits for it, a million of them in 40 ms to some tenths of
    a second: the page tells the last count.

    :param registry: whose counts are on the page too.
    :param health: how the scheduler is.
    :param clock: what measures how long things take.
    :param now: the wall clock: seconds since 1970.
    :param node: gives the daemon's name.
    :param concurrency: how many calls may be under way.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        store: Store,
        health: Callable[[], Health],
        clock: IReactorTime,
        now: Callable[[], float],
        node: Callable[[], str],
        concurrency: int,
    ) -> None:
        self._registry = registry
        self._store = store
        self._health = health
        self._clock = clock
        self._now = now
        self._node = node
        self._concurrency = concurrency
        self._readings: Gauges | None = None
        self._counts: Counts | None = None
        self._as_of = 0.0
        self._counting = False
        self._count_after = clock.seconds()
        registry.register(ReadingsCollector(lambda: self._readings))
        ProcessCollector(registry=registry)

    async def write(self, accept: bytes | None) -> tuple[bytes, bytes]:
        """Return the page and its content type.

        :param accept: the ``Accept`` header of the request.
        """
        self._count()
        figures = await self._ask()
        self._readings = Gauges(
            self._node(),
            self._concurrency,
            self._health(),
            figures,
            self._counts,
            self._as_of,
        )
        if wants_openmetrics(accept):
            return generate_openmetrics(self._registry), OPENMETRICS_TYPE
        return generate_latest(self._registry), TEXT_TYPE

    async def _ask(self) -> StoreStats | None:
        asking = self._store.figures(self._now())
        asking.addTimeout(ASK_SECONDS, self._clock)
        try:
            return await asking
        except (StoreUnavailable, defer.TimeoutError):
            return None

    def _count(self) -> None:
        """Count all tasks again, if the last count is old; returns at once."""
        began = self._clock.seconds()
        if self._counting or began < self._count_after:
            return
        self._counting = True

        def counted(figures: StoreStats) -> None:
            self._counts, self._as_of = figures.tasks, self._now()

        def failed(failure: Failure) -> None:
            # What the tasks were then is not what they are.
            self._counts = None
            if not failure.check(StoreUnavailable):
                log.failure("the tasks could not be counted", failure)

        def ended(_: None) -> None:
            self._counting = False
            ended_at = self._clock.seconds()
            self._count_after = ended_at + max(COUNT_SECONDS, COUNT_SHARE * (ended_at - began))

        counting: Deferred[StoreStats] = self._store.figures(self._now(), count=True)
        counting.addCallbacks(counted, failed).addCallback(ended)
