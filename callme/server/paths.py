"""Paths of the web UI, safe redirects to them, and the base path in front of all paths."""

from __future__ import annotations

import re
from urllib.parse import quote

from attrs import field, frozen
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest

from ..core.times import Key
from ..errors import InvalidValue

OVERVIEW = "/"
# No path of the API begins with this prefix, because the name of a task is never the first segment.
_PREFIX = "/page/"
TASK = f"{_PREFIX}task/"
RESCHEDULE = f"{_PREFIX}reschedule/"
DELETE = f"{_PREFIX}delete/"
RUN = f"{_PREFIX}run/"
RAW = f"{_PREFIX}json/"
CURL = f"{_PREFIX}curl/"
NEW = f"{_PREFIX}new"
FIND = f"{_PREFIX}find"
ACKNOWLEDGE = f"{_PREFIX}acknowledge"
FAILURES = f"{_PREFIX}failures"
HOSTS = f"{_PREFIX}hosts"
HOST = f"{HOSTS}/"
RESCHEDULE_MANY = f"{_PREFIX}reschedule-many"
DELETE_MANY = f"{_PREFIX}delete-many"
LOGIN = f"{_PREFIX}login"
LOGOUT = f"{_PREFIX}logout"
STATIC = f"{_PREFIX}static/"

MAX_FORM = 16 * 1024
"""Maximum size of the body of a form, in bytes."""
MAX_TASK_FORM = 128 * 1024
"""Maximum size of the body of the form for a new task, which may have a payload, in bytes. A larger
form would block the reactor."""
MAX_SELECTION_FORM = 64 * 1024
"""Maximum size of the body of a form with the keys of selected tasks, in bytes."""


def url_for(prefix: str, key: Key) -> str:
    """Return the path of a web page about a task, percent-encoded."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def is_page(path: bytes) -> bool:
    """Return whether a percent-encoded path belongs to the web UI."""
    return path == OVERVIEW.encode() or path.startswith(_PREFIX.encode())


def max_form(path: bytes) -> int:
    """Return the maximum size of the body of a form for a path, in bytes."""
    if path == NEW.encode():
        return MAX_TASK_FORM
    return MAX_SELECTION_FORM if path in _SELECTION_PATHS else MAX_FORM


_SELECTION_PATHS = (RESCHEDULE_MANY.encode(), DELETE_MANY.encode())


def is_public(path: bytes) -> bool:
    """Return whether a path of the web UI requires no session, because it reveals no tasks."""
    return path in (LOGIN.encode(), LOGOUT.encode()) or path.startswith(STATIC.encode())


def safe_redirect_target(path: str) -> str:
    """Return the path to redirect to after a login.

    It is ``path`` if that is a page of the web UI. For any other value, such as a URL of another
    site, it is the overview.
    """
    path = path.partition("#")[0]
    plain = path.isascii() and path.isprintable() and "\\" not in path
    bare = path.partition("?")[0].encode()
    return path if plain and is_page(bare) and not is_public(bare) else OVERVIEW


API_SEGMENTS = (
    "task",
    "status",
    "batch",
    "reschedule",
    "hosts",
    "forecast",
    "healthz",
    "metrics",
    "openapi.json",
)
"""The first segments of the paths of the API."""
OWN_SEGMENTS = frozenset({*API_SEGMENTS, "page"})
"""The first segments of callme's own paths."""
MAX_BASE_PATH = 256
"""Maximum length of a base path."""
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# Twisted escapes "<" and ">" in texts and values, so that those in markup belong to tags.
_START_TAG = re.compile(rb"<[a-z][^>]*>")
# The positions in front of a path: in an attribute, in Location, and in Link (RFC 8288).
_LINK = re.compile(rb'(?:(?<= href=")|(?<= src=")|(?<= action=")|(?<= formaction="))(?=/)')
_PATH = re.compile(rb"^(?=/)")
_LINK_TARGET = re.compile(rb"(?<=<)(?=/)")


def parse_base_path(text: str) -> str:
    """Return the base path in an option, such as ``/callme``; empty for ``/``.

    :raises InvalidValue: when it is not the path of a URL, or begins with a path of callme itself.
    """
    path = text.removesuffix("/")
    if path and (not _BASE_PATH.fullmatch(path) or len(path) > MAX_BASE_PATH):
        raise InvalidValue("expected a path such as /callme")
    if (first := path[1:].partition("/")[0]) in OWN_SEGMENTS:
        raise InvalidValue(f"/{first} is a path of callme itself: expected another one")
    return path


@frozen
class BasePath:
    """Base path, below which a proxy serves callme as a part of another site.

    The base path is removed from each request when it arrives, and added to the paths in each
    response when it is sent. All other code uses paths that start at ``/``. A request without the
    base path is served too, because some proxies remove it.

    :ivar path: the path, which begins with a slash and does not end with one; empty for ``/``.
    """

    path: str = ""
    _in_request_line: re.Pattern[bytes] = field(init=False, repr=False, eq=False)

    @_in_request_line.default
    def _default_in_request_line(self) -> re.Pattern[bytes]:
        before = rb"([^ ]+ (?:(?i:https?)://[^/?# ]*)?)"
        return re.compile(before + re.escape(self.path.encode()) + rb"(?:/|(?=[? ]))")

    def remove(self, request_line: bytes) -> bytes:
        """Return a request line without the base path."""
        if not self.path:
            return request_line
        return self._in_request_line.sub(rb"\1/", request_line, count=1)

    def add_to_headers(self, headers: Headers) -> None:
        """Add the base path to the paths in the headers of a response."""
        if not self.path:
            return
        base = self.path.encode()
        for name, is_path in ((b"location", _PATH), (b"link", _LINK_TARGET)):
            values = headers.getRawHeaders(name)
            if values is not None:
                headers.setRawHeaders(name, [is_path.sub(base, value) for value in values])

    def add_to_page(self, markup: bytes) -> bytes:
        """Return the markup of a page with the base path in front of the paths of links and forms.

        :param markup: a part that contains only whole tags, in Twisted's serialization.
        """
        return _START_TAG.sub(lambda tag: _LINK.sub(self.path.encode(), tag[0]), markup)


NO_BASE_PATH = BasePath()


def base_path_of(request: IRequest) -> str:
    """Return the base path of the daemon that received a request; empty for ``/``."""
    return getattr(request, "base_path", "")
