from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callme.core.fairness import share_out


def test_one_host_gets_its_limit_and_no_more() -> None:
    assert share_out(256, 64, {}, ["a"]) == {"a": 64}
    assert share_out(256, 64, {"a": 60}, ["a"]) == {"a": 4}
    assert share_out(256, 64, {"a": 64}, ["a"]) == {}


def test_hosts_share_alike_and_leave_what_they_cannot_use() -> None:
    assert share_out(10, 64, {}, ["a", "b"]) == {"a": 5, "b": 5}
    assert share_out(10, 64, {"a": 63}, ["a", "b"]) == {"a": 1, "b": 9}


def test_the_longest_unserved_come_first_where_there_is_little() -> None:
    assert share_out(2, 64, {}, ["b", "a", "c"]) == {"b": 1, "a": 1}


@given(
    free=st.integers(1, 300),
    per_host=st.integers(1, 80),
    under_way=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 80)),
    waiting=st.lists(st.sampled_from("abcdefgh"), unique=True),
)
def test_no_limit_is_passed_and_no_room_is_wasted(
    free: int, per_host: int, under_way: dict[str, int], waiting: list[str]
) -> None:
    shares = share_out(free, per_host, under_way, waiting)
    room = {host: max(0, per_host - under_way.get(host, 0)) for host in waiting}
    assert all(0 < share <= room[host] for host, share in shares.items())
    assert min(free, sum(room.values())) == sum(shares.values())
    open_hosts = [host for host in waiting if room[host]]
    if len(open_hosts) <= free:
        assert set(open_hosts) == set(shares)
