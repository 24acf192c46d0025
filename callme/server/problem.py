"""Errors as people read them: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from attrs import field, frozen

from ..errors import FieldError, Invalid

JSON_TYPE = b"application/json"
CALENDAR_TYPE = b"text/calendar"
NDJSON_TYPE = b"application/x-ndjson"
PROBLEM_TYPE = b"application/problem+json"


@frozen
class Problem(Exception):
    """What is wrong with a request; raised by a handler, it is the answer.

    :ivar status: the status of the answer.
    :ivar detail: one sentence for a person.
    :ivar errors: each thing wrong with the input.
    :ivar headers: further headers of the answer.
    :ivar more: further members of the answer.
    """

    status: int
    detail: str
    errors: Iterable[FieldError] = ()
    headers: dict[str, str] = field(factory=dict)
    extensions: dict[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, invalid: Invalid) -> Problem:
        """Return what an invalid input is answered with."""
        told = (f"{e.pointer.lstrip('/')}: {e.detail}" for e in invalid.errors[:3])
        return cls(422, "; ".join(told), invalid.errors)

    @property
    def members(self) -> dict[str, Any]:
        """The answer's JSON object."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        errors = [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]
        if errors:
            members["errors"] = errors
        return members | self.extensions


def encode(members: object, pretty: bool = False) -> bytes:
    """Return JSON in UTF-8 with a line feed at its end, which a terminal wants."""
    text = json.dumps(members, ensure_ascii=False, indent=2) if pretty else _compact(members)
    return text.encode("utf-8") + b"\n"


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
