"""Scenarios: the clients, endpoints and faults that a seed determines."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from attrs import frozen

from .clients import Client
from .database import Fault
from .endpoints import KINDS, Seen
from .fleet import TROUBLES, Fleet
from .operator import Operator
from .world import Enough, World

EPOCHS = {
    "an afternoon": 1_800_014_400,
    "Berlin goes to summer time": 1_806_195_600,
    "Berlin goes back to winter time": 1_824_944_400,
    "New York goes back": 1_825_567_200 - 7 * 86_400,
    "a year ends": 1_830_297_600,
    "the 29th of February begins": 1_835_395_200,
    "the 32nd bit": 2_147_483_648,
}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")
SETTLE_MINUTES = 90


@frozen
class Result:
    """The result of a run.

    :ivar broken: the breaches of the promise.
    :ivar lines: the events in order.
    """

    seed: int
    broken: list[str]
    faults: Counter[str]
    calls: Counter[str]
    tasks: int
    requests: int
    statements: int
    steps: int
    lines: list[str]


def scratch() -> str | None:
    """Return a directory in memory if possible, as the simulation does not test disks."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def time_zone(name: str) -> Iterator[None]:
    """Set another time zone, which must not affect the daemon."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


@contextmanager
def directory() -> Iterator[Path]:
    """Create a temporary directory."""
    path = tempfile.mkdtemp(prefix="callme-simulation-", dir=scratch())
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run(seed: int, verbose: bool = False) -> Result:
    """Run the scenario of a seed."""
    random = Random(seed)
    wall = random.choice(list(EPOCHS.values())) - random.random() * 300
    roomy = random.random() < 0.6
    arguments = [] if roomy else _narrow(random)
    retention = random.choice((30, 30, 1, 0))
    # Not drawn by chance, which would change every other world.
    fleet = 2 + seed // 7 % 2 if seed % 7 == 1 else 1
    with time_zone(random.choice(ZONES)), directory() as place, ExitStack() as stack:
        world: World
        if fleet > 1:
            world = Fleet(random, place, wall, arguments, retention, fleet)
        else:
            world = World(random, place, wall, arguments, retention)
        stack.enter_context(world)
        world.history.verbose = verbose
        world.has_operator = seed % 7 == 5 or (fleet > 1 and seed % 3 == 0)
        world.has_edges = seed % 7 == 3
        if not roomy:
            world.never_in_time()
        with suppress(Enough):
            _live(world)
        return result_of(seed, world)


def result_of(seed: int, world: World) -> Result:
    """Return the result of a world."""
    return Result(
        seed,
        world.checker.broken,
        +world.faults,
        world.network.taken,
        len(world.checker.tokens),
        world.checker.requests,
        world.statements,
        world.timeline.steps,
        world.history.lines,
    )


def _narrow(random: Random) -> list[str]:
    concurrency = random.choice((1, 2, 4, 8))
    per_host = random.randint(1, concurrency)
    return ["--concurrency", str(concurrency), "--per-host", str(per_host)]


def _live(world: World) -> None:
    random = world.random
    seconds = random.choice((90, 150) if isinstance(world, Fleet) else (120, 240, 400))
    until = world.timeline.elapsed + seconds
    if random.random() < 0.5:
        favourite = random.choice(list(KINDS))
        world.network.usual[favourite] *= 5
    numbers = count(1)
    for index in range(random.randint(2, 6)):
        client = Client(
            f"n{index}",
            random,
            world.service,
            world.checker,
            world.history,
            lambda: next(numbers),
            until,
            random.choice((0, 0, 0, 0.1)),
            at_edges=(world.has_edges or isinstance(world, Fleet)) and index % 2 == 0,
            pace=8.0 if isinstance(world, Fleet) else 30.0,
        )
        client.begin()
    if world.has_operator:
        Operator(Random(seconds), world.service, world.checker, world.history, until).begin()
    world.start()
    if world.has_edges:
        _stop_during_calls(world, Random(seconds), until)
    elif random.random() < 0.8:
        for _ in range(random.randint(1, 5)):
            world.timeline.after(random.random() * seconds, None, _trouble, world)
    truth = world.timeline.ahead
    world.run_until(until)
    world.heal()
    world.run_until(until + 150, lambda: world.lives)
    if world.has_operator:
        world.release_hosts()
    if (off := truth - world.timeline.ahead) > 0:
        world.set_wall(off)
    world.settle(SETTLE_MINUTES)


def _stop_during_calls(world: World, random: Random, until: float) -> None:
    """Ask the daemon to end while calls are in flight, of which many have a status already.

    There is no other fault, so that each call has a status or is interrupted.
    """
    world.network.usual = {"good": 4, "slow": 2, "hangs": 2, "trickles": 8}
    world.checker.only_stops_interrupt = True
    judge = world.network.on_request

    def observe(seen: Seen) -> None:
        judge(seen)
        if world.timeline.elapsed < until and random.random() < 0.1:
            world.timeline.after(random.random() * 8, None, world.terminate)

    world.network.on_request = observe


def _trouble(world: World) -> None:
    """Inject one fault, now or before one of the next steps."""
    random = world.random
    if isinstance(world, Fleet):
        trouble = random.choice(TROUBLES)
        cause = partial(world.in_a_busy_moment, trouble)
        if random.random() < 0.4:
            cause = partial(trouble, world)
    else:
        cause = partial(random.choice(_TROUBLES), world)
    if random.random() < 0.5:
        cause()
    else:
        world.before_step[world.timeline.steps + random.randint(1, 300)] = cause
    if random.random() < 0.3:
        world.timeline.lateness = 0.05


def _kill(world: World) -> None:
    world.kill()


def _terminate(world: World) -> None:
    world.terminate()


def _one_statement(world: World) -> None:
    statement = world.disk.statements + world.random.randint(1, 100)
    world.disk.planned[statement] = world.random.choice(list(Fault))


def _all_statements(world: World) -> None:
    fault = world.random.choice((Fault.LOCKED, Fault.FULL, Fault.BROKEN))
    world.trouble(fault, world.random.choice((1, 10, 60)))


def _some_statements(world: World) -> None:
    world.disk.flaky = 0.05
    world.timeline.after(world.random.random() * 60, None, setattr, world.disk, "flaky", 0.0)


def _slow_disk(world: World) -> None:
    world.disk.slow = world.random.choice((0.05, 0.2, 3.0))
    if world.disk.slow > 1:
        world.never_in_time()


def _clock_forward(world: World) -> None:
    step = world.random.choice((0.5, 5, 61, 600, 3600, 2 * 86_400))
    world.set_wall(step * world.random.random())


def _clock_back(world: World) -> None:
    random = world.random
    step = -random.choice((0.5, 5, 61, 600, 3600)) * random.random()
    if random.random() < 0.5:
        world.set_wall(step)
    else:
        # During a tick: the minute must not count as done, and no call may be early.
        next_tick = 60 - world.timeline.wall() % 60 + random.random() * 0.005
        world.timeline.after(next_tick, None, world.set_wall, step)


def _suspend(world: World) -> None:
    random = world.random
    world.suspend(random.choice((5, 90, 900)) * random.random(), random.random() < 0.5)


_TROUBLES = (
    _kill,
    _kill,
    _terminate,
    _one_statement,
    _one_statement,
    _one_statement,
    _all_statements,
    _some_statements,
    _slow_disk,
    _clock_forward,
    _clock_back,
    _clock_back,
    _suspend,
)
