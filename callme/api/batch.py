"""Many tasks in one request: each answered as its own PUT would be, none holding up the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from ..core import policy
from ..core.definition import parse_definition
from ..core.errors import Invalid
from ..core.task import Definition
from ..problem import Problem
from ..store.port import Put, PutResult, Store
from .decoding import parse_items, parse_object
from .encoding import JSON, encode_answers
from .put import refusal, wake_for, whoever_waits

MAX_TASKS = 10_000
SLICE = 100
"""Tasks that are parsed, and written, at a time: about a millisecond of work."""
SLICE_CHARACTERS = 128 * 1024
"""Characters that are decoded at a time."""


@define(eq=False)
class Batch:
    """The tasks of one request, on their way into the store.

    :param clock: what gives others a turn between two slices.
    :param now: the server's time, the same for all of the batch.
    """

    _store: Store
    _clock: IReactorTime
    _now: float
    _wake: Callable[[Iterable[str]], None]

    async def put(self, request: IRequest) -> list[bytes]:
        """Put every task, and return the answers to them, in order, encoded some at a time.

        :raises Problem: when the batch as a whole cannot be read; nothing is put then.
        """
        values = await self._decode(request)
        parts: list[bytes] = []
        # One slice is parsed while the one before is written.
        writing: Deferred[list[JSON]] = succeed([])
        for begin in range(0, len(values), SLICE):
            await self._others()
            before, writing = writing, self._write(values[begin : begin + SLICE])
            try:
                answers = await whoever_waits(before)
            except BaseException:
                # Nobody will wait for this one any more: its error is that of the one before.
                writing.addErrback(lambda _: None)
                raise
            if answers:
                parts.append(encode_answers(request, answers))
        if last := await whoever_waits(writing):
            parts.append(encode_answers(request, last))
        return parts

    async def _decode(self, request: IRequest) -> list[object]:
        values: list[object] = []
        characters = 0
        for value, length in parse_items(request):
            values.append(value)
            if len(values) > MAX_TASKS:
                raise Problem(413, f"more than {MAX_TASKS:,} tasks in one batch")
            characters += length
            if characters > SLICE_CHARACTERS or len(values) % SLICE == 0:
                characters = 0
                await self._others()
        return values

    async def _others(self) -> None:
        """Let the reactor see to others."""
        await deferLater(self._clock, 0)

    def _write(self, values: Sequence[object]) -> Deferred[list[JSON]]:
        """Put one slice, and return the answers to its tasks."""
        answers: list[JSON | None] = []
        tasks: list[tuple[Definition, bool]] = []
        for value in values:
            try:
                definition = parse_definition(parse_object(value), self._now)
            except Invalid as error:
                answers.append(Problem.of(error).members)
            except Problem as problem:
                answers.append(problem.members)
            else:
                answers.append(None)
                tasks.append((definition, not policy.is_too_late(definition, self._now)))
        putting = self._store.put_many(tasks, self._now)

        def put(results: Sequence[PutResult]) -> list[JSON]:
            done = iter(zip(tasks, results, strict=True))
            return [known if known is not None else self._put(*next(done)) for known in answers]

        return putting.addCallback(put)

    def _put(self, task: tuple[Definition, bool], result: PutResult) -> JSON:
        definition, _ = task
        wake_for(definition, result, self._now, self._wake)
        return _answer(definition, result)


def _answer(definition: Definition, result: PutResult) -> JSON:
    problem = refusal(definition, result)
    if problem is not None:
        return problem.members
    return {"status": 201 if result.put is Put.CREATED else 200, "task": str(definition.key)}
