"""Metrics, parsed from ``/metrics`` with Prometheus's own parser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, succeed

from callme import __version__
from callme.core.task import Claim, Outcome, Reason, State
from callme.metrics.exporter import OPENMETRICS_TYPE, TEXT_TYPE
from callme.store import stats
from callme.worker.host_memory import FAILURES_IN_A_ROW
from tests.helpers.logs import LoggedFailures
from tests.helpers.scraping import samples, scrape, ticking, value
from tests.helpers.tasks import NOON
from tests.helpers.world import World

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


# Counters


def test_attempt_is_counted_with_lateness_and_duration(world: World) -> None:
    world.put()
    ticking(world)
    found = samples(world)
    assert value(found, "callme_attempts_total", outcome="succeeded") == 1
    assert value(found, "callme_tasks_finished_total", state="succeeded", reason="") == 1
    assert value(found, "callme_attempt_lateness_seconds_count") == 1
    assert value(found, "callme_attempt_lateness_seconds_bucket", le="0.005") == 1
    assert value(found, "callme_attempt_duration_seconds_sum") == 0.005
    assert value(found, "callme_attempt_duration_seconds_bucket", le="0.005") == 1


def test_counters_start_at_zero(world: World) -> None:
    found = samples(world)
    for reason in Reason:
        finished = value(found, "callme_tasks_finished_total", state="failed", reason=reason.value)
        assert finished == 0
        assert value(found, "callme_attempts_total", outcome=reason.value) == 0
    assert value(found, "callme_claims_lost_total") == 0


def test_expiry_while_connecting_counts_as_an_attempt(world: World) -> None:
    def connecting(claim: Claim) -> Deferred[Outcome]:
        return succeed(
            Outcome(
                started_at_ms=NOON * 1000,
                duration_ms=5,
                status=None,
                reason=Reason.TOO_LATE,
                detail="max_delay passed",
            )
        )

    world.caller.failing = connecting
    key = world.put(retry=0).key
    found = samples(ticking(world))
    assert world.task(key).state is State.FAILED
    assert value(found, "callme_attempts_total", outcome="too_late") == 1


def test_retry_is_counted_without_lateness(world: World) -> None:
    world.caller.status = 500
    key = world.put(retry=1).key
    ticking(world)
    found = samples(world)
    assert value(found, "callme_attempts_total", outcome="unexpected_status") == 1
    failed = {"state": "failed", "reason": "unexpected_status"}
    assert value(found, "callme_tasks_finished_total", **failed) == 0
    world.turn_to(NOON + 120)
    assert world.task(key).state is State.FAILED
    found = samples(world)
    assert value(found, "callme_attempts_total", outcome="unexpected_status") == 2
    assert value(found, "callme_attempt_duration_seconds_count") == 2
    assert value(found, "callme_attempt_lateness_seconds_count") == 1
    assert value(found, "callme_tasks_finished_total", **failed) == 1


def test_expired_task_is_counted_without_an_attempt(world: World) -> None:
    world.put(at=NOON - 600, max_delay=1)
    ticking(world)
    found = samples(world)
    too_late = {"state": "failed", "reason": "too_late"}
    assert value(found, "callme_tasks_finished_total", **too_late) == 1
    assert value(found, "callme_attempt_duration_seconds_count") == 0
    assert value(found, "callme_tasks", **too_late) == 1


def test_orphan_is_counted_as_interrupted_without_duration(world: World) -> None:
    world.caller.status = None
    world.put(retry=0)
    ticking(world)
    assert value(samples(world), "callme_calls_in_flight") == 1
    world.restart()
    found = samples(world)
    assert value(found, "callme_attempts_total", outcome="interrupted") == 1
    interrupted = {"state": "failed", "reason": "interrupted"}
    assert value(found, "callme_tasks_finished_total", **interrupted) == 1
    assert value(found, "callme_attempt_duration_seconds_count") == 0
    assert value(found, "callme_attempt_lateness_seconds_count") == 0


def test_lost_claim_is_counted(world: World) -> None:
    world.caller.status = None
    key = world.put().key
    ticking(world)
    # Another daemon rescued it after its lease.
    world.store.connection.execute("UPDATE task SET last_attempt = last_attempt + 1")
    world.caller.end(key, 200)
    found = samples(world)
    assert value(found, "callme_claims_lost_total") == 1
    assert value(found, "callme_tasks_finished_total", state="succeeded", reason="") == 0


# Gauges


def test_gauges_describe_daemon_and_database(world: World) -> None:
    world.put(at=NOON - 120)
    world.put("soon", at=NOON + 60)
    found = samples(world)
    assert value(found, "callme_info", version=__version__, node="node") == 1
    assert value(found, "callme_max_concurrent_calls") == 256
    assert value(found, "callme_last_tick_timestamp_seconds") is None
    assert value(found, "callme_backlog_tasks") == 1
    assert value(found, "callme_oldest_due_seconds") == 120
    assert (value(found, "callme_database_bytes") or 0) > 8192
    assert value(found, "callme_database_up") == 1
    assert value(found, "callme_tasks", state="scheduled", reason="") == 2
    assert value(found, "callme_tasks_counted_timestamp_seconds") == NOON
    assert (value(found, "process_resident_memory_bytes") or 0) > 1_000_000
    ticking(world)
    found = samples(world)
    assert value(found, "callme_last_tick_timestamp_seconds") == NOON
    assert value(found, "callme_backlog_tasks") == 0
    assert value(found, "callme_oldest_due_seconds") == 0


def test_hosts_whose_latest_attempts_all_failed_are_counted(world: World) -> None:
    world.caller.status = 500
    world.scheduler.start()
    for number in range(FAILURES_IN_A_ROW):
        world.put(f"other{number}", callback="http://other.example/", retry=0)
        world.put(f"task{number}", retry=0)
        assert value(samples(world), "callme_failing_hosts") == 0
        world.notify_due("sink.example:80", "other.example:80")
        world.turn_to(world.now() + 1)
    assert value(samples(world), "callme_failing_hosts") == 2
    world.caller.status = 200
    world.put("good", retry=0)
    world.notify_due("sink.example:80")
    world.turn_to(world.now() + 1)
    assert value(samples(world), "callme_failing_hosts") == 1


def test_task_count_is_cached_for_a_minute(world: World) -> None:
    def scheduled() -> float | None:
        return value(samples(world), "callme_tasks", state="scheduled", reason="")

    assert scheduled() == 0
    world.put(at=NOON + 3600)
    world.clock.advance(59)
    assert scheduled() == 0
    world.clock.advance(1)
    # This scrape has the new count, or the next one if the count is slow.
    assert scheduled() == 1


def test_corrupt_rows_are_counted_by_their_recorded_reason(world: World) -> None:
    world.put("late", NOON - 600, max_delay=1)
    world.put("due", NOON)
    world.store.connection.execute("UPDATE task SET headers = '{'")
    world.scheduler.start()
    found = samples(world)
    recorded = {"state": "failed", "reason": "connection_failed"}
    assert value(found, "callme_tasks_finished_total", **recorded) == 2
    assert value(found, "callme_tasks", **recorded) == 2
    too_late = {"state": "failed", "reason": "too_late"}
    assert value(found, "callme_tasks_finished_total", **too_late) == 0


class SlowStore:
    """A store that returns its stats when the test decides."""

    def __init__(self, world: World) -> None:
        self.counting: list[Deferred[Any]] = []
        self.asking: list[Deferred[Any]] = []
        world.store.overrides[stats.store_stats] = self._store_stats

    def _store_stats(self, now: float, *, count: bool = False) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        (self.counting if count else self.asking).append(waiting)
        return waiting


def test_slow_task_count_is_not_awaited_and_becomes_rarer(world: World) -> None:
    slow = SlowStore(world)
    world.put(at=NOON + 3600)
    figures = world.result(world.store.query(stats.store_stats, NOON, count=True))

    def written() -> str:
        writing = Deferred.fromCoroutine(world.parts.metrics.write(None))
        slow.asking.pop().callback(figures)
        return world.result(writing)[0].decode()

    assert "callme_tasks{" not in written()
    world.clock.advance(10)
    assert "callme_tasks{" not in written()
    (counting,) = slow.counting
    slow.counting.clear()
    counting.callback(figures)
    assert 'callme_tasks{reason="",state="scheduled"} 1.0' in written()
    world.clock.advance(499)
    written()
    assert slow.counting == []
    world.clock.advance(1)
    written()
    assert len(slow.counting) == 1


def test_unavailable_database_leaves_the_other_metrics(world: World) -> None:
    samples(world)
    world.store.is_broken = True
    world.clock.advance(60)
    found = samples(world)
    assert value(found, "callme_database_up") == 0
    assert value(found, "callme_attempts_total", outcome="succeeded") == 0
    for name in ("callme_backlog_tasks", "callme_oldest_due_seconds", "callme_database_bytes"):
        assert value(found, name) is None
    assert value(found, "callme_tasks", state="scheduled", reason="") is None
    world.store.is_broken = False
    world.clock.advance(60)
    found = samples(world)
    assert value(found, "callme_database_up") == 1
    assert value(found, "callme_tasks", state="scheduled", reason="") == 0


def test_slow_database_delays_the_scrape_by_two_seconds_at_most(world: World) -> None:
    SlowStore(world)
    writing = Deferred.fromCoroutine(world.parts.metrics.write(None))
    world.clock.advance(1.9)
    assert not writing.called
    world.clock.advance(0.1)
    assert b"callme_database_up 0.0" in world.result(writing)[0]


def test_error_in_the_task_count_is_logged_and_retried(
    world: World, logged_failures: LoggedFailures
) -> None:
    world.store.connection.execute("DROP INDEX task_reason")
    found = samples(world)
    assert value(found, "callme_backlog_tasks") == 0
    assert value(found, "callme_tasks", state="scheduled", reason="") is None
    assert len(logged_failures.failures) == 1
    logged_failures.failures.clear()
    world.store.connection.execute("CREATE INDEX task_reason ON task (reason) WHERE state='failed'")
    world.clock.advance(60)
    assert value(samples(world), "callme_tasks", state="scheduled", reason="") == 0


# Format


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "text/plain", "text/html, application/openmetrics-text;q=0", "x;version=\xff"],
)
def test_text_format_is_the_default(world: World, accept: str | None) -> None:
    text, kind = scrape(world, accept)
    assert kind.encode() == TEXT_TYPE
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"callme", "callme_attempts", "callme_tasks", "process_open_fds"} - {"callme"} <= names


@pytest.mark.parametrize(
    "accept",
    [PROMETHEUS, "application/openmetrics-text", "Application/OpenMetrics-Text; version=zzz"],
)
def test_accept_header_selects_openmetrics(world: World, accept: str) -> None:
    world.put()
    ticking(world)
    text, kind = scrape(world, accept)
    assert kind.encode() == OPENMETRICS_TYPE
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in openmetrics(text)}
    assert families["callme_attempts"].type == "counter"
    assert families["callme_attempt_lateness_seconds"].type == "histogram"


def test_metric_names_follow_the_conventions(world: World) -> None:
    """The rules of https://prometheus.io/docs/practices/naming/ that a program can check."""
    for family in openmetrics(scrape(world, PROMETHEUS)[0]):
        assert re.fullmatch(r"(callme|process)(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|milliseconds|minutes|count|total)$", family.name)


def test_metrics_contain_no_data_of_tasks(world: World) -> None:
    """The metrics contain no task, no host and no content of either."""
    world.put("secret-name", callback="http://secret.example/", payload="secret")
    ticking(world)
    assert "secret" not in scrape(world)[0]


def test_each_daemon_counts_its_own_attempts(world: World) -> None:
    world.put()
    ticking(world)
    other = World()
    assert value(samples(other), "callme_attempts_total", outcome="succeeded") == 0
    assert value(samples(world), "callme_attempts_total", outcome="succeeded") == 1
    other.close()
