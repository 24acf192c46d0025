"""Authentication and authorization of HTTP requests: tokens, sessions, hosts and origins."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Container, Iterable
from itertools import chain, islice

from attrs import define, field, frozen
from twisted.web.iweb import IRequest
from twisted.web.server import Request

from ..core.times import Key
from ..errors import quoted
from ..security.hosts import authority_of, is_local, origin_of, path_of, printable
from ..security.proxies import TrustedProxies
from ..security.secret_file import SecretFile
from ..security.sessions import Session, is_well_formed, session_of
from ..security.tokens import FULL_ACCESS, Access, Permission, Tokens
from .negotiation import wants_html
from .paths import LOGIN, LOGOUT, OVERVIEW, base_path_of, is_page, is_public
from .problem import Problem
from .refusals import Refusal, peer_name

SESSION_COOKIES = ("__Host-callme", "__Secure-callme", "callme")
"""Names of the session cookie: over TLS, over TLS below a base path, and without TLS.

RFC 6265bis, section 4.1.3, defines the prefixes; ``__Host-`` requires the path ``/``.
"""
_MAX_SESSIONS = 16
"""Maximum number of verified cookies of a request; each costs one digest per token."""
CHALLENGE = 'Bearer realm="callme"'
"""The challenge of a response with status 401 (RFC 6750, section 3)."""
_HEALTH_PATHS = (b"/healthz", b"/healthz/")
_LIMITED_PATHS = re.compile(
    rb"/(?:(?:task|status|batch|reschedule)(?:/|$)|(?:healthz|openapi\.json)/?$)"
)
"""First segments of the paths that a token with a prefix permits; the others concern all tasks."""
_OWN_SITES = (b"same-origin", b"none")
"""Values of ``Sec-Fetch-Site`` for callme's own web pages, and for actions of the user."""
_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")


READ_ONLY = "this session is read-only: log in with another token"
"""Error for a change that a session does not permit."""


def session_cookie(*, secure: bool, at_root: bool) -> str:
    """Return the name of the session cookie.

    :param secure: whether the client uses TLS.
    :param at_root: whether the cookie's path is ``/``.
    """
    if not secure:
        return SESSION_COOKIES[2]
    return SESSION_COOKIES[0] if at_root else SESSION_COOKIES[1]


class AuthorizedRequest(Request):
    """Request that a :class:`Gate` has authorized.

    :ivar access: the access that the credentials grant. An anonymous client may log in, and query
        the health.
    :ivar user_session: the session that authorizes the request; ``None`` if it has a token.
    :ivar refusal: the reason to count, if the request is refused before any other work.
    :ivar authority: the host and port by which the client reached callme; set for web pages.
    :ivar request_id: identifies the request in the log and in the response's ``X-Request-Id``.
    """

    access: Access = FULL_ACCESS
    user_session: Session | None = None
    refusal: Refusal | None = None
    authority = b""
    request_id = ""

    @property
    def client_name(self) -> str:
        """The address of the client for the log."""
        return peer_name(self.getClientAddress())


@frozen(kw_only=True)
class Author:
    """Client that makes a change, for the log.

    :ivar name: the label of its token, or its address.
    :ivar request_id: the identifier of its request.
    :ivar prefix: the beginning of the names that it has access to.
    """

    name: str
    request_id: str
    prefix: str = ""


def author_of(request: IRequest) -> Author:
    """Return the author of the changes that a request makes."""
    access = access_of(request)
    name = access.label or client_name(request)
    request_id = getattr(request, "request_id", "")
    return Author(name=name, request_id=request_id, prefix=access.prefix)


def client_name(request: IRequest) -> str:
    """Return the address of the client that sent a request, for the log."""
    if isinstance(request, AuthorizedRequest):
        return request.client_name
    return peer_name(request.getClientAddress())


def access_of(request: IRequest) -> Access:
    """Return the access that the credentials of a request grant."""
    return getattr(request, "access", FULL_ACCESS)


def user_session_of(request: IRequest) -> Session | None:
    """Return the session that authorizes a request; ``None`` if it has a token."""
    return getattr(request, "user_session", None)


def base_url(request: Request, origins: Container[bytes]) -> str:
    """Return the scheme, host and base path by which the client of a web page reaches callme.

    :param origins: as for :class:`Gate`; behind a proxy they determine the scheme.
    """
    authority: bytes = getattr(request, "authority", b"")
    if is_local(authority) is None:
        # The target was in absolute form, and the gate has checked the host in it.
        authority = b"localhost"
    secure = request.isSecure() or origin_of(b"https", authority) in origins
    scheme = "https" if secure else "http"
    return f"{scheme}://{authority.decode('ascii')}{base_path_of(request)}"


def check_name(request: IRequest, target: Key | str) -> None:
    """Check that a request has access to a task, or to the tasks of a name.

    :raises Problem: when it has not, whether such a task exists or not.
    """
    prefix = access_of(request).prefix
    name = target.task_name if isinstance(target, Key) else target
    if not name.startswith(prefix):
        raise _out_of_prefix(prefix)


def narrow_prefix(request: IRequest, prefix: str) -> str:
    """Return the beginning of names that a request selects, narrowed to those it has access to.

    :param prefix: the beginning that the request selects.
    :raises Problem: when the request has access to no such name.
    """
    own = access_of(request).prefix
    if own.startswith(prefix):
        return own
    check_name(request, prefix)
    return prefix


def _out_of_prefix(prefix: str) -> Problem:
    detail = f"this token is limited to tasks whose names begin with {quoted(prefix)}"
    return Problem(403, detail, refusal=Refusal.PREFIX)


@define(kw_only=True)
class Gate:
    """Authorization of every request.

    :ivar file: the file of accepted tokens; ``None`` if no token is required.
    :ivar any_host: whether every ``Host`` is accepted if no token is required. This is necessary
        if other machines can reach the port, because they use other names for this machine.
    :ivar origins: the origins of callme's web pages behind a proxy that changes the scheme or the
        host; see :func:`~.security.hosts.parse_origin`.
    :ivar proxies: the proxies that are trusted with the address of a client.
    :ivar now: returns the wall-clock time: seconds since 1970.
    """

    file: SecretFile[Tokens] | None = None
    any_host: bool = False
    origins: frozenset[bytes] = frozenset()
    proxies: TrustedProxies = field(factory=TrustedProxies)
    now: Callable[[], float] = time.time

    def authorize(
        self, request: AuthorizedRequest, method: bytes, target: bytes, version: bytes
    ) -> Problem | None:
        """Authorize a request by its head; return the problem to reject it with, if any."""
        hosts = list(request.requestHeaders.getRawHeaders(b"host", []))
        try:
            authority = authority_of(target, hosts, required=version != b"HTTP/1.0")
        except ValueError as error:
            return Problem(400, str(error))
        local = True if authority is None else is_local(authority)
        if local is None:
            return Problem(
                400, f"{printable(authority or b'')} is not a host: expected a name or an address"
            )
        path = path_of(target)
        if _is_cross_site(request, method, path):
            detail = "requests from web pages of other sites are not allowed"
            return Problem(403, detail, refusal=Refusal.CROSS_ORIGIN)
        if self.file is not None:
            return self._check_token(self.file.value, request, method, path, authority)
        if not local and not self.any_host and not self._is_named(authority):
            return Problem(
                403,
                f"the host {printable(authority or b'')} is neither a loopback address nor a name "
                "without a dot: to accept other hosts, set the option --token-file, or --origin",
                refusal=Refusal.HOST,
            )
        return self._check_origin(request, method, path, authority)

    def _check_token(
        self,
        tokens: Tokens,
        request: AuthorizedRequest,
        method: bytes,
        path: bytes,
        authority: bytes | None,
    ) -> Problem | None:
        # A request with a token needs no check of host and origin, because no browser adds a token
        # to the requests of a web page. Browsers do add session cookies, which are checked below.
        values = request.requestHeaders.getRawHeaders(b"authorization")
        request.access = access = tokens.access_of(values[0] if values else None)
        permission, safe = access.permission, method in _SAFE_METHODS
        if access.prefix and not _LIMITED_PATHS.match(path):
            return _out_of_prefix(access.prefix)
        if permission is Permission.WRITE or (permission is Permission.READ and safe):
            return None
        if permission is Permission.READ:
            detail, error = (
                "this token only permits GET: send one that is not marked read: in the token file",
                ', error="insufficient_scope"',
            )
            return _challenge(403, detail, error, refusal=Refusal.READ_ONLY)
        if safe and path in _HEALTH_PATHS:
            return None
        if permission is Permission.UNKNOWN:
            detail, error = (
                "callme does not know the token: send one from the token file, without read: and "
                "label",
                ', error="invalid_token"',
            )
            return _challenge(401, detail, error, refusal=Refusal.TOKEN_WRONG)
        if is_page(path):
            problem = self._check_origin(request, method, path, authority)
            return problem or self._check_session(tokens, request, method, path)
        return _token_required()

    def _is_named(self, authority: bytes | None) -> bool:
        """Return whether a host belongs to one of :attr:`origins`."""
        if authority is None or not self.origins:
            return False
        return not self.origins.isdisjoint(
            origin_of(scheme, authority) for scheme in (b"http", b"https")
        )

    def _is_own(self, origin: bytes, request: AuthorizedRequest, authority: bytes | None) -> bool:
        """Return whether an origin (RFC 6454) is that of callme's own web pages."""
        origin = origin.lower()
        if origin in self.origins:
            return True
        if authority is None or self._is_named(authority):
            # The same host with a different scheme is a different origin.
            return False
        return origin == origin_of(b"https" if request.isSecure() else b"http", authority)

    def _check_origin(
        self, request: AuthorizedRequest, method: bytes, path: bytes, authority: bytes | None
    ) -> Problem | None:
        # Browsers send one origin, which is "null" if they conceal it.
        origins = list(request.requestHeaders.getRawHeaders(b"origin", []))
        foreign = [one for one in origins if not self._is_own(one, request, authority)]
        if foreign:
            return Problem(
                403,
                f"requests from web pages of the origin {printable(foreign[0])} are not allowed; "
                "if a proxy serves callme there, set the option --origin",
                refusal=Refusal.CROSS_ORIGIN,
            )
        if not origins and method == b"POST" and is_page(path) and path != OVERVIEW.encode():
            # Only browsers send forms. A form without an origin may come from another site.
            detail = "a form needs an Origin header, which this request does not have"
            return Problem(403, detail, refusal=Refusal.CROSS_ORIGIN)
        return None

    def _check_session(
        self, tokens: Tokens, request: AuthorizedRequest, method: bytes, path: bytes
    ) -> Problem | None:
        now = self.now()
        cookies = islice(filter(is_well_formed, _cookies(request)), _MAX_SESSIONS)
        sessions = (session_of(tokens, cookie, now) for cookie in cookies)
        session = next((valid for valid in sessions if valid is not None), None)
        if session is None:
            # Only a client that displays HTML can use the login form.
            if not is_public(path) and not wants_html(request.getHeader(b"accept")):
                return _token_required()
            return None
        if (
            session.access.permission is Permission.READ
            and method not in _SAFE_METHODS
            and path not in (LOGIN.encode(), LOGOUT.encode())
        ):
            return Problem(403, READ_ONLY, refusal=Refusal.READ_ONLY)
        request.access, request.user_session = session.access, session
        return None


def _is_cross_site(request: AuthorizedRequest, method: bytes, path: bytes) -> bool:
    """Return whether a request comes from a web page of another site (W3C, Fetch Metadata).

    Browsers send this metadata even with requests without an ``Origin``. A link to a web page may
    be followed from any site.
    """
    headers = request.requestHeaders
    sites = headers.getRawHeaders(b"sec-fetch-site")
    if sites is None or all(site in _OWN_SITES for site in sites):
        return False
    is_link = (
        method == b"GET"
        and is_page(path)
        and headers.getRawHeaders(b"sec-fetch-mode") == [b"navigate"]
        and headers.getRawHeaders(b"sec-fetch-dest") == [b"document"]
    )
    return not is_link


def _cookies(request: Request) -> Iterable[str]:
    """Return the values of the session cookies, those with the names for TLS first.

    Another program on the same host may set cookies with the same names, and a server must not
    rely on their order (RFC 6265, section 4.2.2).
    """
    values: dict[str, list[str]] = {name: [] for name in SESSION_COOKIES}
    for header in request.requestHeaders.getRawHeaders(b"cookie") or ():
        for part in header.decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            if name in values:
                values[name].append(value)
    return chain.from_iterable(values.values())


def _token_required() -> Problem:
    detail = "callme requires a token: Authorization: Bearer <token>"
    return _challenge(401, detail, refusal=Refusal.TOKEN_MISSING)


def _challenge(status: int, detail: str, error: str = "", *, refusal: Refusal) -> Problem:
    """Return a problem with the challenge that RFC 6750, section 3, requires."""
    headers = {"WWW-Authenticate": CHALLENGE + error}
    return Problem(status, detail, headers=headers, refusal=refusal)
