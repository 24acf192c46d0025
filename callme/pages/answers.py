"""What every answer of the pages carries besides what it shows."""

from __future__ import annotations

from http import HTTPStatus

from twisted.web.iweb import IRequest

from .assets import Asset

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


def prepare(request: IRequest, status: int = 200) -> None:
    """Set the status of a page, and what every page carries."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    for field, value in HEADERS.items():
        request.setHeader(field.encode(), value.encode())


def go_to(request: IRequest, path: str) -> bytes:
    """Send a browser on to another page, after what it asked for was done."""
    prepare(request, 303)
    request.setHeader(b"location", path.encode("ascii"))
    return b""


def serve(request: IRequest, asset: Asset) -> bytes:
    """Answer with a file: once is enough for ever."""
    prepare(request)
    request.setHeader(b"content-type", asset.kind)
    request.setHeader(b"cache-control", _FOR_EVER.encode())
    if request.setETag(b'"' + asset.etag + b'"'):
        # It has set the status: 304.
        return b""
    return asset.content
