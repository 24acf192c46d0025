"""What a client accepts (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re

from twisted.web.iweb import IRequest

from .problem import CALENDAR_TYPE, JSON_TYPE

_WEIGHT = re.compile(rb"q=([01](?:\.[0-9]{0,3})?)")


def wants_calendar(request: IRequest) -> bool:
    """Whether a request would rather have a calendar than JSON (RFC 9110, section 12.5.1).

    It must name it: whoever takes anything gets JSON.
    """
    wanted: dict[bytes, float] = {}
    for part in (request.getHeader(b"accept") or b"").lower().split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        weights = (_WEIGHT.fullmatch(parameter) for parameter in parameters)
        weight = next((float(found[1]) for found in weights if found), 1.0)
        wanted[kind] = max(weight, wanted.get(kind, 0.0))
    return wanted.get(CALENDAR_TYPE, 0.0) > wanted.get(JSON_TYPE, 0.0)


def wants_html(accept: bytes | None) -> bool:
    """Whether a browser asks, by its ``Accept`` (RFC 9110, section 12.5.1)."""
    for one in (accept or b"").decode("latin-1").split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        if kind == "text/html":
            return not any(p in ("q=0", "q=0.0", "q=0.00", "q=0.000") for p in parameters)
    return False
