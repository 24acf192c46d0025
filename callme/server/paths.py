"""Which paths are pages for people, who may see which of them, and who wants to see one."""

from __future__ import annotations

from urllib.parse import quote

from ..core.times import Key

OVERVIEW = "/"
# All others are below a path that the API has nothing at. Task names stand in paths too, but
# never first in one.
_PREFIX = "/page/"
TASK = f"{_PREFIX}task/"
RESCHEDULE = f"{_PREFIX}reschedule/"
DELETE = f"{_PREFIX}delete/"
FIND = f"{_PREFIX}find"
LOGIN = f"{_PREFIX}login"
LOGOUT = f"{_PREFIX}logout"
STATIC = f"{_PREFIX}static/"

MAX_FORM = 16 * 1024
"""Bytes of the body of a form."""


def url_for(prefix: str, key: Key) -> str:
    """Return the path of a page about a task."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def is_page(path: bytes) -> bool:
    """Whether a path, as it stands in a request, is one of a page."""
    return path == OVERVIEW.encode() or path.startswith(_PREFIX.encode())


def is_public(path: bytes) -> bool:
    """Whether a page is for strangers too: it tells nothing of tasks."""
    return path in (LOGIN.encode(), LOGOUT.encode()) or path.startswith(STATIC.encode())


def safe_redirect_target(path: str) -> str:
    """Return where to go after logging in: a page of ours, whatever was asked for."""
    path = path.partition("#")[0]
    plain = path.isascii() and path.isprintable() and "\\" not in path
    bare = path.partition("?")[0].encode()
    return path if plain and is_page(bare) and not is_public(bare) else OVERVIEW
