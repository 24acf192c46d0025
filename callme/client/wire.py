"""Conversions between the requests of the client and those of httpx."""

from __future__ import annotations

from typing import Any

import httpx

from .. import __version__
from .requests import Request
from .responses import Response


def settings(url: str, token: str | None) -> dict[str, Any]:
    """Return the arguments of a client of httpx.

    :raises ValueError: if the URL is not absolute: the text names what is expected.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url: {url!r} is not accepted: expected http://host:port")
    headers = {"User-Agent": f"callme-client/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return {"base_url": parsed, "headers": headers}


def arguments_of(request: Request[Any], timeout: float) -> dict[str, Any]:
    """Return the arguments of a request of httpx."""
    return {
        "method": request.method,
        "url": request.path,
        "params": request.parameters or None,
        "headers": dict(request.headers),
        "content": request.body,
        "timeout": timeout + request.wait_seconds,
    }


def read(response: httpx.Response) -> Response:
    """Return a response of httpx as the client reads it."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(status=response.status_code, headers=headers, body=response.content)
