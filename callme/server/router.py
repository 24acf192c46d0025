"""Routing: the root resource, and the resource of a Klein app, which calls its handlers."""

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
    """Resource of every path.

    The path determines whether the API or the web UI responds, except for ``/``: clients that
    accept HTML get the web UI, and all others get the API.
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
    """Set the attributes of a request that Klein's resource reads, as Twisted does."""
    # Klein encodes the host, which fails for some malicious hosts.
    cast(AuthorizedRequest, request).authority = request.getHeader(b"host") or b""
    request.requestHeaders.setRawHeaders(b"host", [b"callme"])
    request.prepath = []
    request.postpath = [unquote_to_bytes(segment) for segment in request.path[1:].split(b"/")]


class AppResource(Resource):
    """Resource of all paths of a Klein app.

    For each request, Klein's own resource binds its URL map, parses the URL and adapts the request.
    No handler here uses the results, which take half of the time of a short response.

    :param app: the app; its handlers return bytes, or coroutines or Deferreds of bytes. Each rule
        is a segment, or a segment and ``<path:path>``.
    :param on_error: sets the head of the response to a failed request, and returns its body; it
        replaces Klein's error handlers.
    """

    isLeaf = True

    def __init__(self, app: Klein, on_error: Callable[[IRequest, Failure], bytes]) -> None:
        super().__init__()
        assert all(_RULE.fullmatch(rule.rule) for rule in app.url_map.iter_rules())
        self._app = app
        self._on_error = on_error
        # The name of the host is irrelevant: no rule depends on it.
        self._urls = app.url_map.bind("callme")
        self._matches: dict[tuple[str, str, str], str] = {}

    def render(self, request: Request) -> int:
        """Respond to a request, at once or when its handler completes.

        A pending handler is cancelled when its client disconnects.
        """
        try:
            # The site has rejected paths that are not UTF-8.
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

        The match of a first segment and a method is cached, because it depends on the rest of the
        path only by its presence.

        :raises HTTPException: when no rule matches.
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
    """Converter of the rest of a path, including line feeds, which werkzeug's converter rejects."""

    regex = r"[\s\S]+?"
    part_isolating = False
