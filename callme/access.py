"""The gate that every request passes before anything else is done for it."""

from __future__ import annotations

from attrs import define
from twisted.web.iweb import IRequest
from zope.interface import Interface, alsoProvides

from .core.access import (
    Right,
    Tokens,
    authority_of,
    is_foreign,
    is_local,
    path_of,
    told,
)
from .problem import Problem
from .secret_file import SecretFile

_CHALLENGE = 'Bearer realm="callme"'
_OPEN = (b"/healthz", b"/healthz/")
_READING = (b"GET", b"HEAD")


class IStranger(Interface):
    """A request of somebody who showed no token: told whether callme is well, and no more."""


@define
class Gate:
    """Decides who may ask.

    :ivar file: the tokens that callers must show; ``None`` where none are asked for.
    :ivar any_host: whether every ``Host`` is answered where none are asked for, as it must be
        where callme has been given other names than this machine's own.
    """

    file: SecretFile[Tokens] | None = None
    any_host: bool = False

    def judge(
        self, request: IRequest, method: bytes, target: bytes, version: bytes
    ) -> Problem | None:
        """Return why a request is refused, of which no more than the head need have arrived."""
        headers = request.requestHeaders
        hosts = headers.getRawHeaders(b"host") or []
        try:
            authority = authority_of(target, hosts, required=version != b"HTTP/1.0")
        except ValueError as error:
            return Problem(400, str(error))
        local = True if authority is None else is_local(authority)
        if local is None:
            return Problem(400, f"{told(authority or b'')} is no host: expected a name or address")
        if self.file is not None:
            return self._judge_token(self.file.content, request, method, target)
        if not local and not self.any_host:
            return Problem(
                403,
                f"the host {told(authority or b'')} is neither a loopback address nor a name "
                "without a dot: without tokens, callme answers to no other",
            )
        origins = headers.getRawHeaders(b"origin")
        if origins and is_foreign(origins, authority):
            return Problem(403, f"pages of the origin {told(origins[0])} may not ask callme")
        return None

    def _judge_token(
        self, tokens: Tokens, request: IRequest, method: bytes, target: bytes
    ) -> Problem | None:
        # Where there are tokens, neither host nor origin matters: no page has a token that its
        # visitor's browser would send by itself.
        given = request.requestHeaders.getRawHeaders(b"authorization")
        right = tokens.right_of(given[0] if given else None)
        reading = method in _READING
        if right is Right.WRITE or (right is Right.READ and reading):
            return None
        if right is Right.READ:
            return _challenge(403, "this token is for GET only", ', error="insufficient_scope"')
        if reading and path_of(target) in _OPEN:
            alsoProvides(request, IStranger)
            return None
        if right is Right.UNKNOWN:
            return _challenge(401, "callme does not know this token", ', error="invalid_token"')
        return _challenge(401, "callme asks for a token: Authorization: Bearer <token>")


def _challenge(status: int, detail: str, error: str = "") -> Problem:
    """Return a refusal as RFC 6750, section 3, has it."""
    return Problem(status, detail, headers={"WWW-Authenticate": _CHALLENGE + error})
