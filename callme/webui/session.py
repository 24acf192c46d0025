"""Sessions and submitted forms: the viewer of a request, and the fields of a form."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from twisted.web.iweb import IRequest
from twisted.web.server import Request

from ..security.sessions import verify_csrf
from ..security.tokens import Permission
from ..server.auth import READ_ONLY, access_of, session_cookie, user_session_of
from ..server.paths import MAX_FORM, MAX_SELECTION_FORM, base_path_of
from ..server.problem import Problem
from .layout import CSRF_FIELD, Viewer


class LoginRequired(Exception):
    """The client must log in first."""


def current_viewer(request: IRequest) -> Viewer:
    """Return the viewer that sent a request.

    :raises LoginRequired: if the viewer must log in first.
    """
    access, session = access_of(request), user_session_of(request)
    if access.is_anonymous:
        raise LoginRequired
    csrf_token = None if session is None else session.csrf_token
    return Viewer(access.permission is Permission.WRITE, csrf_token)


def check_may_change(viewer: Viewer) -> None:
    """Check that a viewer may change something.

    :raises Problem: 403.
    """
    if not viewer.may_change:
        raise Problem(403, READ_ONLY)


def set_session(request: Request, session: str, seconds: int) -> None:
    """Set the session cookie.

    :param seconds: its lifetime; 0 deletes it.
    """
    # Behind a proxy that terminates TLS, the origin of the form tells that it was sent by HTTPS.
    secure = request.isSecure() or (request.getHeader(b"origin") or b"").startswith(b"https://")
    base_path = base_path_of(request)
    request.addCookie(
        session_cookie(secure=secure, at_root=not base_path),
        session,
        path=base_path.encode() or b"/",
        max_age=str(seconds).encode(),
        secure=secure,
        httpOnly=True,
        sameSite=b"strict",
    )


_TYPE = b"application/x-www-form-urlencoded"
MAX_FIELDS = 10
MAX_SELECTED = 100
"""Maximum number of values of the field that may occur repeatedly."""


def parse_form(
    request: Request, max_bytes: int = MAX_FORM, max_fields: int = MAX_FIELDS
) -> dict[str, str]:
    """Return the fields of a submitted form, each of which may occur once.

    :raises Problem: for a body that is not a form.
    """
    return _once_each(_parse_pairs(request, max_bytes, max_fields))


def parse_selection(request: Request, name: str) -> tuple[dict[str, str], list[str]]:
    """Return the fields of a submitted form, and all values of one that may occur repeatedly.

    :param name: the name of that field.
    :raises Problem: for a body that is not a form.
    """
    pairs = _parse_pairs(request, MAX_SELECTION_FORM, MAX_FIELDS + MAX_SELECTED)
    others = [pair for pair in pairs if pair[0] != name]
    return _once_each(others), [value for found, value in pairs if found == name]


def _once_each(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem(400, "a field of the form occurs twice")
    return fields


def _parse_pairs(request: Request, most_bytes: int, most_fields: int) -> list[tuple[str, str]]:
    """Return the names and values of a form; cross-origin forms have been rejected before."""
    kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _TYPE:
        raise Problem(415, f"the content type must be {_TYPE.decode()}")
    assert request.content is not None
    data = request.content.read()
    if len(data) > most_bytes:
        raise Problem(413, f"the form exceeds {most_bytes:,} bytes")
    try:
        return parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=most_fields,
        )
    except ValueError:
        raise Problem(400, "the form is malformed") from None


def check_csrf(request: Request, fields: dict[str, str]) -> None:
    """Verify the CSRF token of a form, if the request belongs to a session.

    :raises Problem: if the form belongs to another session.
    """
    session = user_session_of(request)
    if session is not None and not verify_csrf(session, fields.get(CSRF_FIELD, "")):
        raise Problem(403, "the form belongs to another session: reload the page")
