"""Responses of callme: pure functions that read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from .documents import Deleted
from .errors import ProblemError, problem_error


@frozen(kw_only=True)
class Response:
    """A response, read whole.

    :ivar headers: the headers, with names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def failure(request: str, response: Response) -> ProblemError | None:
    """Return the exception that a response is, or ``None`` for a success.

    :param request: the method and path, for the text.
    """
    if 200 <= response.status < 300:
        return None
    try:
        problem = json.loads(response.body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        # A proxy in between responds with a page of its own.
        problem = {"detail": response.body[:200].decode("utf-8", "replace")}
    return problem_error(request, response.status, problem)


def one(response: Response) -> Any:
    """Return the JSON of a response."""
    return json.loads(response.body)


def ndjson(response: Response) -> list[Any]:
    """Return the JSON of each line of a response."""
    return [json.loads(line) for line in response.body.split(b"\n") if line]


def deleted(response: Response) -> Deleted:
    """Return the result of a deletion: for one task, callme responds with 204 and no body."""
    if not response.body:
        return {"deleted": 1, "skipped": []}
    result: Deleted = one(response)
    return result
