"""Writes to a socket without the reactor.

A transport waits for its reactor to report that the socket can be written, which takes two system
calls and one turn of the reactor for each message. Nearly every socket takes a message at once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def sends_directly(transport: object) -> bool:
    """Return whether the bytes written to a transport are those that its socket sends: no TLS."""
    return isinstance(transport, Connection)


def send_directly(transport: Any, data: bytes) -> bytes:
    """Send what the socket takes at once, and return the rest, which the transport must write.

    The transport must not have anything left to write itself. An error is left to its next
    write, which reports the end of the connection.
    """
    try:
        return data[transport.getHandle().send(data) :]
    except OSError:
        return data
