from __future__ import annotations

from callme.worker.slots import Slots

HOST, OTHER = "sink.example:80", "other.example:80"


def test_taken_slots_are_counted_by_host_until_their_release() -> None:
    slots = Slots(concurrency=3, per_host=2)
    for host in (HOST, HOST, OTHER):
        slots.take(host)
    assert (slots.free, slots.in_flight) == (0, {HOST: 2, OTHER: 1})
    slots.release(OTHER)
    slots.release(HOST)
    assert (slots.free, slots.in_flight) == (2, {HOST: 1})


def test_reserve_is_at_most_half_and_leaves_a_host_its_limit() -> None:
    assert Slots(concurrency=256, per_host=64).reserve == 128
    assert Slots(concurrency=100, per_host=70).reserve == 30
    assert Slots(concurrency=10, per_host=10).reserve == 0
    assert Slots(concurrency=10, per_host=64).reserve == 0


def test_last_places_lie_beyond_the_reserve() -> None:
    assert Slots(concurrency=256, per_host=64).last_places == 16
    assert Slots(concurrency=256, per_host=125).last_places == 3
    assert Slots(concurrency=256, per_host=256).last_places == 0
    assert Slots(concurrency=8, per_host=2).last_places == 0


def test_few_calls_of_a_host_are_four_or_an_eighth_of_its_limit() -> None:
    few = [Slots(concurrency=256, per_host=per_host).few for per_host in (3, 4, 39, 40, 64)]
    assert few == [3, 4, 4, 5, 8]
