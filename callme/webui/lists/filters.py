"""Filters of a list of tasks: their parameters in a URL, and the form that sets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from attrs import evolve, field, frozen
from twisted.web.iweb import IRequest
from twisted.web.template import Tag, tags

from ...api.requests import (
    parse_filters,
    parse_labels,
    parse_order,
    parse_query,
    parse_selector,
)
from ...core.task import Reason, State
from ...core.text.query_hints import LABEL
from ...core.times import Key, rfc3339
from ...server.auth import narrow_prefix
from ...server.paths import FIND
from ...server.problem import Problem
from ..task.time_fields import time_in_utc
from ..widgets import escape_invisible, flash

NAME = "name"
"""The parameter for the beginning of the names."""
NAMES = (NAME, "state", "reason", "host", LABEL, "due_from", "due_before", "order")
_TIMES = ("due_from", "due_before")


@frozen(kw_only=True)
class Filters:
    """The filters of a list.

    :ivar given: the text of each parameter but labels; no empty ones.
    :ivar labels: the texts of the labels.
    :ivar values: the filters of :class:`callme.store.listing.selection.Selection`.
    :ivar errors: the error of each parameter that has one, by its name.
    :ivar more: the other parameters of the query string.
    """

    given: Mapping[str, str] = field(factory=dict)
    labels: Sequence[str] = ()
    values: Mapping[str, Any] = field(factory=dict)
    errors: Mapping[str, str] = field(factory=dict)
    more: Mapping[str, str] = field(factory=dict)

    @property
    def state(self) -> State | None:
        """The state of the tasks; ``None`` for all states."""
        state: State | None = self.values.get("state")
        return state

    @property
    def by_due(self) -> bool:
        """True if the list is ordered by time."""
        return self.given.get("order") == "due"

    @property
    def narrows(self) -> bool:
        """True if the filters leave out some tasks."""
        return bool(self.labels or self.given.keys() - {"order"})

    @property
    def has_more_than_state(self) -> bool:
        """True if a parameter is given that the tabs do not display."""
        return bool(self.labels or self.given.keys() - {"state"})

    def api_query(self) -> dict[str, str]:
        """Return the parameters by the names that the API has for them."""
        return {"prefix" if name == NAME else name: text for name, text in self.given.items()}

    def query(self, **changes: str | None) -> str:
        """Return the query string for these filters.

        :param changes: other values of some parameters; ``None`` leaves a parameter out.
        """
        values = {**self.given, **changes}
        pairs = [(name, value) for name, value in values.items() if value is not None]
        pairs += [(LABEL, label) for label in self.labels]
        return f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""


def read_filters(request: IRequest, now: float, more: Sequence[str] = ()) -> Filters | Key:
    """Return the filters in the query string of a request, or the key of the task that it names.

    :param now: the server's time, seconds since 1970.
    :param more: other parameters that the query string may have.
    :raises Problem: for a parameter that is unknown or occurs twice.
    """
    parameters = parse_query(request, (*NAMES, *more))
    given = {
        name: value.strip() for name, value in parameters.items() if name in NAMES and value.strip()
    }
    labels = [label.strip() for label in parse_labels(request) if label.strip()]
    others = {name: parameters[name] for name in more if name in parameters}
    filters = Filters(given=given, labels=labels, more=others)
    try:
        # This also rejects beginnings that no name can have: PostgreSQL fails at a NUL.
        selector = parse_selector(request, given.get(NAME, ""))
    except Problem as problem:
        return evolve(filters, errors={NAME: problem.detail})
    return selector if isinstance(selector, Key) else _parsed(request, filters, now)


def _parsed(request: IRequest, filters: Filters, now: float) -> Filters:
    texts = {
        "prefix" if name == NAME else name: time_in_utc(value) if name in _TIMES else value
        for name, value in filters.given.items()
    }
    try:
        parse_order(texts.get("order"))
        values = parse_filters(texts, filters.labels, now)
    except Problem as problem:
        errors = {one.pointer.replace("prefix", NAME): one.detail for one in problem.errors}
        return evolve(filters, errors=errors)
    values["prefix"] = narrow_prefix(request, values["prefix"])
    return evolve(filters, values=values)


def filter_form(filters: Filters) -> Tag:
    """Return the form that sets the filters."""
    error = flash("; ".join(filters.errors.values()), "wrong")(id="error")
    fields = [
        _text(filters, NAME, "Name starts with", maxlength="255"),
        _select(filters, "reason", "Reason", [("any", "")] + [(r.value, r.value) for r in Reason]),
        _text(filters, "host", "Host and port", placeholder="example.com:443"),
        *_label_fields(filters),
        _time(filters, "due_from", "Due from (UTC)"),
        _time(filters, "due_before", "Due before (UTC)"),
        _select(filters, "order", "Order", [("by name", ""), ("by time", "due")]),
    ]
    state = filters.given.get("state")
    form = tags.form(
        [tags.input(type="hidden", name="state", value=escape_invisible(state))] if state else [],
        tags.div(fields, class_="fields"),
        tags.p(
            tags.button("Apply filters", class_="go"),
            " ",
            tags.a("Remove filters", href=FIND),
            class_="actions",
        ),
        action=FIND,
        method="get",
        class_="filters",
    )
    details = tags.details(tags.summary("Filters"), form, class_="filter", id="filters")
    if filters.has_more_than_state:
        details.attributes["open"] = "open"
    return tags.div(error if filters.errors else "", details)


def _labelled(name: str, label: str, control: Tag, filters: Filters) -> Tag:
    control.attributes |= {"id": f"filter-{name}", "name": name.partition("-")[0]}
    if name in filters.errors:
        control.attributes |= {"aria-invalid": "true", "aria-describedby": "error"}
    return tags.p(tags.label(label)(for_=f"filter-{name}"), control)


def _text(filters: Filters, name: str, label: str, **attributes: str) -> Tag:
    value = escape_invisible(filters.given.get(name, ""))
    control = tags.input(value=value, autocomplete="off", spellcheck="false", **attributes)
    return _labelled(name, label, control, filters)


def _label_fields(filters: Filters) -> Iterator[Tag]:
    """Yield a field for each label, and one to add a label."""
    for number, text in enumerate([*filters.labels, ""]):
        control = tags.input(
            value=escape_invisible(text),
            placeholder="customer:42",
            autocomplete="off",
            spellcheck="false",
        )
        name = f"{LABEL}-{number}" if number else LABEL
        yield _labelled(name, f"Label {number + 1}" if number else "Label", control, filters)


def _time(filters: Filters, name: str, label: str) -> Tag:
    seconds = filters.values.get(name)
    value = "" if seconds is None else rfc3339(seconds * 1000)[:16]
    return _labelled(name, label, tags.input(type="datetime-local", value=value), filters)


def _select(filters: Filters, name: str, label: str, choices: Sequence[tuple[str, str]]) -> Tag:
    select = tags.select()
    for text, value in choices:
        option = tags.option(text, value=value)
        if value == filters.given.get(name, ""):
            option.attributes["selected"] = "selected"
        select(option)
    return _labelled(name, label, select, filters)
