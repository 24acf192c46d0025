"""Bare HTTP clients: Twisted's Agent and treq, without a scheduler.

``python -m benchmarks.clients {agent,treq} URL CALLS CONCURRENCY [--payload N] [--ca-file FILE]``
prints calls per second. If the URL contains ``{}``, each call goes to a different address of the
loopback network.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import treq
from twisted.internet import ssl, task
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    HTTPConnectionPool,
    readBody,
)


def loopback_address(number: int) -> str:
    """Return an address of the loopback network, different for each of 60,000 numbers."""
    return f"127.1.{number // 250 % 250}.{number % 250 + 1}"


def main(react: Any) -> Deferred[Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["agent", "treq"])
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--payload", type=int, default=0, help="POST this number of bytes")
    parser.add_argument("--ca-file", help="trust this certificate")
    arguments = parser.parse_args()
    pool = HTTPConnectionPool(react, persistent=True)
    pool.maxPersistentPerHost = arguments.concurrency
    policy = BrowserLikePolicyForHTTPS()
    if arguments.ca_file:
        trusted = ssl.Certificate.loadPEM(Path(arguments.ca_file).read_bytes())
        policy = BrowserLikePolicyForHTTPS(ssl.trustRootFromCertificates([trusted]))
    agent = Agent(react, policy, pool=pool)
    client = treq.client.HTTPClient(agent)
    payload = b"x" * arguments.payload
    left = iter(range(arguments.calls))

    async def with_agent() -> None:
        for number in left:
            url = arguments.url.format(loopback_address(number)).encode()
            body = FileBodyProducer(io.BytesIO(payload)) if payload else None
            response = await agent.request(b"POST" if payload else b"GET", url, None, body)
            await readBody(response)

    async def with_treq() -> None:
        for number in left:
            url = arguments.url.format(loopback_address(number))
            response = await client.request("POST" if payload else "GET", url, data=payload or None)
            await response.content()

    work = with_agent if arguments.kind == "agent" else with_treq
    began = time.perf_counter()
    workers = [Deferred.fromCoroutine(work()) for _ in range(arguments.concurrency)]

    def ended(_: Any) -> Any:
        print(f"{arguments.calls / (time.perf_counter() - began):.1f}")
        return pool.closeCachedConnections()

    return DeferredList(workers, fireOnOneErrback=True).addCallback(ended)


if __name__ == "__main__":
    task.react(main)
