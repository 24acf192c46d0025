"""Page layout: the header and footer of every page, HTTP headers and static assets."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files

from attrs import field, frozen
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from .. import __version__
from ..server.paths import LOGIN, LOGOUT, NEW, STATIC
from .widgets import Renderable, escape_invisible, template

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}


@frozen(kw_only=True)
class Asset:
    """A static file.

    :ivar etag: a digest of its content. The name contains it too, so that the content under a
        name never changes.
    """

    name: str
    content_type: bytes
    etag: bytes
    content: bytes

    @property
    def path(self) -> str:
        """Its path in URLs."""
        return STATIC + self.name


def _asset(stem: str, extension: str) -> Asset:
    assert __package__ is not None
    content = (files(__package__) / "static" / f"{stem}.{extension}").read_bytes()
    digest = sha256(content).hexdigest()[:16]
    return Asset(
        name=f"{stem}-{digest}.{extension}",
        content_type=_TYPES[extension],
        etag=digest.encode(),
        content=content,
    )


STYLE = _asset("style", "css")
SCRIPT = _asset("script", "js")
ICON = _asset("icon", "svg")
ASSETS = {asset.name: asset for asset in (STYLE, SCRIPT, ICON)}

POLICY = "; ".join(
    [
        # Everything that is not listed is forbidden.
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
"""The Content-Security-Policy (level 3): no inline scripts or styles, no frames, no other host."""
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": POLICY,
    # Other sites receive no referrer. With no-referrer, browsers would send forms with
    # "Origin: null" (Fetch, section 3.1), and callme could not detect cross-origin forms.
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_IMMUTABLE = "public, max-age=31536000, immutable"


def set_page_headers(request: IRequest, status: int = 200) -> None:
    """Set the status of a page and the headers of every page."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    for name, value in HEADERS.items():
        request.setHeader(name.encode(), value.encode())


def redirect(request: IRequest, path: str) -> bytes:
    """Redirect to another page with the method GET (303)."""
    set_page_headers(request, 303)
    request.setHeader(b"location", path.encode("ascii"))
    return b""


def serve_asset(request: IRequest, asset: Asset) -> bytes:
    """Return a static file, which browsers may cache indefinitely."""
    set_page_headers(request)
    request.setHeader(b"content-type", asset.content_type)
    request.setHeader(b"cache-control", _IMMUTABLE.encode())
    if request.setETag(b'"' + asset.etag + b'"'):
        # setETag has set the status 304.
        return b""
    return asset.content


CSRF_FIELD = "csrf_token"
"""The form field of the CSRF token."""
_SEARCH = template("search")


@frozen
class Viewer:
    """The operator who views a page.

    :ivar may_change: whether the operator may change tasks.
    :ivar csrf_token: the CSRF token of the session; ``None`` if no login is required.
    """

    may_change: bool = True
    csrf_token: str | None = field(default=None, repr=False)

    def csrf_field(self) -> list[Tag]:
        """Return the hidden field that each form needs for its CSRF token."""
        if self.csrf_token is None:
            return []
        return [tags.input(type="hidden", name=CSRF_FIELD, value=self.csrf_token)]


class Layout(Element):
    """A whole page.

    :param main: its content.
    :param viewer: ``None`` if no operator is logged in.
    :param node: the name of the daemon that serves it.
    :param live: whether the page refreshes itself.
    """

    loader = template("layout")

    def __init__(
        self, title: str, main: Renderable, viewer: Viewer | None, node: str, *, live: bool = False
    ) -> None:
        super().__init__()
        self._title = title
        self._main = main
        self._viewer = viewer
        self._node = node
        self._live = live

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        about: list[Renderable] = [f"callme {__version__}"]
        if self._viewer is not None:
            about += [", served by ", tags.bdi(escape_invisible(self._node)), "."]
        return tag.fillSlots(
            title=escape_invisible(self._title),
            style=STYLE.path,
            icon=ICON.path,
            script=SCRIPT.path,
            live="yes" if self._live else "no",
            main=self._main,
            about=about,
        )

    @renderer
    def tools(self, request: Request, tag: Tag) -> Renderable:
        if self._viewer is None:
            return ""
        logout: Tag | str = ""
        if self._viewer.csrf_token is not None:
            button = tags.button("Log out", class_="quiet")
            logout = tags.form(self._viewer.csrf_field(), button, action=LOGOUT, method="post")
            if not self._viewer.may_change:
                link = tags.a("Log in with another token", href=LOGIN, class_="quiet")
                logout = tags.transparent(link, " ", logout)
        new = tags.a("New task", href=NEW, class_="quiet") if self._viewer.may_change else ""
        return tags.transparent(*_SEARCH.load()).fillSlots(new=new, logout=logout)
