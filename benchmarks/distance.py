"""A daemon with a distant PostgreSQL server: ``python -m benchmarks.distance``.

A proxy delays every byte by 10 ms in each direction. The benchmark prints JSON for a near and a
distant server: PUTs per second of 32 clients, tasks per second of batches of 10,000, and calls per
second of a burst.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.postgres import Cluster

from .__main__ import CONCURRENCY, background, free_port, sink, twistd

DELAY_SECONDS = 0.01
CLIENTS = 32
PUTS = 6000
CALLS = 4000


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Forward received data, each piece after a delay."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(65536):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


async def serve(port: int, to: int, delay: float) -> None:
    """Run a proxy that delays all data."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(
            forward(reader, server_writer, delay), forward(server_reader, writer, delay)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def distance(cluster: Cluster, delay: float) -> Iterator[int]:
    """Run a proxy in front of a server if there is a delay; yield the port to connect to."""
    if not delay:
        yield cluster.port
        return
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.distance", "--proxy", str(port)]
    with background(None, [*command, str(cluster.port), str(delay)], port):
        yield port


def client(module: str, *arguments: object) -> str:
    """Run another module of the benchmarks in a process; return its output."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def measure(cluster: Cluster, delay: float) -> dict[str, float]:
    """Measure a daemon of a checkout."""
    database = f"distance{free_port()}"
    cluster.create(database)
    found: dict[str, float] = {"delay_ms": 2000 * delay}
    with distance(cluster, delay) as at, tempfile.TemporaryDirectory() as directory:
        url = f"postgresql://callme@127.0.0.1:{at}/{database}"
        port = free_port()
        command = [*twistd(Path("x"), port)[:-1], f"--database={url}"]
        with background(None, command, port):
            client("benchmarks.puts", port, PUTS // 4, CLIENTS, "--prefix", "warm")
            found["puts"] = float(client("benchmarks.puts", port, PUTS, CLIENTS))
            found["batch"] = float(client("benchmarks.batches", port, 4, "b"))
        url = url.replace(database, database + "b")
        cluster.create(database + "b")
        with sink() as endpoint:
            arguments = (CALLS, CONCURRENCY, "--directory", directory, "--database", url)
            burst = client("benchmarks.burst", f"http://127.0.0.1:{endpoint}/x", *arguments)
        found["burst"] = json.loads(burst)["calls_per_second"]
    return {name: round(value) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", nargs=3, metavar=("PORT", "TO", "DELAY"))
    asked = parser.parse_args()
    if asked.proxy:
        port, to, delay = asked.proxy
        asyncio.run(serve(int(port), int(to), float(delay)))
        return
    cluster = Cluster(durable=True)
    try:
        for delay in (0.0, DELAY_SECONDS):
            print(json.dumps(measure(cluster, delay)), flush=True)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
