"""A Klein handler that parses the same JSON as callme, without a store.

``python -m benchmarks.bare_klein PORT`` prints ``ready`` and runs until it is killed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from klein import Klein
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorCore, IReactorTCP
from twisted.web.server import Site

app = Klein()


@app.route("/task/<name>", methods=["PUT"])
def put(request: Any, name: str) -> bytes:
    body = json.loads(request.content.read())
    answer = json.dumps({"task": name, **body}).encode()
    request.setResponseCode(201)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(answer)).encode())
    return answer


if __name__ == "__main__":
    site: Any = Site(app.resource())
    IReactorTCP(reactor).listenTCP(int(sys.argv[1]), site, interface="127.0.0.1")
    print("ready", flush=True)
    IReactorCore(reactor).run()
