"""Task definitions for tests, and the time at which every test begins."""

from __future__ import annotations

from typing import Any

from callme.core.parameters import parse_definition
from callme.core.task import Definition

NOON = 1_800_014_400
"""2027-01-15T12:00:00Z."""
SINK = "http://sink.example/"


def definition(name: str = "task", at: int = NOON, **more: Any) -> Definition:
    """Return a definition, parsed as the API parses it."""
    body = {"trigger_at": at, "callback": SINK, "max_delay": 525_600, **more}
    return parse_definition(body, now=at, task_name=name)
