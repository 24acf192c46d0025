"""What is around every page: its head, the way to find tasks, the way out."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files

from attrs import field, frozen
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from .. import __version__
from ..server.paths import LOGOUT, STATIC
from .widgets import Renderable, escape_invisible, template

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}


@frozen
class Asset:
    """A file as it is served.

    :ivar etag: what is in it, in short; its name says so too, so that it never changes.
    """

    name: str
    kind: bytes
    etag: bytes
    content: bytes

    @property
    def path(self) -> str:
        """Where it is found."""
        return STATIC + self.name


def _asset(stem: str, ending: str) -> Asset:
    assert __package__ is not None
    content = (files(__package__) / "static" / f"{stem}.{ending}").read_bytes()
    digest = sha256(content).hexdigest()[:16]
    return Asset(f"{stem}-{digest}.{ending}", _TYPES[ending], digest.encode(), content)


STYLE = _asset("style", "css")
SCRIPT = _asset("script", "js")
ICON = _asset("icon", "svg")
ASSETS = {asset.name: asset for asset in (STYLE, SCRIPT, ICON)}

POLICY = "; ".join(
    [
        # Nothing from anywhere, but for what is named here, and that from callme alone.
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
"""The Content-Security-Policy (level 3): no inline script or style, no frame, no other host."""
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    # Others learn nothing. With no-referrer browsers would send forms with "Origin: null" (Fetch,
    # section 3.1), and callme could not tell its own from another page's.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_FOR_EVER = "public, max-age=31536000, immutable"


def set_page_headers(request: IRequest, status: int = 200) -> None:
    """Set the status of a page, and what every page carries."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    for name, value in HEADERS.items():
        request.setHeader(name.encode(), value.encode())


def redirect(request: IRequest, path: str) -> bytes:
    """Send a browser on to another page, after what it asked for was done."""
    set_page_headers(request, 303)
    request.setHeader(b"location", path.encode("ascii"))
    return b""


def serve_asset(request: IRequest, asset: Asset) -> bytes:
    """Answer with a file: once is enough for ever."""
    set_page_headers(request)
    request.setHeader(b"content-type", asset.kind)
    request.setHeader(b"cache-control", _FOR_EVER.encode())
    if request.setETag(b'"' + asset.etag + b'"'):
        # It has set the status: 304.
        return b""
    return asset.content


CSRF_FIELD = "form"
"""What is called, in every form, the value that no other page can know."""
_TOOLS = template("tools")


@frozen
class Viewer:
    """Who looks at a page.

    :ivar may_change: whether they may do more than look.
    :ivar form: what their forms must bring along; ``None`` where nobody logs in.
    """

    may_change: bool = True
    form: str | None = field(default=None, repr=False)

    def guard(self) -> list[Tag]:
        """Return what a form must hold besides its own fields."""
        if self.form is None:
            return []
        return [tags.input(type="hidden", name=CSRF_FIELD, value=self.form)]


class Layout(Element):
    """A whole page.

    :param main: what is in it.
    :param who: ``None`` for a stranger.
    :param node: the name of the daemon that serves it.
    :param live: whether it is to be fetched anew while somebody looks at it.
    """

    loader = template("frame")

    def __init__(
        self, title: str, main: Renderable, who: Viewer | None, node: str, *, live: bool = False
    ) -> None:
        super().__init__()
        self._title = title
        self._main = main
        self._who = who
        self._node = node
        self._live = live

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        about: list[Renderable] = [f"callme {__version__}"]
        if self._who is not None:
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
        if self._who is None:
            return ""
        logout: Tag | str = ""
        if self._who.form is not None:
            button = tags.button("Log out", class_="quiet")
            logout = tags.form(self._who.guard(), button, action=LOGOUT, method="post")
        return tags.transparent(*_TOOLS.load()).fillSlots(logout=logout)
