"""A fast endpoint, which responds to every request with 200 at once, or after a delay.

``python -m benchmarks.sink PORT [DELAY [ADDRESS [CERTIFICATE]]]`` prints ``ready`` and runs until
it is killed. With a file of a certificate and its key, it serves TLS. The response to ``/times``
contains the time of each other request, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from typing import ClassVar

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sink(asyncio.Protocol):
    """Connection whose requests have no body or a Content-Length."""

    times: ClassVar[list[float]] = []
    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].partition(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            if head.startswith(b"get /times"):
                self.answer(json.dumps([round(time * 1000, 1) for time in self.times]).encode())
                self.times.clear()
            else:
                self.times.append(time.time())
                if self.delay:
                    asyncio.get_running_loop().call_later(self.delay, self.ok)
                else:
                    self.transport.write(ANSWER)

    def ok(self) -> None:
        self.transport.write(ANSWER)

    def answer(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def main() -> None:
    port = int(sys.argv[1])
    Sink.delay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    host = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    context = None
    if len(sys.argv) > 4:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[4])
    server = await asyncio.get_running_loop().create_server(
        Sink, host, port, backlog=4096, ssl=context
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
