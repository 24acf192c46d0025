"""Paths of the web UI: their names, which of them are public, and safe redirects to them."""

from __future__ import annotations

from urllib.parse import quote

from ..core.times import Key

OVERVIEW = "/"
# The API has nothing below this path. A task's name may be part of an API path, but it is never
# the first segment.
_PREFIX = "/page/"
TASK = f"{_PREFIX}task/"
RESCHEDULE = f"{_PREFIX}reschedule/"
DELETE = f"{_PREFIX}delete/"
RUN = f"{_PREFIX}run/"
RAW = f"{_PREFIX}json/"
CURL = f"{_PREFIX}curl/"
FIND = f"{_PREFIX}find"
ACKNOWLEDGE = f"{_PREFIX}acknowledge"
LOGIN = f"{_PREFIX}login"
LOGOUT = f"{_PREFIX}logout"
STATIC = f"{_PREFIX}static/"

MAX_FORM = 16 * 1024
"""Maximum size of the body of a form, in bytes."""


def url_for(prefix: str, key: Key) -> str:
    """Return the path of a web page about a task, percent-encoded."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def is_page(path: bytes) -> bool:
    """Return whether a path, percent-encoded as in the request, belongs to the web UI."""
    return path == OVERVIEW.encode() or path.startswith(_PREFIX.encode())


def is_public(path: bytes) -> bool:
    """Return whether a path of the web UI needs no session: it reveals nothing about tasks."""
    return path in (LOGIN.encode(), LOGOUT.encode()) or path.startswith(STATIC.encode())


def safe_redirect_target(path: str) -> str:
    """Return the path to redirect to after a login: ``path`` if it is a page of the web UI.

    Any other value, such as a URL of another site, yields the overview.
    """
    path = path.partition("#")[0]
    plain = path.isascii() and path.isprintable() and "\\" not in path
    bare = path.partition("?")[0].encode()
    return path if plain and is_page(bare) and not is_public(bare) else OVERVIEW
