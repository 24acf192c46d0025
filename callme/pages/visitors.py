"""Who looks at a page, and what their browser keeps of that."""

from __future__ import annotations

from typing import cast

from twisted.web.iweb import IRequest
from twisted.web.server import Request

from ..access import SESSION_COOKIES, IStranger, IVisitor
from ..core.access import Right
from .frame import Who


class Unknown(Exception):
    """Somebody must log in first."""


def who_asks(request: IRequest) -> Who:
    """Return who asks.

    :raises Unknown: where that is somebody who must log in first.
    """
    if IStranger.providedBy(request):
        raise Unknown
    visitor = cast(Request, request).getComponent(IVisitor)
    if visitor is None:
        return Who()
    return Who(visitor.session.right is Right.WRITE, visitor.session.form)


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
