from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from callme.worker.fair_share import LAST_PLACES_LIMIT, allocate_slots
from callme.worker.host_memory import HostMemory, Trust
from callme.worker.slots import Slots


def slots_with(
    free: int,
    *,
    per_host: int = 64,
    in_flight: Mapping[str, int] | None = None,
    concurrency: int | None = None,
) -> Slots:
    """Return slots of which some are free; without a concurrency, nothing is reserved."""
    slots = Slots(concurrency=concurrency or per_host, per_host=per_host)
    slots.in_flight, slots.free = dict(in_flight or {}), free
    return slots


def allocated(
    slots: Slots,
    due_hosts: Iterable[str],
    trust: Mapping[str, Trust] | None = None,
    responses: Mapping[str, int] | None = None,
    newcomers: int = 0,
) -> dict[str, int]:
    known = trust or {}
    counts = responses or {}
    return allocate_slots(
        slots,
        due_hosts=due_hosts,
        trust=lambda host: known.get(host, Trust.UNKNOWN),
        responses=lambda host: counts.get(host, 0),
        newcomers=newcomers,
    )


def test_single_host_gets_its_limit() -> None:
    assert allocated(slots_with(256, concurrency=256), ["a"]) == {"a": 64}
    assert allocated(slots_with(256, in_flight={"a": 60}), ["a"]) == {"a": 4}
    assert allocated(slots_with(256, in_flight={"a": 64}), ["a"]) == {}


def test_hosts_share_slots_equally() -> None:
    assert allocated(slots_with(10), ["a", "b"]) == {"a": 5, "b": 5}
    assert allocated(slots_with(10, per_host=6, in_flight={"a": 5}), ["a", "b"]) == {
        "a": 1,
        "b": 6,
    }


def test_host_with_fewer_calls_in_flight_comes_first() -> None:
    """A hanging host has used its share already."""
    for level, shares in (
        (60, {"quick": 4}),
        (4, {"quick": 4}),
        (2, {"quick": 3, "hangs": 1}),
    ):
        slots = slots_with(4, in_flight={"hangs": level})
        assert allocated(slots, ["hangs", "quick"]) == shares


def test_longest_unserved_hosts_come_first() -> None:
    assert allocated(slots_with(2), ["b", "a", "c"]) == {"b": 1, "a": 1}


def test_reserve_is_for_hosts_with_few_calls() -> None:
    # Of 256 slots, 128 are reserved, and 16 more are the last places.
    for free, share in ((150, 8), (180, 36)):
        assert allocated(slots_with(free, concurrency=256), ["a"]) == {"a": share}
    full = slots_with(144, concurrency=256, in_flight={"hangs": 64})
    assert allocated(full, ["hangs", "quick"]) == {"quick": 8}


def test_reserve_is_for_responsive_hosts() -> None:
    slots = slots_with(144, concurrency=256, in_flight={"hangs": 20, "quick": 30})
    known = {"quick": Trust.KNOWN}
    assert allocated(slots, ["hangs", "quick"], known, {"quick": 32}) == {"quick": 34}
    assert allocated(slots, ["hangs", "quick"], known, {"quick": 20}) == {"quick": 10}


def test_half_of_the_reserve_is_for_hosts_known_as_responsive() -> None:
    many = [f"hangs{number}" for number in range(100)]
    found = allocated(
        slots_with(144, concurrency=256),
        [*many, "quick", "known"],
        {"quick": Trust.KNOWN, "known": Trust.KNOWN},
        {"quick": 28},
    )
    assert sum(found.get(host, 0) for host in many) == 64
    assert (found["quick"], found["known"]) == (56, 8)


def test_last_places_are_for_hosts_with_hardly_any_calls() -> None:
    slots = slots_with(16, concurrency=256, in_flight={"quick": 40, "known": 1})
    trust = {"quick": Trust.KNOWN, "known": Trust.KNOWN, "hangs": Trust.UNRESPONSIVE}
    found = allocated(slots, ["quick", "known", "hangs", "new"], trust, {"quick": 100})
    assert found == {"known": 1, "new": 1}
    assert allocated(slots, ["new"], newcomers=7) == {"new": 1}
    assert allocated(slots, ["new"], newcomers=8) == {}


def test_newcomers_of_one_allocation_share_the_last_places() -> None:
    slots = slots_with(16, concurrency=256)
    assert len(allocated(slots, [f"new{number}" for number in range(100)])) == 8


@given(
    free=st.integers(-1, 300),
    per_host=st.integers(1, 80),
    concurrency=st.integers(1, 300),
    in_flight=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 80)),
    due_hosts=st.lists(st.sampled_from("abcdefgh"), unique=True),
    trust=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(Trust)),
    responses=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50)),
)
def test_allocation_respects_limits_and_wastes_no_slot(
    free: int,
    per_host: int,
    concurrency: int,
    in_flight: dict[str, int],
    due_hosts: list[str],
    trust: dict[str, Trust],
    responses: dict[str, int],
) -> None:
    slots = slots_with(free, per_host=per_host, in_flight=in_flight, concurrency=concurrency)
    shares = allocated(slots, due_hosts, trust, responses)
    room = {host: max(0, per_host - in_flight.get(host, 0)) for host in due_hosts}
    assert all(0 < share <= room[host] for host, share in shares.items())
    given_out = sum(shares.values())
    assert given_out <= max(0, free)
    levels = {host: in_flight.get(host, 0) + shares.get(host, 0) for host in due_hosts}
    left = free - given_out
    if given_out < min(max(0, free), sum(room.values())):
        # Only the reserve and the last places are withheld, and only from hosts with many calls.
        assert left <= slots.reserve + slots.last_places
        for host, level in levels.items():
            rank = trust.get(host, Trust.UNKNOWN)
            if left <= slots.last_places:
                limit = min(per_host, LAST_PLACES_LIMIT) if rank is Trust.KNOWN else 0
            elif rank is Trust.KNOWN:
                limit = min(per_host, max(slots.few, 2 * responses.get(host, 0)))
            else:
                limit = slots.few if left - slots.last_places > slots.reserve // 2 else 0
            assert level >= limit
    if not slots.reserve and not slots.last_places:
        for host in shares:
            assert levels[host] <= min(levels.values()) + 1


# Hostile hosts

STEP = 0.1
"""Length of a step of the model, in seconds."""
TIMEOUT = 30.0

Behaviour = Callable[[int, float, int], float]
"""Returns how long a call lasts, in seconds, given its number, its time and the host's number."""


def _hangs(call: int, now: float, host: int) -> float:
    return TIMEOUT


def _responds_once(call: int, now: float, host: int) -> float:
    return STEP if call == 0 else TIMEOUT


def _responds_to_every_tenth(call: int, now: float, host: int) -> float:
    return STEP if call % 10 == 0 else TIMEOUT


def _responds_slowly(call: int, now: float, host: int) -> float:
    return 3.0


def _responds_in_turn(call: int, now: float, host: int) -> float:
    return STEP if int(now) % 4 == host % 4 else TIMEOUT


def _dies_in_the_burst(call: int, now: float, host: int) -> float:
    return STEP if now < 3 else TIMEOUT


HOSTILE = (
    _hangs,
    _responds_once,
    _responds_to_every_tenth,
    _responds_slowly,
    _responds_in_turn,
    _dies_in_the_burst,
)


@define(eq=False)
class Model:
    """A dispatcher without a database: hostile hosts always have due tasks.

    :ivar hosts: the behaviour of each hostile host.
    """

    hosts: list[Behaviour]
    slots: Slots = field(factory=lambda: Slots(concurrency=256, per_host=64))
    memory: HostMemory = field(factory=HostMemory)
    now: float = 0.0
    _ends: dict[int, tuple[float, str, bool]] = field(factory=dict, init=False)
    _calls: dict[str, int] = field(factory=dict, init=False)
    _turns: dict[str, None] = field(factory=dict, init=False)

    def step(self, healthy: Mapping[str, int]) -> dict[str, int]:
        """Begin and end calls; return how many calls to healthy hosts have begun.

        :param healthy: the number of due tasks of healthy hosts.
        """
        self.now += STEP
        for call, (ends_at, host, responded) in list(self._ends.items()):
            if ends_at <= self.now:
                del self._ends[call]
                self.slots.release(host)
                self.memory.end_call(host, call, self.now, responded=responded)
        due = [*(str(number) for number in range(len(self.hosts))), *healthy]
        self._turns.update(dict.fromkeys(due))
        shares = allocate_slots(
            self.slots,
            due_hosts=[host for host in self._turns if healthy.get(host, 1)],
            trust=lambda host: self.memory.trust(host, self.now),
            responses=lambda host: self.memory.responses(host, self.now),
            newcomers=self.memory.newcomers(),
        )
        begun = {}
        for host, share in shares.items():
            self._turns.pop(host)
            begun[host] = min(share, healthy.get(host, share))
            for _ in range(begun[host]):
                self._begin(host)
        return begun

    def _begin(self, host: str) -> None:
        number = self._calls[host] = self._calls.get(host, -1) + 1
        call = sum(self._calls.values()) + len(self._calls)
        seconds = self.hosts[int(host)](number, self.now, int(host)) if host.isdigit() else STEP
        self.slots.take(host)
        self.memory.begin_call(host, call, self.now)
        self._ends[call] = (self.now + seconds, host, seconds < TIMEOUT)


@settings(deadline=None, max_examples=60)
@given(
    hosts=st.lists(st.sampled_from(HOSTILE), max_size=7),
    called_before=st.booleans(),
    arrivals=st.lists(st.integers(0, 40), min_size=1, max_size=5),
)
def test_healthy_host_with_few_tasks_is_called_within_a_second(
    hosts: list[Behaviour], called_before: bool, arrivals: list[int]
) -> None:
    model = Model(hosts)
    if called_before:
        assert model.step({"healthy": 1}).get("healthy") == 1
    for arrival in arrivals:
        for _ in range(arrival):
            model.step({})
        due, steps = 3, 0
        while due:
            due -= model.step({"healthy": due}).get("healthy", 0)
            steps += 1
            assert steps * STEP <= 1.0, "a healthy host waits for hosts that hang"


def test_prompt_host_whose_calls_end_together_gets_its_limit_beside_hanging_hosts() -> None:
    model = Model([_hangs] * 10)
    begun = [model.step({"healthy": 1000})["healthy"] for _ in range(6)]
    assert begun[0] < 16
    assert begun[-1] == model.slots.per_host


def test_hosts_that_respond_once_and_then_hang_leave_the_reserve() -> None:
    model = Model([_responds_once] * 4)
    for _ in range(100):
        model.step({})
    assert model.slots.free >= model.slots.reserve
