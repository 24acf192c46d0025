"""The gate that every request passes before anything else is done for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from attrs import define, frozen
from twisted.web.server import Request
from zope.interface import Attribute, Interface, alsoProvides, implementer

from ..security.hosts import authority_of, is_cross_origin, is_local, path_of, printable
from ..security.secret_file import SecretFile
from ..security.sessions import Session, session_of
from ..security.tokens import Permission, Tokens
from .negotiation import wants_html
from .paths import LOGOUT, is_page, is_public
from .problem import Problem

SESSION_COOKIES = ("__Host-callme", "callme")
"""What a session's cookie is called: the first over TLS (RFC 6265bis, section 4.1.3)."""
_CHALLENGE = 'Bearer realm="callme"'
_OPEN = (b"/healthz", b"/healthz/")
_READING = (b"GET", b"HEAD")


class IAnonymous(Interface):
    """A request of somebody who showed no token: told whether callme is well, and no more."""


class IUserSession(Interface):
    """Somebody in a browser, as the gate has let them in; whoever showed a token there is none."""

    session = Attribute("The :class:`~callme.core.sessions.Session`.")


@implementer(IUserSession)
@frozen
class Visitor:
    """Somebody in a browser who has logged in."""

    session: Session


@define
class Gate:
    """Decides who may ask.

    :ivar file: the tokens that callers must show; ``None`` where none are asked for.
    :ivar any_host: whether every ``Host`` is answered where none are asked for, as it must be
        where callme has been given other names than this machine's own.
    :ivar now: the wall clock: seconds since 1970.
    """

    file: SecretFile[Tokens] | None = None
    any_host: bool = False
    now: Callable[[], float] = time.time

    def authorize(
        self, request: Request, method: bytes, target: bytes, version: bytes
    ) -> Problem | None:
        """Return why a request is refused, of which no more than the head need have arrived."""
        headers = request.requestHeaders
        hosts = list(headers.getRawHeaders(b"host", []))
        try:
            authority = authority_of(target, hosts, required=version != b"HTTP/1.0")
        except ValueError as error:
            return Problem(400, str(error))
        local = True if authority is None else is_local(authority)
        if local is None:
            return Problem(
                400, f"{printable(authority or b'')} is no host: expected a name or address"
            )
        if self.file is not None:
            return self._judge_token(self.file.value, request, method, target, authority)
        if not local and not self.any_host:
            return Problem(
                403,
                f"the host {printable(authority or b'')} is neither a loopback address nor a name "
                "without a dot: without tokens, callme answers to no other",
            )
        return _judge_origin(request, method, target, authority)

    def _judge_token(
        self,
        tokens: Tokens,
        request: Request,
        method: bytes,
        target: bytes,
        authority: bytes | None,
    ) -> Problem | None:
        # Where there are tokens, neither host nor origin matters: no page has a token that its
        # visitor's browser would send by itself. A session it would, so pages are judged apart.
        given = request.requestHeaders.getRawHeaders(b"authorization")
        right = tokens.permission_of(given[0] if given else None)
        reading = method in _READING
        if right is Permission.WRITE or (right is Permission.READ and reading):
            return None
        if right is Permission.READ:
            return _challenge(403, "this token is for GET only", ', error="insufficient_scope"')
        if reading and path_of(target) in _OPEN:
            alsoProvides(request, IAnonymous)
            return None
        if right is Permission.UNKNOWN:
            return _challenge(401, "callme does not know this token", ', error="invalid_token"')
        if is_page(path_of(target)):
            refusal = _judge_origin(request, method, target, authority)
            return refusal or self._judge_session(tokens, request, method, target)
        return _challenge(401, "callme asks for a token: Authorization: Bearer <token>")

    def _judge_session(
        self, tokens: Tokens, request: Request, method: bytes, target: bytes
    ) -> Problem | None:
        found = (session_of(tokens, cookie, self.now()) for cookie in _cookies(request))
        session = next((one for one in found if one is not None), None)
        path = path_of(target)
        if session is None:
            # Who cannot read a log-in form is told what the API tells.
            if not is_public(path) and not wants_html(request.getHeader(b"accept")):
                return _challenge(401, "callme asks for a token: Authorization: Bearer <token>")
            alsoProvides(request, IAnonymous)
            return None
        if (
            session.permission is Permission.READ
            and method not in _READING
            and path != LOGOUT.encode()
        ):
            return Problem(403, "whoever logged in here may look, and change nothing")
        request.setComponent(IUserSession, Visitor(session))
        return None


def _judge_origin(
    request: Request, method: bytes, target: bytes, authority: bytes | None
) -> Problem | None:
    origins = list(request.requestHeaders.getRawHeaders(b"origin", []))
    if origins and is_cross_origin(origins, authority):
        return Problem(403, f"pages of the origin {printable(origins[0])} may not ask callme")
    if not origins and method not in _READING and is_page(path_of(target)):
        # Only browsers send forms, and those that say not from where might send another page's.
        return Problem(403, "a form has to come with an Origin, which this request has not")
    return None


def _cookies(request: Request) -> Iterable[str]:
    """Return the cookies that may be a session, the better guarded first, one of each name."""
    given: dict[str, str] = {}
    for header in request.requestHeaders.getRawHeaders(b"cookie") or ():
        for part in header.decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            given.setdefault(name, value)
    return [given[name] for name in SESSION_COOKIES if name in given]


def _challenge(status: int, detail: str, error: str = "") -> Problem:
    """Return a refusal as RFC 6750, section 3, has it."""
    return Problem(status, detail, headers={"WWW-Authenticate": _CHALLENGE + error})
