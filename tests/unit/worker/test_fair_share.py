from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callme.worker.fair_share import allocate_slots


def test_single_host_gets_its_limit() -> None:
    assert allocate_slots(256, per_host=64, in_flight={}, due_hosts=["a"]) == {"a": 64}
    assert allocate_slots(256, per_host=64, in_flight={"a": 60}, due_hosts=["a"]) == {"a": 4}
    assert allocate_slots(256, per_host=64, in_flight={"a": 64}, due_hosts=["a"]) == {}


def test_hosts_share_slots_equally() -> None:
    assert allocate_slots(10, per_host=64, in_flight={}, due_hosts=["a", "b"]) == {"a": 5, "b": 5}
    assert allocate_slots(10, per_host=6, in_flight={"a": 5}, due_hosts=["a", "b"]) == {
        "a": 1,
        "b": 6,
    }


def test_host_with_fewer_calls_in_flight_comes_first() -> None:
    """A hanging host has used its share already."""
    assert allocate_slots(
        4, per_host=64, in_flight={"hangs": 60}, due_hosts=["hangs", "quick"]
    ) == {"quick": 4}
    assert allocate_slots(4, per_host=64, in_flight={"hangs": 4}, due_hosts=["hangs", "quick"]) == {
        "quick": 4
    }
    assert allocate_slots(4, per_host=64, in_flight={"hangs": 2}, due_hosts=["hangs", "quick"]) == {
        "quick": 3,
        "hangs": 1,
    }


def test_longest_unserved_hosts_come_first() -> None:
    assert allocate_slots(2, per_host=64, in_flight={}, due_hosts=["b", "a", "c"]) == {
        "b": 1,
        "a": 1,
    }


def test_reserve_is_for_hosts_with_few_calls() -> None:
    assert allocate_slots(70, per_host=64, in_flight={}, due_hosts=["a"], reserve=64) == {"a": 8}
    assert allocate_slots(100, per_host=64, in_flight={}, due_hosts=["a"], reserve=64) == {"a": 36}
    assert allocate_slots(
        64, per_host=64, in_flight={"hangs": 64}, due_hosts=["hangs", "quick"], reserve=64
    ) == {"quick": 8}


def test_reserve_is_for_responsive_hosts() -> None:
    hangs = {"hangs": 20, "quick": 30}
    found = allocate_slots(
        64,
        per_host=64,
        in_flight=hangs,
        due_hosts=["hangs", "quick"],
        reserve=64,
        responsive={"quick"},
    )
    assert found == {"quick": 34}


def test_half_of_the_reserve_is_for_hosts_known_as_responsive() -> None:
    many = [f"hangs{number}" for number in range(100)]
    found = allocate_slots(
        64,
        per_host=64,
        in_flight={},
        due_hosts=[*many, "quick", "known"],
        reserve=64,
        responsive={"quick"},
        recently_responsive={"known"},
    )
    assert sum(found.get(host, 0) for host in many) == 32
    assert (found["quick"], found["known"]) == (24, 8)


@given(
    free=st.integers(1, 300),
    per_host=st.integers(1, 80),
    in_flight=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 80)),
    due_hosts=st.lists(st.sampled_from("abcdefgh"), unique=True),
    reserve=st.integers(0, 100),
    responsive=st.sets(st.sampled_from("abcdefgh")),
    recently_responsive=st.sets(st.sampled_from("abcdefgh")),
)
def test_allocation_respects_limits_and_wastes_no_slot(
    free: int,
    per_host: int,
    in_flight: dict[str, int],
    due_hosts: list[str],
    reserve: int,
    responsive: set[str],
    recently_responsive: set[str],
) -> None:
    shares = allocate_slots(
        free,
        per_host=per_host,
        in_flight=in_flight,
        due_hosts=due_hosts,
        reserve=reserve,
        responsive=responsive,
        recently_responsive=recently_responsive,
    )
    room = {host: max(0, per_host - in_flight.get(host, 0)) for host in due_hosts}
    assert all(0 < share <= room[host] for host, share in shares.items())
    given_out = sum(shares.values())
    assert given_out <= free
    levels = {host: in_flight.get(host, 0) + shares.get(host, 0) for host in due_hosts}
    if given_out < min(free, sum(room.values())):
        # Only the reserve is withheld, and only from hosts with many calls.
        assert free - given_out <= reserve
        few = min(per_host, max(4, per_host // 8))
        left = free - given_out
        for host, level in levels.items():
            if host in responsive:
                assert level >= per_host
            elif host in recently_responsive or left > reserve // 2:
                assert level >= few
    if not reserve:
        for host in shares:
            assert levels[host] <= min(levels.values()) + 1


def test_negative_number_of_free_slots_allocates_none() -> None:
    shares = allocate_slots(
        -1,
        per_host=64,
        in_flight={},
        due_hosts=["a:80"],
        reserve=128,
        responsive={"a:80"},
        recently_responsive={},
    )
    assert shares == {}
