"""Every fault at every statement, and a kill before every step, of one short story in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random

from attrs import evolve, frozen

from .clients import Client
from .database import Fault
from .scenario import EPOCHS, Result, directory, result_of
from .token import Token
from .world import Enough, World

_STORY = 150.0
"""Duration of the story in seconds: two minutes begin in it."""


@frozen
class Place:
    """The place and kind of a disturbance: ``broken:17``, ``step:203``.

    :ivar kind: the name of a fault at a statement, or ``step`` for a kill before a step.
    :ivar number: the number of the statement or step, counted from 1; 0 for no disturbance.
    """

    kind: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Place:
        kind, _, number = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of trouble: expected one of {', '.join(KINDS)}")
        return cls(kind, int(number))

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"


KINDS = (*(fault.name.lower() for fault in Fault), "step")


def places(stride: int = 1, first: int = 1, kinds: Sequence[str] = KINDS) -> Iterator[Place]:
    """Return every place, or every n-th one from the first on."""
    whole = tell(Place("step", 0))
    for kind in kinds:
        last = whole.steps if kind == "step" else whole.statements
        yield from (Place(kind, number) for number in range(first, last + 1, stride))


def tell(place: Place, verbose: bool = False) -> Result:
    """Run the story with a disturbance in one place."""
    with (
        directory() as path,
        World(Random(0), path, EPOCHS["an afternoon"] - 30.0, []) as world,
    ):
        world.history.verbose = verbose
        world.network.usual = {"good": 3, "fails": 1, "hangs": 1}
        if place.kind == "step":
            world.before_step[place.number] = lambda: world.kill(0.5)
        else:
            world.disk.planned[place.number] = Fault[place.kind.upper()]
        world.start()
        _Story(world).begin()
        until = world.timeline.elapsed + _STORY
        with suppress(Enough):
            world.run_until(until)
        # The rest is undisturbed.
        statements, steps = world.disk.statements, world.timeline.steps
        with suppress(Enough):
            world.heal()
            world.run_until(until + 150, lambda: world.lives)
            world.settle(30)
        return evolve(result_of(0, world), statements=statements, steps=steps)


class _Story:
    """Let one client make every kind of request in turn."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = 0

    def begin(self) -> None:
        noon = EPOCHS["an afternoon"]
        acts: list[tuple[float, Callable[[Client], None]]] = [
            (1, lambda one: one.put(self.token(one, noon - 60, retry=1))),
            (2, lambda one: one.put(self.token(one, noon, retry=2, retry_delay=0))),
            (3, lambda one: one.put(self.token(one, noon, retry=2, retry_delay=0), replaces=True)),
            (4, Client.put_batch),
            (6, Client.get),
            (8, Client.delete),
            (40, lambda one: one.put(self.token(one, noon + 60, retry=0, timeout=1))),
            (50, Client.reschedule),
            (60, Client.reschedule),
            (80, Client.put_again),
            (95, Client.reschedule),
            (100, Client.delete_name),
        ]
        clients = [self.client(name) for name in ("a", "b")]
        for seconds, act in acts:
            for client in clients:
                self.world.timeline.after(seconds + self.world.random.random(), None, act, client)

    def client(self, name: str) -> Client:
        world = self.world
        return Client(
            name,
            world.random,
            world.service,
            world.checker,
            world.history,
            self.next,
            until=0,
            hasty=0,
        )

    def next(self) -> int:
        self.number += 1
        return self.number

    def token(self, client: Client, at: int, **more: object) -> Token:
        number = self.next()
        body = {
            "callback": f"http://h0.example/{number}",
            "trigger_at": at,
            "retry": 1,
            "retry_delay": 1,
            "max_delay": 5,
            "timeout": 5,
            "expected_http_status": 200,
        }
        return Token(number, client.name, {**body, **more})
