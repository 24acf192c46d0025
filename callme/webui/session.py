"""What a form brings, and whether it is one of ours."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl

from twisted.web.iweb import IRequest
from twisted.web.server import Request

from ..security.sessions import verify_csrf
from ..security.tokens import Permission
from ..server.auth import SESSION_COOKIES, IAnonymous, IUserSession
from ..server.paths import MAX_FORM
from ..server.problem import Problem
from .layout import CSRF_FIELD, Viewer


class LoginRequired(Exception):
    """Somebody must log in first."""


def current_viewer(request: IRequest) -> Viewer:
    """Return who asks.

    :raises Unknown: where that is somebody who must log in first.
    """
    if IAnonymous.providedBy(request):
        raise LoginRequired
    visitor = cast(Request, request).getComponent(IUserSession)
    if visitor is None:
        return Viewer()
    return Viewer(visitor.session.permission is Permission.WRITE, visitor.session.csrf_token)


def set_session(request: Request, session: str, seconds: int) -> None:
    """Have a browser keep a session for so many seconds; for none, forget it."""
    # Whoever ends TLS before callme may say so by the origin of the form.
    secure = request.isSecure() or (request.getHeader(b"origin") or b"").startswith(b"https://")
    request.addCookie(
        SESSION_COOKIES[0 if secure else 1],
        session,
        path=b"/",
        max_age=str(seconds).encode(),
        secure=secure,
        httpOnly=True,
        sameSite=b"strict",
    )


_TYPE = b"application/x-www-form-urlencoded"
_MOST_FIELDS = 10


def parse_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; each may be given once.

    :raises Problem: for what is no form, and for one that was not given out in this session: the
        gate has made sure already that no other page has sent it.
    """
    kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _TYPE:
        raise Problem(415, f"a form is sent as {_TYPE.decode()}")
    assert request.content is not None
    data = request.content.read()
    if len(data) > MAX_FORM:
        raise Problem(413, f"a form is larger than {MAX_FORM:,} bytes")
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise Problem(400, "the form cannot be read") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem(400, "the form has a field twice")
    return fields


def check_session(request: Request, fields: dict[str, str]) -> None:
    """Refuse a form that was not given out in this session, where there is one."""
    visitor = request.getComponent(IUserSession)
    if visitor is not None and not verify_csrf(visitor.session, fields.get(CSRF_FIELD, "")):
        raise Problem(403, "this form is of another session: open it anew")
