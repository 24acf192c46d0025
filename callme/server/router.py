"""Routing: the root resource, which gives each request to the web UI or to the API."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from werkzeug.routing import PathConverter

from .negotiation import wants_html
from .paths import OVERVIEW, is_page


class RootResource(Resource):
    """The resource of every path.

    The path alone decides, except for ``/``: clients that accept HTML get the web UI, and all
    others get the API.
    """

    isLeaf = True

    def __init__(self, api: IResource, web_ui: IResource) -> None:
        super().__init__()
        self._api = api
        self._web_ui = web_ui

    def render(self, request: Request) -> bytes | int:
        path = request.path
        if path == OVERVIEW.encode():
            request.setHeader(b"vary", b"Accept")
            for_web_ui = wants_html(request.getHeader(b"accept"))
        else:
            for_web_ui = is_page(path)
        result: bytes | int = (self._web_ui if for_web_ui else self._api).render(request)
        return result


class AnyPathConverter(PathConverter):
    """The rest of a path, line feeds included, which werkzeug's own converter rejects."""

    regex = r"[\s\S]+?"
    part_isolating = False
