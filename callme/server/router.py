"""Routing: the root resource, and that of the API's Klein app, which calls its handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.routing import PathConverter

from .auth import AuthorizedRequest
from .negotiation import wants_html
from .paths import OVERVIEW, is_page

log = Logger(namespace="callme")
_RULE = re.compile(r"/[^/<]*(?:/<path:path>)?")


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
        if for_web_ui:
            _prepare_for_klein(request)
        result: bytes | int = (self._web_ui if for_web_ui else self._api).render(request)
        return result


def _prepare_for_klein(request: Request) -> None:
    """Set what the resource that Klein makes reads of a request, as Twisted does."""
    # Klein encodes the host, which fails for some malicious ones.
    cast(AuthorizedRequest, request).authority = request.getHeader(b"host") or b""
    request.requestHeaders.setRawHeaders(b"host", [b"callme"])
    request.prepath = []
    request.postpath = [unquote_to_bytes(segment) for segment in request.path[1:].split(b"/")]


class AppResource(Resource):
    """The resource of all paths of a Klein app.

    For each request, the resource that Klein makes binds its URL map, parses the URL and adapts the
    request. No handler here uses the results, and they take half of the time of a short response.

    :param app: the app; its handlers return bytes, or coroutines or Deferreds of bytes. Each rule
        is a segment, or a segment and ``<path:path>``.
    :param on_error: returns the response to a request that failed, in the place of Klein's error
        handlers: it sets the head and returns the body.
    """

    isLeaf = True

    def __init__(self, app: Klein, on_error: Callable[[IRequest, Failure], bytes]) -> None:
        super().__init__()
        assert all(_RULE.fullmatch(rule.rule) for rule in app.url_map.iter_rules())
        self._app = app
        self._on_error = on_error
        # No rule depends on the host.
        self._urls = app.url_map.bind("callme")
        self._matches: dict[tuple[str, str, str], str] = {}

    def render(self, request: Request) -> int:
        """Respond to a request: at once, or later where the handler waits.

        A handler that waits is cancelled when its client hangs up.
        """
        try:
            # The site rejects what is not UTF-8.
            path = unquote_to_bytes(request.path).decode("utf-8")
            endpoint, arguments = self._match(path, request.method.decode("latin-1"))
            result: Any = self._app.execute_endpoint(endpoint, request, **arguments)
        except Exception:
            result = self._on_error(request, Failure())
        if isinstance(result, Deferred):
            self._respond_later(request, result)
        else:
            _respond(request, result)
        return NOT_DONE_YET

    def _match(self, path: str, method: str) -> tuple[str, Mapping[str, str]]:
        """Return the endpoint of a path, and its arguments.

        The first match of a segment and a method is remembered: what follows the segment makes
        no difference, but for whether anything does.

        :raises HTTPException: when there is none.
        """
        segment, slash, rest = path[1:].partition("/")
        shape = (method, segment, "/*" if rest else slash)
        arguments = {"path": rest} if rest else {}
        known = self._matches.get(shape)
        if known is None:
            known, found = self._urls.match(path, method)
            if found != arguments:
                return known, found
            self._matches[shape] = known
        return known, arguments

    def _respond_later(self, request: Request, result: Deferred[bytes]) -> None:
        finished = request.notifyFinish()
        finished.addErrback(lambda _: result.cancel())

        def recover(failure: Failure) -> bytes:
            if not finished.called:
                return self._on_error(request, failure)
            if not failure.check(CancelledError):
                log.failure("request failed after its client hung up", failure)
            return b""

        def respond(body: bytes) -> None:
            if not finished.called:
                _respond(request, body)

        result.addErrback(recover).addCallback(respond)
        result.addErrback(lambda failure: log.failure("response not written", failure))


def _respond(request: Request, body: bytes) -> None:
    request.write(body)
    request.finish()


class AnyPathConverter(PathConverter):
    """The rest of a path, line feeds included, which werkzeug's own converter rejects."""

    regex = r"[\s\S]+?"
    part_isolating = False
