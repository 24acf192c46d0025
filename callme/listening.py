"""Where the daemon listens, and for how many clients there is room."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from .crowd import GOING
from .descriptors import raise_limit, share_of_a_rush, share_of_clients, wanted_for

log = Logger(namespace="callme")

BACKLOG = 1024
"""Clients that may wait to be let in; the kernel's own limit (net.core.somaxconn) may be lower."""


def endpoint_of(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return where to listen, with room for a rush of clients unless the description says how much.

    With Twisted's room for fifty, a thousand that come at once wait for some twenty seconds:
    the kernel lets each try again only after one.
    """
    kind, _, rest = description.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "unix"):
        # Of two that are named the last counts; one without a name cannot be given twice.
        with suppress(TypeError):
            return _server(reactor, f"{kind}:backlog={BACKLOG}:{rest}")
    return _server(reactor, description)


def _server(reactor: Any, description: str) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def address_of(port: IListeningPort | None, description: str) -> str:
    """Return where somebody listens, as a person writes it."""
    address: Any = None if port is None else port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def room_for(asked: int, concurrency: int) -> tuple[int, int]:
    """See to it that there are descriptors for clients.

    :param asked: how many clients there are to be room for.
    :param concurrency: how many calls, which need descriptors too.
    :return: how many there can be, and how many more while others are being closed for them.
    """
    limit = raise_limit(wanted_for(asked, concurrency))
    room = share_of_clients(asked, concurrency, limit)
    if room < asked:
        log.warn(
            "{limit} files may be open: enough for {room} clients, not for the {asked} of "
            "--max-connections (see ulimit -Hn)",
            limit=limit,
            room=room,
            asked=asked,
        )
    return room, max(GOING, share_of_a_rush(room, concurrency, limit))
