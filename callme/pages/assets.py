"""The few files that a page needs besides itself: read once, named by what is in them."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from attrs import frozen

from ..core.pages import STATIC

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
