"""The page for a new task, which accepts the values of the API and reports its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import define, evolve

from ...api.dry_run import DryRun
from ...api.requests import parse_new_time
from ...api.task_service import TaskService
from ...core.parameters import parse_definition
from ...core.put_warnings import warnings_about
from ...core.task import Definition, Task
from ...core.times import parse_key
from ...core.transitions import PutCondition, PutOutcome
from ...errors import FieldError, Invalid
from ...security.address_policy import AddressPolicy
from ...server.auth import Author
from ...server.paths import TASK, url_for
from ...server.problem import Problem
from ...store.database import Store
from ...worker.throughput import Capacity
from ..layout import Viewer
from ..widgets import query
from .new_form import NewTask, Preview
from .parameter_fields import FIELDS, default_text, to_body, to_texts
from .time_fields import TIME_FIELD, Meaning, TimeInput

ACTION_FIELD = "action"
PREVIEW = "preview"
GIVEN_TIME = "given"
"""The parameter of a task's page with the time in the form that created it, to warn of both."""
_DEFAULT_METHOD = default_text(FIELDS["callback_method"][0])
_DONE = {PutOutcome.CREATED: "created", PutOutcome.UNCHANGED: "unchanged"}


@define(eq=False, kw_only=True)
class NewTaskPage:
    """The form for a new task, and its submission.

    :param tasks: puts the task.
    :param capacity: returns how fast calls can be made.
    :param networks: the addresses that callbacks may go to.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _tasks: TaskService
    _capacity: Callable[[], Capacity]
    _networks: AddressPolicy
    _now: Callable[[], float]

    def blank(self, viewer: Viewer, source: Task | None) -> NewTask:
        """Return a form that is empty, or that has the parameters of a task."""
        content = NewTask(viewer=viewer, now=self._now(), time=TimeInput(is_new=True))
        if source is None:
            return content
        texts, omitted = to_texts(source.definition)
        return evolve(content, texts=texts, omitted=omitted)

    async def submit(
        self,
        fields: Mapping[str, str],
        viewer: Viewer,
        by: Author,
        check_name: Callable[[str], None],
    ) -> str | tuple[NewTask, int]:
        """Create the task of a form, or preview the put.

        :param check_name: raises :exc:`Problem` for a name that the client may not use.
        :return: the path of the task's page; or the form to display, and the status.
        """
        now, time = self._now(), TimeInput.of(fields)
        texts = {name: fields.get(name, "") for name in FIELDS}
        content = NewTask(viewer=viewer, now=now, texts=texts, time=time)
        warnings: list[FieldError] = []
        try:
            definition = self._define(content, warnings)
            check_name(definition.task_name)
            if fields.get(ACTION_FIELD) == PREVIEW:
                return evolve(
                    content, preview=await self._preview(definition, now, time, warnings)
                ), 200
            result = await self._tasks.put(definition, PutCondition.NONE, now, by=by)
        except (Invalid, Problem) as error:
            problem = error if isinstance(error, Problem) else Problem.of(error)
            if problem.status >= 500:
                raise
            return _refused(content, problem), problem.status
        # The page of the task determines the warnings again.
        more = {GIVEN_TIME: time.trigger_at()[TIME_FIELD]} if warnings else {}
        done = query(done=_DONE[result.outcome], zone=time.zone, **more)
        return url_for(TASK, definition.key) + done

    def _define(self, content: NewTask, warnings: list[FieldError]) -> Definition:
        body, errors = to_body(content.texts)
        wrong = {error.pointer for error in errors}
        try:
            body |= content.time.trigger_at()
        except Invalid as error:
            errors += error.errors
            wrong |= {one.pointer for one in error.errors}
        try:
            definition = parse_definition(
                body, content.now, networks=self._networks, warnings=warnings
            )
        except Invalid as error:
            # An invalid field is not reported as missing.
            errors += [one for one in error.errors if one.pointer not in wrong]
        if errors:
            raise Invalid(errors)
        return definition

    async def _preview(
        self, definition: Definition, now: float, time: TimeInput, warnings: list[FieldError]
    ) -> Preview:
        capacity = self._capacity()
        return Preview(
            put=await DryRun(capacity, now).preview(self._store, definition),
            capacity=capacity,
            meaning=Meaning(trigger_at=definition.trigger_at, zone=time.zone),
            warnings=warnings,
        )


def warnings_of(definition: Definition, time: str, now: float) -> list[FieldError]:
    """Return the warnings about a task that the form has created.

    :param time: the time in the form, as the API accepts it.
    """
    about_time: list[FieldError] = []
    # Any client can change the address of a task's page.
    with suppress(Invalid):
        parse_new_time({TIME_FIELD: time}, now, about_time)
    # The form does not distinguish the default method from no method.
    given = () if definition.callback_method == _DEFAULT_METHOD else ("callback_method",)
    return list(warnings_about(definition, given, now, [one.detail for one in about_time]))


def _refused(content: NewTask, problem: Problem) -> NewTask:
    """Return the form with the reasons why its task is refused."""
    errors = tuple(problem.errors) or (FieldError("", problem.detail),)
    existing: Mapping[str, Any] | None = problem.extensions.get("task")
    key = None if existing is None else parse_key(existing["task"])
    return evolve(content, errors=errors, existing=key)
