"""The clients that callme is made of, bare.

``python -m benchmarks.clients {agent,treq} URL CALLS CONCURRENCY``: prints calls per second.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import treq
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.client import Agent, HTTPConnectionPool, readBody


def main(react: Any) -> Deferred[Any]:
    kind, url, calls, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    pool = HTTPConnectionPool(react, persistent=True)
    pool.maxPersistentPerHost = concurrency
    agent = Agent(react, pool=pool)
    client = treq.client.HTTPClient(agent)
    left = iter(range(calls))

    async def with_agent() -> None:
        for _ in left:
            response = await agent.request(b"GET", url.encode())
            await readBody(response)

    async def with_treq() -> None:
        for _ in left:
            response = await client.get(url)
            await response.content()

    work = with_agent if kind == "agent" else with_treq
    began = time.perf_counter()
    workers = [Deferred.fromCoroutine(work()) for _ in range(concurrency)]

    def ended(_: Any) -> Any:
        print(f"{calls / (time.perf_counter() - began):.1f}")
        return pool.closeCachedConnections()

    return DeferredList(workers, fireOnOneErrback=True).addCallback(ended)


if __name__ == "__main__":
    task.react(main)
