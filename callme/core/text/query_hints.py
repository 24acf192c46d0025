"""Errors for unexpected query parameters: where each belongs, or its correct name."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import quoted
from .nearest import Nearest

LABEL = "label"
_MANY = "belongs to requests about many tasks: GET /status, POST /reschedule or DELETE /task"
_LISTS = "belongs to lists: GET /status or GET /status/<task_name>"
_IN_BODY = "is not a parameter of the URL: put it into the body of PUT"
_OF_TASK = f"{_IN_BODY} /task/<task_name>"
_OF_HOST = f"{_IN_BODY} /hosts/<host:port>"
_OF_MANY = ("state", "reason", "host", "prefix", LABEL, "due_from", "due_before", "limit")
_PLACES = {
    **dict.fromkeys((*_OF_MANY, "start_from"), _MANY),
    "trigger_at": f"{_OF_TASK} or POST /reschedule; due_from and due_before filter by it",
    **dict.fromkeys(("order", "future_only"), _LISTS),
    "dry_run": "belongs to requests that change tasks: PUT /task/<task_name>, POST /batch, "
    "or POST /reschedule and DELETE /task with filters",
    "all": "belongs to POST /reschedule",
    "spread": "belongs to POST /reschedule with filters",
    "hours": "belongs to GET /forecast",
    "wait": "needs the path of one task: GET /status/<task_name>@<trigger_at>",
    **dict.fromkeys(("max_concurrent", "max_per_minute", "paused"), _OF_HOST),
}
"""The parameters of the API by name, each with the place where it belongs."""
_ALIASES = {
    **dict.fromkeys(("page", "offset", "cursor", "after", "from_key"), "start_from"),
    **dict.fromkeys(("size", "count", "page_size", "per_page"), "limit"),
    **dict.fromkeys(("sort", "sort_by", "order_by"), "order"),
    **dict.fromkeys(("name", "task_name", "q", "search"), "prefix"),
    **dict.fromkeys(("since", "after_time"), "due_from"),
    **dict.fromkeys(("until", "before"), "due_before"),
    **dict.fromkeys(("test", "preview"), "dry_run"),
    "labels": LABEL,
}
"""Names that other programs have for a parameter."""
_HEADERS = {
    **dict.fromkeys(
        ("token", "access_token", "api_key", "apikey", "auth"), "Authorization: Bearer <token>"
    ),
    **dict.fromkeys(("replace", "overwrite", "force", "upsert"), "If-Match: *"),
}
"""Parameters of other programs for which callme has a header."""


class QueryHints:
    """The errors for parameters that a query string must not have.

    :param of_body: the names of the parameters of a task.
    """

    def __init__(self, of_body: Sequence[str]) -> None:
        self._places = {**dict.fromkeys(of_body, _OF_TASK), **_PLACES}
        self._nearest = Nearest([*self._places, "pretty"])

    def error(self, name: str, known: Sequence[str]) -> str:
        """Return the error of a parameter; its name stands before it.

        :param known: the names that the request may have.
        """
        here = f"expected {', '.join(known)}"
        alias = _ALIASES.get(name, "")
        if alias in known:
            return f"is not a parameter here: did you mean {alias}? {here.capitalize()}"
        if place := self._places.get(name):
            return f"{place}; here, {here}"
        if header := _HEADERS.get(name):
            return f"is not a parameter: send the header {quoted(header)[1:-1]}"
        nearest = alias or self._nearest.find(name) or Nearest(known).find(name)
        if not nearest:
            return f"is not a parameter here: {here}"
        place = "" if nearest in known else f" It {self._places[nearest]}."
        return f"is not a parameter here: did you mean {nearest}?{place} {here.capitalize()}"
