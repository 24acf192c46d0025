"""A client that PUTs new tasks as fast as they are acknowledged.

``python -m benchmarks.puts PORT TASKS CONNECTIONS [--prefix P]`` prints PUTs per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time


async def connection(port: int, numbers: list[int], prefix: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        # The tasks are spread over a day.
        body = json.dumps(
            {"trigger_at": f"+{60 + number % 1440}m", "callback": "http://localhost:9/x"}
        )
        writer.write(
            f"PUT /task/{prefix}{number} HTTP/1.1\r\nHost: callme\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 201", b"HTTP/1.1 200")), head
        at = head.lower().find(b"content-length:")
        await reader.readexactly(int(head[at + 15 :].partition(b"\r\n")[0]))
    writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("tasks", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("--prefix", default="")
    asked = parser.parse_args()
    shares = [list(range(n, asked.tasks, asked.connections)) for n in range(asked.connections)]
    began = time.perf_counter()
    await asyncio.gather(*(connection(asked.port, share, asked.prefix) for share in shares))
    print(f"{asked.tasks / (time.perf_counter() - began):.1f}")


if __name__ == "__main__":
    asyncio.run(main())
