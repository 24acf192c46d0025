"""Batches: many tasks in one request, each with the result of its own PUT."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from ..core.parameters import parse_definition
from ..core.task import Definition
from ..core.transitions import PutOutcome
from ..errors import FieldError, Invalid
from ..reports.audit_log import AuditLog
from ..security.address_policy import AddressPolicy
from ..server.auth import Author
from ..server.problem import Problem
from ..store import stats, tasks
from ..store.database import Store
from ..store.interface import PutPreview, PutResult
from .dry_run import DryRun
from .requests import parse_items, parse_object
from .responses import BYTES_PER_TURN, JSON, add_warnings, encode_results
from .task_service import put_problem

MAX_TASKS = 10_000
TASKS_PER_SLICE = 100
"""Tasks in one slice, which is parsed and written at a time: about a millisecond of work."""
SLICES_AHEAD = 20
"""Maximum slices that are being written at a time; queued slices share a transaction."""
RESULTS_PER_PART = 20
"""Results that are encoded at a time, in up to 6 ms if each contains a large existing task."""
CHARACTERS_PER_SLICE = 128 * 1024
"""Characters that are decoded at a time."""

_Results = Callable[[], Iterable[JSON]]


@define(eq=False, kw_only=True)
class Batch:
    """Batch of tasks in one request, parsed and put slice by slice.

    :param clock: schedules other work between two slices.
    :param now: the server's time at the start of the batch: seconds since 1970.
    :param networks: the policy about the addresses that callbacks may be sent to.
    :param check_name: raises :exc:`Problem` for a name that the client has no access to.
    :param by: the client.
    :param dry_run: previews the puts; ``None`` to put the tasks.
    """

    _store: Store
    _clock: IReactorTime
    _now: float
    _networks: AddressPolicy
    _check_name: Callable[[str], None]
    _audit: AuditLog
    _by: Author
    _dry_run: DryRun | None = None

    async def put(self, request: IRequest) -> list[bytes]:
        """Put every task; return the results in order, encoded slice by slice.

        :raises Problem: when the batch as a whole cannot be parsed; no task is put.
        """
        values = await self._decode(request)
        parts: list[bytes] = []
        writing: deque[Deferred[_Results]] = deque()
        # A dry run must consider the tasks of earlier slices, so its slices run one at a time.
        ahead = SLICES_AHEAD if self._dry_run is None else 1
        try:
            for begin in range(0, len(values), TASKS_PER_SLICE):
                await self._yield_to_reactor()
                if len(writing) == ahead:
                    await self._collect(request, writing.popleft(), parts)
                writing.append(self._write(values[begin : begin + TASKS_PER_SLICE]))
            while writing:
                await self._collect(request, writing.popleft(), parts)
        finally:
            for left in writing:
                # The request has already failed with the error of an earlier slice.
                left.addErrback(lambda _: None)
        return parts

    async def _collect(
        self, request: IRequest, writing: Deferred[_Results], parts: list[bytes]
    ) -> None:
        results = iter((await writing)())
        written = 0
        while some := list(islice(results, RESULTS_PER_PART)):
            if written > BYTES_PER_TURN:
                written = 0
                await self._yield_to_reactor()
            parts.append(encode_results(request, some))
            written += len(parts[-1])

    async def _decode(self, request: IRequest) -> list[object]:
        values: list[object] = []
        characters = 0
        for value, length in parse_items(request):
            values.append(value)
            if len(values) > MAX_TASKS:
                raise Problem(413, f"the batch has more than {MAX_TASKS:,} tasks: send several")
            characters += length
            if characters > CHARACTERS_PER_SLICE or len(values) % TASKS_PER_SLICE == 0:
                characters = 0
                await self._yield_to_reactor()
        return values

    async def _yield_to_reactor(self) -> None:
        """Wait until the reactor has run other work."""
        await deferLater(self._clock, 0)

    def _write(self, values: Sequence[object]) -> Deferred[_Results]:
        """Put one slice; return an iterable that encodes the results of its tasks, in order."""
        results: list[JSON | None] = []
        definitions: list[Definition] = []
        warnings: list[list[FieldError]] = []
        for value in values:
            about: list[FieldError] = []
            try:
                definition = parse_definition(
                    parse_object(value), self._now, networks=self._networks, warnings=about
                )
                self._check_name(definition.task_name)
            except Invalid as error:
                results.append(Problem.of(error).to_dict())
            except Problem as problem:
                results.append(problem.to_dict())
            else:
                results.append(None)
                definitions.append(definition)
                warnings.append(about)
        if self._dry_run is None:
            putting = self._put(definitions)
        else:
            putting = self._preview(self._dry_run, definitions)

        def in_order(put_results: _Results) -> Iterable[JSON]:
            remaining = iter(_with_warnings(put_results(), warnings))
            return (next(remaining) if result is None else result for result in results)

        return putting.addCallback(lambda put_results: partial(in_order, put_results))

    def _put(self, definitions: Sequence[Definition]) -> Deferred[_Results]:
        """Put the valid tasks of a slice; return an iterable that encodes their results."""

        def encode(results: Sequence[PutResult]) -> Iterable[JSON]:
            return (
                _to_dict(definition, result, self._now)
                for definition, result in zip(definitions, results, strict=True)
            )

        def stored(results: Sequence[PutResult]) -> _Results:
            for definition, result in zip(definitions, results, strict=True):
                self._audit.put(self._by, definition, result.outcome)
            return partial(encode, results)

        return self._store.write(tasks.put_many, definitions, self._now).addCallback(stored)

    def _preview(self, dry_run: DryRun, definitions: Sequence[Definition]) -> Deferred[_Results]:
        """Preview the puts of a slice; return an iterable that encodes their results."""

        def encode(previews: Sequence[PutPreview]) -> Iterable[JSON]:
            return (
                dry_run.batch_result(definition, dry_run.put(definition, preview))
                for definition, preview in zip(definitions, previews, strict=True)
            )

        reading = self._store.read(stats.preview_put, definitions, self._now)
        return reading.addCallback(lambda previews: partial(encode, previews))


def _with_warnings(
    results: Iterable[JSON], warnings: Iterable[Iterable[FieldError]]
) -> Iterator[JSON]:
    """Yield results, with warnings in those that are not problems."""
    for result, about in zip(results, warnings, strict=True):
        if about and result["status"] < 400:
            add_warnings(result, about)
        yield result


def _to_dict(definition: Definition, result: PutResult, now: float) -> JSON:
    if result.outcome is PutOutcome.CREATED:
        # Most tasks are created, so this key is formatted in the fastest way.
        return {"status": 201, "task": f"{definition.task_name}@{definition.trigger_at}"}
    problem = put_problem(definition, result, now)
    return {"status": 200, "task": str(definition.key)} if problem is None else problem.to_dict()
