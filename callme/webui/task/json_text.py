"""JSON for people: line breaks and indentation between unchanged tokens."""

from __future__ import annotations

import json
import re

MAX_PARSED_CHARACTERS = 64 * 1024
"""Length of a text up to which it is parsed, which blocks the reactor for a few milliseconds."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_OPENING, _CLOSING = ("{", "["), ("}", "]")
_INDENT = "  "
_MAX_INDENTS = 20
"""Indentation of the deepest values: without a bound, it would outgrow the text."""

MAX_DEPTH = 100
"""Levels of nested values up to which a text is indented; Python's parser has no fixed limit."""


def indent_json(text: str, limit: int) -> tuple[str, bool] | None:
    """Return an object or a list with line breaks, and whether the text is complete.

    Numbers, strings and the order of members do not change, because the text is not encoded again.

    :param limit: the maximum number of characters of the result.
    :return: ``None`` for a text that is not a JSON object or list, is too long to be parsed, or is
        nested too deeply.
    """
    if not _is_structure(text):
        return None
    parts: list[str] = []
    size, depth, before = 0, 0, ""
    for mark in (match[0] for match in _TOKEN.finditer(text)):
        if size > limit:
            return "".join(parts)[:limit], False
        depth -= mark in _CLOSING
        if before in _OPENING and mark in _CLOSING:
            # An empty object or list stays in one line.
            part = mark
        elif mark in _CLOSING or before in _OPENING or before == ",":
            part = f"\n{_INDENT * min(depth, _MAX_INDENTS)}{mark}"
        else:
            part = f"{mark} " if mark == ":" else mark
        depth += mark in _OPENING
        if depth > MAX_DEPTH:
            return None
        parts.append(part)
        size += len(part)
        before = mark
    indented = "".join(parts)
    return indented[:limit], len(indented) <= limit


def _is_structure(text: str) -> bool:
    if len(text) > MAX_PARSED_CHARACTERS or text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
