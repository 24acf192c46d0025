from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callme.worker.fair_share import allocate_slots


def test_single_host_gets_its_limit() -> None:
    assert allocate_slots(256, 64, {}, ["a"]) == {"a": 64}
    assert allocate_slots(256, 64, {"a": 60}, ["a"]) == {"a": 4}
    assert allocate_slots(256, 64, {"a": 64}, ["a"]) == {}


def test_hosts_share_slots_equally() -> None:
    assert allocate_slots(10, 64, {}, ["a", "b"]) == {"a": 5, "b": 5}
    assert allocate_slots(10, 6, {"a": 5}, ["a", "b"]) == {"a": 1, "b": 6}


def test_host_with_fewer_calls_in_flight_comes_first() -> None:
    """A hanging host has used its share already."""
    assert allocate_slots(4, 64, {"hangs": 60}, ["hangs", "quick"]) == {"quick": 4}
    assert allocate_slots(4, 64, {"hangs": 4}, ["hangs", "quick"]) == {"quick": 4}
    assert allocate_slots(4, 64, {"hangs": 2}, ["hangs", "quick"]) == {"quick": 3, "hangs": 1}


def test_longest_unserved_hosts_come_first() -> None:
    assert allocate_slots(2, 64, {}, ["b", "a", "c"]) == {"b": 1, "a": 1}


def test_reserve_is_for_hosts_with_few_calls() -> None:
    assert allocate_slots(70, 64, {}, ["a"], reserve=64) == {"a": 8}
    assert allocate_slots(100, 64, {}, ["a"], reserve=64) == {"a": 36}
    assert allocate_slots(64, 64, {"hangs": 64}, ["hangs", "quick"], reserve=64) == {"quick": 8}


def test_reserve_is_for_responsive_hosts() -> None:
    hangs = {"hangs": 20, "quick": 30}
    found = allocate_slots(64, 64, hangs, ["hangs", "quick"], reserve=64, answering={"quick"})
    assert found == {"quick": 34}


def test_half_of_the_reserve_is_for_hosts_known_as_responsive() -> None:
    many = [f"hangs{number}" for number in range(100)]
    found = allocate_slots(64, 64, {}, [*many, "quick", "known"], 64, {"quick"}, {"known"})
    assert sum(found.get(host, 0) for host in many) == 32
    assert (found["quick"], found["known"]) == (24, 8)


@given(
    free=st.integers(1, 300),
    per_host=st.integers(1, 80),
    in_flight=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 80)),
    waiting=st.lists(st.sampled_from("abcdefgh"), unique=True),
    reserve=st.integers(0, 100),
    answering=st.sets(st.sampled_from("abcdefgh")),
    known=st.sets(st.sampled_from("abcdefgh")),
)
def test_allocation_respects_limits_and_wastes_no_slot(
    free: int,
    per_host: int,
    in_flight: dict[str, int],
    waiting: list[str],
    reserve: int,
    answering: set[str],
    known: set[str],
) -> None:
    shares = allocate_slots(free, per_host, in_flight, waiting, reserve, answering, known)
    room = {host: max(0, per_host - in_flight.get(host, 0)) for host in waiting}
    assert all(0 < share <= room[host] for host, share in shares.items())
    given_out = sum(shares.values())
    assert given_out <= free
    levels = {host: in_flight.get(host, 0) + shares.get(host, 0) for host in waiting}
    if given_out < min(free, sum(room.values())):
        # Only the reserve is withheld, and only from hosts with many calls.
        assert free - given_out <= reserve
        few = min(per_host, max(4, per_host // 8))
        left = free - given_out
        for host, level in levels.items():
            if host in answering:
                assert level >= per_host
            elif host in known or left > reserve // 2:
                assert level >= few
    if not reserve:
        for host in shares:
            assert levels[host] <= min(levels.values()) + 1
