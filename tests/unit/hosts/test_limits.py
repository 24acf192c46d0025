from __future__ import annotations

import tracemalloc

from callme.hosts.limits import HostLimits
from callme.hosts.operations import SettingsSnapshot
from callme.hosts.settings import HostSettings
from tests.helpers.tasks import NOON

HOST, OTHER = "sink.example:80", "other.example:80"


class Clocks:
    """The clocks of limits: a monotonic one, and the wall clock, which is ahead of it."""

    seconds = 1000.0

    def limits(self, *settings: HostSettings, daemons: int = 1, rank: int = 0) -> HostLimits:
        made = HostLimits(
            per_host=64, seconds=lambda: self.seconds, now=lambda: NOON + self.seconds - 1000
        )
        made.apply(SettingsSnapshot(settings=settings, daemons=daemons, rank=rank))
        return made


def test_host_without_settings_has_the_limit_of_the_daemon() -> None:
    limits = Clocks().limits(HostSettings(host=OTHER, max_concurrent=1))
    assert (limits.max_in_flight(HOST, 0), limits.max_in_flight(OTHER, 0)) == (64, 1)
    assert Clocks().limits().max_in_flight(HOST, 3) == 64


def test_paused_host_gets_no_call_until_its_pause_ends() -> None:
    clocks = Clocks()
    limits = clocks.limits(HostSettings(host=HOST, paused_at=NOON, paused_until=NOON + 60))
    assert (limits.max_in_flight(HOST, 0), limits.max_in_flight(OTHER, 0)) == (0, 64)
    assert (limits.is_paused(HOST), limits.paused_hosts, limits.all_paused) == (True, 1, False)
    clocks.seconds += 60
    assert limits.max_in_flight(HOST, 0) == 64
    assert (limits.is_paused(HOST), limits.paused_hosts) == (False, 0)


def test_pause_of_all_hosts_holds_for_those_with_settings_too() -> None:
    paused = HostSettings(host="*", paused_at=NOON, paused_until=NOON + 60)
    limits = Clocks().limits(paused, HostSettings(host=HOST, max_concurrent=7))
    assert (limits.max_in_flight(HOST, 0), limits.max_in_flight(OTHER, 0)) == (0, 0)
    assert (limits.all_paused, limits.paused_hosts) == (True, 0)


def test_limits_of_all_hosts_hold_where_a_host_has_none() -> None:
    limits = Clocks().limits(
        HostSettings(host="*", max_concurrent=2), HostSettings(host=HOST, max_concurrent=100)
    )
    assert (limits.max_in_flight(HOST, 0), limits.max_in_flight(OTHER, 0)) == (100, 2)


def test_calls_of_any_minute_do_not_exceed_the_limit() -> None:
    clocks = Clocks()
    limits = clocks.limits(HostSettings(host=HOST, max_per_minute=3))
    for _ in range(2):
        limits.record_start(HOST)
    limits.record_start(OTHER)
    assert limits.max_in_flight(HOST, 0) == 1
    assert limits.max_in_flight(HOST, 2) == 3, "the two in flight are of this minute"
    clocks.seconds += 30
    limits.record_start(HOST)
    assert limits.max_in_flight(HOST, 1) == 1
    clocks.seconds += 30
    assert limits.max_in_flight(HOST, 0) == 2
    clocks.seconds += 30
    assert limits.max_in_flight(HOST, 0) == 3


def test_call_that_was_not_made_does_not_count() -> None:
    limits = Clocks().limits(HostSettings(host=HOST, max_per_minute=3))
    limits.record_start(HOST)
    limits.record_start(HOST)
    limits.withdraw_start(HOST)
    limits.withdraw_start(OTHER)
    assert limits.max_in_flight(HOST, 0) == 2


def test_calls_before_a_limit_was_set_do_not_count() -> None:
    limits = Clocks().limits(HostSettings(host=HOST, max_concurrent=9))
    limits.record_start(HOST)
    limits.apply(SettingsSnapshot(settings=[HostSettings(host=HOST, max_per_minute=3)]))
    assert limits.max_in_flight(HOST, 0) == 3


def test_daemons_of_a_fleet_share_a_limit() -> None:
    settings = (HostSettings(host=HOST, max_concurrent=8, max_per_minute=3),)
    shares = [Clocks().limits(*settings, daemons=3, rank=rank) for rank in range(3)]
    assert [limits.max_in_flight(HOST, 0) for limits in shares] == [1, 1, 1]
    concurrent = (HostSettings(host=HOST, max_concurrent=8),)
    shares = [Clocks().limits(*concurrent, daemons=3, rank=rank) for rank in range(3)]
    assert [limits.max_in_flight(HOST, 0) for limits in shares] == [3, 3, 2]


def test_memory_of_calls_is_bounded_by_those_of_the_last_minute() -> None:
    clocks = Clocks()
    limits = clocks.limits(HostSettings(host="*", max_per_minute=2))

    def call_other_hosts(minute: int) -> int:
        # The host called first is called in each minute.
        limits.record_start(HOST)
        for number in range(200):
            host = f"host-{minute}-{number}.example:80"
            assert limits.max_in_flight(host, 0) == 2
            limits.record_start(host)
            assert limits.max_in_flight(host, 0) == 1
        clocks.seconds += 60
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        bytes_by_minute = [call_other_hosts(minute) for minute in range(10)]
    finally:
        tracemalloc.stop()
    assert bytes_by_minute[-1] < 2 * bytes_by_minute[0]


def test_call_of_the_last_minute_counts_after_calls_to_many_other_hosts() -> None:
    clocks = Clocks()
    limits = clocks.limits(HostSettings(host="*", max_per_minute=2))
    for host in (HOST, OTHER):
        limits.record_start(host)
    clocks.seconds += 59
    limits.record_start(HOST)
    clocks.seconds += 1
    for number in range(100):
        limits.record_start(f"host-{number}.example:80")
    assert (limits.max_in_flight(HOST, 0), limits.max_in_flight(OTHER, 0)) == (1, 2)


def test_calls_of_hosts_without_a_limit_are_forgotten() -> None:
    clocks = Clocks()
    limits = clocks.limits(HostSettings(host="*", max_per_minute=1))
    for host in (HOST, OTHER):
        limits.record_start(host)
    clocks.seconds += 60
    assert limits.max_in_flight(HOST, 0) == 1
    limits.record_start("third.example:80")
    assert limits.max_in_flight(OTHER, 0) == 1
    limits.apply(SettingsSnapshot())
    limits.apply(SettingsSnapshot(settings=[HostSettings(host="*", max_per_minute=1)]))
    assert limits.max_in_flight("third.example:80", 0) == 1


def test_settings_of_other_hosts_do_not_limit() -> None:
    limits = Clocks().limits(HostSettings(host=OTHER, max_concurrent=1))
    assert limits.has_settings
    assert (limits.may_limit([HOST]), limits.may_limit([OTHER])) == (False, True)
    assert Clocks().limits(HostSettings(host="*", max_concurrent=1)).may_limit([HOST])
