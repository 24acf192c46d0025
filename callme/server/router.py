"""What stands before API and pages: each request goes to one of them, by its path."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from .negotiation import wants_html
from .paths import OVERVIEW, is_page


class RootResource(Resource):
    """Sends a request to the pages, or to the API.

    At ``/`` there is a page for whoever accepts HTML, and nothing for any other.
    """

    isLeaf = True

    def __init__(self, api: IResource, pages: IResource) -> None:
        super().__init__()
        self._api = api
        self._pages = pages

    def render(self, request: Request) -> bytes | int:
        path = request.path
        if path == OVERVIEW.encode():
            request.setHeader(b"vary", b"Accept")
            paged = wants_html(request.getHeader(b"accept"))
        else:
            paged = is_page(path)
        answer: bytes | int = (self._pages if paged else self._api).render(request)
        return answer
