"""Many tasks in one request: each answered as its own PUT would be, none holding up the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from ..core.parameters import parse_definition
from ..core.task import Definition
from ..core.transitions import PutOutcome
from ..errors import Invalid
from ..security.address_policy import AddressPolicy
from ..server.problem import Problem
from ..store import stats, tasks
from ..store.database import Store
from ..store.interface import PutPreview, PutResult
from .dry_run import DryRun
from .requests import parse_items, parse_object
from .responses import JSON, encode_results
from .task_service import put_problem

MAX_TASKS = 10_000
SLICE = 100
"""Tasks that are parsed, and written, at a time: about a millisecond of work."""
AHEAD = 10
"""Slices that are parsed while the one before them is written: those share a transaction."""
SLICE_CHARACTERS = 128 * 1024
"""Characters that are decoded at a time."""


@define(eq=False)
class Batch:
    """The tasks of one request, on their way into the store.

    :param clock: what gives others a turn between two slices.
    :param now: the server's time as the batch began, by which all of it is read.
    :param networks: where callbacks may go.
    :param dry_run: what foresees them, where nothing is to be done.
    """

    _store: Store
    _clock: IReactorTime
    _now: float
    _networks: AddressPolicy
    _dry_run: DryRun | None = None

    async def put(self, request: IRequest) -> list[bytes]:
        """Put every task, and return the answers to them, in order, encoded some at a time.

        :raises Problem: when the batch as a whole cannot be read; nothing is put then.
        """
        values = await self._decode(request)
        parts: list[bytes] = []
        writing: deque[Deferred[list[JSON]]] = deque()
        # A dry run knows of the tasks before only once it has answered them.
        ahead = AHEAD if self._dry_run is None else 1
        try:
            for begin in range(0, len(values), SLICE):
                await self._others()
                if len(writing) == ahead:
                    await self._answers(request, writing.popleft(), parts)
                writing.append(self._write(values[begin : begin + SLICE]))
            while writing:
                await self._answers(request, writing.popleft(), parts)
        finally:
            for left in writing:
                # Nobody will wait for it any more: its error is that of the one before.
                left.addErrback(lambda _: None)
        return parts

    @staticmethod
    async def _answers(
        request: IRequest, writing: Deferred[list[JSON]], parts: list[bytes]
    ) -> None:
        parts.append(encode_results(request, await writing))

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
        definitions: list[Definition] = []
        for value in values:
            try:
                definition = parse_definition(
                    parse_object(value), self._now, networks=self._networks
                )
            except Invalid as error:
                answers.append(Problem.of(error).to_dict())
            except Problem as problem:
                answers.append(problem.to_dict())
            else:
                answers.append(None)
                definitions.append(definition)
        if self._dry_run is None:
            answering = self._put(definitions)
        else:
            answering = self._preview(self._dry_run, definitions)

        def in_order(told: Iterable[JSON]) -> list[JSON]:
            following = iter(told)
            return [known if known is not None else next(following) for known in answers]

        return answering.addCallback(in_order)

    def _put(self, definitions: Sequence[Definition]) -> Deferred[list[JSON]]:
        """Put the tasks of a slice that could be read."""

        def answer(results: Sequence[PutResult]) -> list[JSON]:
            return list(map(_answer, definitions, results))

        return self._store.write(tasks.put_many, definitions, self._now).addCallback(answer)

    def _preview(self, dry_run: DryRun, definitions: Sequence[Definition]) -> Deferred[list[JSON]]:
        """Return what the puts of a slice would do."""

        def answer(previews: Sequence[PutPreview]) -> list[JSON]:
            return [
                dry_run.answer_in_batch(definition, dry_run.put(definition, preview))
                for definition, preview in zip(definitions, previews, strict=True)
            ]

        return self._store.read(stats.preview_put, definitions, self._now).addCallback(answer)


def _answer(definition: Definition, result: PutResult) -> JSON:
    problem = put_problem(definition, result)
    if problem is not None:
        return problem.to_dict()
    status = 201 if result.outcome is PutOutcome.CREATED else 200
    return {"status": status, "task": str(definition.key)}
