"""Shared parameters and error responses of operations, and references to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...core.json_schema import Schema, integer, ref, string
from ...core.parameters import MAX_RETRY
from ...core.text.labels import LABEL_PATTERN
from ...core.transitions import PutOutcome
from ...errors import FieldError, Invalid
from ...hosts.operations import MAX_SETTINGS
from ...server.channel import MAX_BATCH, MAX_BODY, REQUEST_SECONDS
from ...server.problem import Problem
from ...store.interface import PutResult
from ..batch import MAX_TASKS
from ..requests import (
    DEFAULT_BULK_LIMIT,
    DEFAULT_HOURS,
    DEFAULT_LIMIT,
    HOST_PATTERN,
    MAX_ATTEMPT_NUMBER,
    MAX_BULK_LIMIT,
    MAX_HOURS,
    MAX_LIMIT,
    MAX_SPREAD_MINUTES,
    MAX_WAIT_SECONDS,
    ORDERS,
    WAIT_LIMIT_SECONDS,
)
from ..task_service import put_problem
from . import examples
from .builders import content, header, query_flag, query_parameter

PARAMETERS: dict[str, Schema] = {
    "pretty": query_flag("pretty", "Indent the response."),
    "dry_run": query_flag(
        "dry_run",
        "Change nothing. The response is the error of the real request, or `200` with its effect.",
    ),
    "hours": query_parameter(
        "hours",
        integer(1, MAX_HOURS) | {"default": DEFAULT_HOURS},
        "Hours from now that the forecast covers.",
    ),
    "all": query_flag("all", "Move `scheduled` and `succeeded` tasks too."),
    "future_only": query_flag("future_only", "Leave out tasks whose minute has begun."),
    "start_from": query_parameter(
        "start_from",
        ref("Key"),
        "First key of the page, inclusive. In a list of the tasks of one name, the key has that"
        " name.",
    ),
    "bulk_start_from": query_parameter(
        "start_from", ref("Key"), "First key to examine, inclusive: the `next` of a response."
    ),
    "bulk_limit": query_parameter(
        "limit",
        integer(1, MAX_BULK_LIMIT) | {"default": DEFAULT_BULK_LIMIT},
        "Maximum number of tasks to change. callme may change fewer, or none, even if the response"
        " has a `next`.",
    ),
    "spread": query_parameter(
        "spread",
        integer(1, MAX_SPREAD_MINUTES),
        "Minutes over which to distribute the tasks evenly, in the order of their keys.",
    ),
    "attempts_from": query_parameter(
        "start_from",
        integer(1, MAX_ATTEMPT_NUMBER),
        "Number of the last attempt in the response; by default the last one of the task.",
    ),
    "start_from_host": query_parameter(
        "start_from", string(), "First host of the page, inclusive."
    ),
    "limit": query_parameter(
        "limit",
        integer(1, MAX_LIMIT) | {"default": DEFAULT_LIMIT},
        "Maximum number of tasks on a page. A page may have fewer, or none, even if there is a next"
        " one.",
    ),
    "order": query_parameter(
        "order",
        string(enum=list(ORDERS), default=ORDERS[0]),
        "`name` orders by name and then time, `due` by time and then name.",
    ),
    "state": query_parameter("state", ref("State"), "Only tasks in this state."),
    "reason": query_parameter("reason", ref("Reason"), "Only tasks that failed for this reason."),
    "host": query_parameter(
        "host",
        string(pattern=f"^{HOST_PATTERN}$", examples=["example.com:443"]),
        "Only tasks whose callback has this host and port.",
    ),
    "prefix": query_parameter("prefix", ref("TaskName"), "Only tasks whose name begins with this."),
    "label": query_parameter(
        "label",
        {
            "type": "array",
            "items": string(pattern=f"^{LABEL_PATTERN}$", examples=["customer:42"]),
        },
        "Only tasks with this label, written `key:value`. If you repeat the parameter, only tasks"
        " with all these labels.",
        explode=True,
    ),
    "due_from": query_parameter("due_from", ref("Time"), "Only tasks of this minute or later."),
    "due_before": query_parameter("due_before", ref("Time"), "Only tasks before this minute."),
    "wait": query_parameter(
        "wait",
        integer(0, MAX_WAIT_SECONDS) | {"default": 0},
        "Seconds to wait for a change of the task. callme responds when it changes, and after"
        f" {WAIT_LIMIT_SECONDS} s at the latest.",
    ),
    "if_match": {
        "name": "If-Match",
        "in": "header",
        "description": "Replace the definition of the existing task, which must be `scheduled`."
        " callme has no other entity tags.",
        "schema": string(enum=["*"]),
    },
    "if_none_match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "With `*`: fail if the task exists. callme has no other entity tags.",
        "schema": string(examples=["*"]),
    },
}

_UNKNOWN_PARAMETER = '"colour" is not a parameter here: expected pretty'
_NOT_A_NUMBER = f'"many" is not accepted: expected an integer from 0 to {MAX_RETRY:,}'


def _put_refused(outcome: PutOutcome) -> Problem:
    problem = put_problem(examples.DEFINITION, PutResult(outcome, examples.SCHEDULED), 0)
    assert problem is not None
    return problem


_PROBLEMS: dict[str, tuple[str, Problem]] = {
    "BadRequest": (
        "The JSON, the query string or the path cannot be parsed.",
        Problem(400, _UNKNOWN_PARAMETER, errors=[FieldError("colour", _UNKNOWN_PARAMETER)]),
    ),
    "Unauthorized": (
        "The request has no token, or an unknown one.",
        Problem(401, "callme requires a token: Authorization: Bearer <token>"),
    ),
    "Forbidden": (
        "The token does not permit the request, or a web page of another site sent it.",
        Problem(403, "requests from web pages of other sites are not allowed"),
    ),
    "NotFound": (
        "The task does not exist.",
        Problem(404, f"there is no task {examples.KEY}: GET /status lists the tasks"),
    ),
    "RequestTimeout": (
        f"The request took more than {REQUEST_SECONDS} s to arrive.",
        Problem(408, f"the request took more than {REQUEST_SECONDS} s to arrive"),
    ),
    "Conflict": (
        "Another task has the key, or the task's state forbids the request.",
        Problem(409, f"{examples.KEY} is running: repeat the request when it has ended"),
    ),
    "TooManyHosts": (
        "Too many hosts have settings.",
        Problem(409, f"{MAX_SETTINGS:,} hosts have settings already: delete those of another host"),
    ),
    "PutConflict": ("Another definition has the key.", _put_refused(PutOutcome.CONFLICT)),
    "PreconditionFailed": (
        "The task exists (`If-None-Match`), or does not (`If-Match`), or the request supports no"
        " such precondition.",
        _put_refused(PutOutcome.EXISTS),
    ),
    "ContentTooLarge": (
        f"The body is larger than {MAX_BODY:,} bytes; that of a batch is larger than"
        f" {MAX_BATCH:,} bytes or has more than {MAX_TASKS:,} tasks.",
        Problem(413, f"the body has more than {MAX_BODY:,} bytes"),
    ),
    "UnsupportedMediaType": (
        "The `Content-Type` of the body is not JSON, or the body has a `Content-Encoding`.",
        Problem(415, 'the Content-Type is "text/csv": expected application/json'),
    ),
    "Invalid": (
        "A parameter is wrong, or the task could never run.",
        Problem.of(Invalid([FieldError("/retry", _NOT_A_NUMBER)])),
    ),
    "TooManyRequests": (
        "Clients send more to callme at once than it buffers.",
        Problem(
            429, "clients send more to callme at once than it buffers: repeat the request later"
        ),
    ),
    "TooManyWaiters": (
        "Too many clients use `wait`, or clients send more to callme at once than it buffers.",
        Problem(429, "too many clients wait for a task: try again later, or without wait"),
    ),
    "HeadersTooLarge": (
        "The headers are too large.",
        Problem(431, "there are more than 500 headers"),
    ),
    "Unavailable": (
        "The database is unavailable, or too many clients are connected.",
        Problem(503, "the database is unavailable: try again in a moment"),
    ),
}
"""Description and example of each error response."""
_RETRY_AFTER = {"Retry-After": header(integer(0), "Seconds after which to repeat the request.")}
_HEADERS = {
    "Unauthorized": {"WWW-Authenticate": header(string())},
    "TooManyRequests": _RETRY_AFTER,
    "TooManyWaiters": _RETRY_AFTER,
    "Unavailable": _RETRY_AFTER,
    "UnsupportedMediaType": {
        "Accept-Encoding": header(
            string(enum=["identity"]), "In the response to an encoded body.", required=False
        )
    },
}
_COMMON_ERRORS = (
    "BadRequest",
    "Unauthorized",
    "Forbidden",
    "RequestTimeout",
    "ContentTooLarge",
    "TooManyRequests",
    "HeadersTooLarge",
    "Unavailable",
)
"""The errors of every operation."""


def responses() -> dict[str, Any]:
    """Return the error responses, by name."""
    return {
        name: {
            "description": description,
            "content": content(
                ref("PutProblem" if example.extensions else "Problem"),
                "application/problem+json",
                problem=example.to_dict(),
            ),
            **({"headers": _HEADERS[name]} if name in _HEADERS else {}),
        }
        for name, (description, example) in _PROBLEMS.items()
    }


def parameter_refs(parameters: Iterable[str | Schema]) -> list[Schema]:
    """Return parameters, with names as references, and with the parameter of every operation."""
    return [
        {"$ref": f"#/components/parameters/{item}"} if isinstance(item, str) else item
        for item in (*parameters, "pretty")
    ]


def error_responses(names: Iterable[str], without: str = "") -> dict[str, Any]:
    """Return references to the errors of every operation and to the given errors, by status.

    :param without: an error of every operation that this one does not have.
    """
    by_status = {str(_PROBLEMS[name][1].status): name for name in (*_COMMON_ERRORS, *names)}
    return {
        status: {"$ref": f"#/components/responses/{name}"}
        for status, name in sorted(by_status.items())
        if name != without
    }
