"""The curl command that registers a task again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from ...api.responses import task_url
from ...core.parameters import PARAMETERS
from ...core.task import Definition
from ...core.times import Key
from ..widgets import escape_invisible

MAX_ARGUMENT_CHARACTERS = 100_000
"""Length of a body up to which it is an argument: Linux accepts arguments of 128 KiB."""
NEXT_MINUTE = "+1m"
_END = "END"


def curl_command(definition: Definition, base_url: str, *, is_repeat: bool, token: bool) -> str:
    """Return a command for a POSIX shell that puts a task with a definition.

    It is ASCII, so that no terminal and no editor changes it. The values of secret headers are
    masked, as in responses.

    :param base_url: the scheme, the host and the base path of the API.
    :param is_repeat: whether the task is due in the next minute, and not in its own.
    :param token: whether the API requires a token, which the command takes from the environment.
    """
    body = dict(_members(definition))
    url = base_url + task_url("/task/", definition.key)
    if is_repeat:
        url = url.rpartition("@")[0]
        body = {"trigger_at": NEXT_MINUTE, **body}
    lines = [f"curl -X PUT {shlex.quote(url)}"]
    if token:
        lines.append('-H "Authorization: Bearer $CALLME_TOKEN"')
    lines.append("-H 'Content-Type: application/json'")
    text = json.dumps(body, separators=(",", ":"))
    if len(text) <= MAX_ARGUMENT_CHARACTERS:
        lines.append(f"--data-binary {shlex.quote(text)}")
    else:
        # JSON in ASCII is a single line, so that it cannot contain the end marker.
        lines.append(f"--data-binary @- <<'{_END}'\n{text}\n{_END}")
    return " \\\n  ".join(lines)


def _members(definition: Definition) -> Iterator[tuple[str, Any]]:
    """Yield the members of the body: those not in the URL that differ from the default."""
    for parameter in PARAMETERS:
        value = getattr(definition, parameter.name)
        if parameter.name in ("task_name", "trigger_at"):
            continue
        if parameter.is_required or value != parameter.default_value:
            yield parameter.name, value if parameter.to_json is None else parameter.to_json(value)


def key_text(key: Key) -> str:
    """Return a key as a text to copy: percent-encoded if it has invisible characters."""
    text = str(key)
    return text if escape_invisible(text) == text else task_url("", key)
