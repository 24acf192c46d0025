"""The endpoint that every Python server serves: it records the task's key and responds ``ok``.

``/unread`` responds without reading the body. ``python endpoint.py KIND PORT`` serves with a server
that has no command line of its own; the others import ``wsgi`` or ``asgi``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

HOST = "127.0.0.1"
OK = b"ok"
RECORD = os.open(os.environ["INTEROP_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def record(key: str) -> None:
    """Append one served request to the record; one short write is atomic among processes."""
    os.write(RECORD, f"{key}\n".encode())


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    record(environ.get("HTTP_IDEMPOTENCY_KEY", ""))
    if environ["PATH_INFO"] != "/unread":
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [OK]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    record(dict(scope["headers"]).get(b"idempotency-key", b"").decode())
    if scope["path"] != "/unread":
        while (await receive()).get("more_body"):
            pass
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": OK})


def serve_http_server(port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            record(self.headers.get("Idempotency-Key", ""))
            if self.path != "/unread":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(OK)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    HTTPServer((HOST, port), Handler).serve_forever()


def serve_wsgiref(port: int) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    make_server(HOST, port, wsgi, handler_class=Handler).serve_forever()


def serve_werkzeug(port: int) -> None:
    from werkzeug.serving import run_simple

    run_simple(HOST, port, wsgi, threaded=True)


def serve_cheroot(port: int) -> None:
    from cheroot.wsgi import Server

    Server((HOST, port), wsgi).start()


def serve_django(port: int) -> None:
    from django.conf import settings
    from django.core.management import execute_from_command_line

    settings.configure(DEBUG=True, ROOT_URLCONF=None, WSGI_APPLICATION="endpoint.wsgi")
    execute_from_command_line(["endpoint", "runserver", f"{HOST}:{port}", "--noreload"])


def serve_aiohttp(port: int) -> None:
    from aiohttp import web

    async def respond(request: web.Request) -> web.Response:
        record(request.headers.get("Idempotency-Key", ""))
        if request.path != "/unread":
            await request.read()
        return web.Response(body=OK)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    web.run_app(app, host=HOST, port=port, print=None, access_log=None)


def serve_tornado(port: int) -> None:
    from tornado.web import Application, RequestHandler

    class Handler(RequestHandler):
        def get(self) -> None:
            record(self.request.headers.get("Idempotency-Key", ""))
            self.finish(OK)

        post = get

    async def serve() -> None:
        Application([(".*", Handler)], log_function=lambda handler: None).listen(port, HOST)
        await asyncio.Event().wait()

    asyncio.run(serve())


def serve_twisted(port: int) -> None:
    from twisted.internet import endpoints, reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Request, Site

    class Endpoint(Resource):
        isLeaf = True

        def render_GET(self, request: Request) -> bytes:
            record(request.getHeader("Idempotency-Key") or "")
            return OK

        render_POST = render_GET

    endpoints.TCP4ServerEndpoint(reactor, port, interface=HOST).listen(Site(Endpoint()))
    reactor.run()


if __name__ == "__main__":
    globals()[f"serve_{sys.argv[1]}"](int(sys.argv[2]))
