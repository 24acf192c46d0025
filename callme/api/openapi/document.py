"""The document as a whole, and the bytes that it is served as."""

from __future__ import annotations

from functools import cache
from typing import Any

from ... import __version__
from ...problem import encode
from . import answered, foreseen, operations, parts, taken

DESCRIPTION = """The daemon that calls you back: register a **task** (a name, a minute, an HTTP \
endpoint); when the minute comes callme makes the call, checks the answer, tries again if it must, \
and keeps a record.

A trailing slash makes no difference to a path. Where a path allows `GET`, it allows `HEAD`. What \
is not allowed is answered with `405` and `Allow`. Whatever is refused is refused as \
`application/problem+json` (RFC 9457). A parameter that callme does not know is refused."""


def document() -> dict[str, Any]:
    """Return the document (OpenAPI 3.1.1)."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "callme",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The daemon that this comes from."}],
        # A daemon on loopback may ask for no token.
        "security": [{"bearer": []}, {}],
        "tags": [
            {"name": "tasks", "description": "Callbacks, each to be made at one minute."},
            {"name": "daemon", "description": "callme itself."},
        ],
        "paths": operations.paths(),
        "components": {
            "schemas": taken.schemas() | answered.schemas() | foreseen.schemas(),
            "parameters": parts.parameters(),
            "responses": parts.responses(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A line of the daemon's `--token-file`, where it has one.",
                }
            },
        },
    }


@cache
def served(pretty: bool) -> bytes:
    """Return the document as JSON, which is made once."""
    return encode(document(), pretty)
