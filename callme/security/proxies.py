"""Trusted proxies: the address of the client that one of them names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from ..errors import InvalidValue
from .address_policy import parse_network
from .iana import Network, parse_address

UNIX = "unix"
"""The proxies that connect through a Unix socket, as an option names them."""
_MAX_HOPS = 20
"""Maximum number of proxies behind one another that are looked at."""
# RFC 7239, section 4: a parameter "for", whose value is an address, perhaps with a port.
_FORWARDED_FOR = re.compile(r"(?:^|;)\s*for=(\"?)([^\";,]*)\1\s*(?:;|$)", re.IGNORECASE)
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+|\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?")


def parse_proxy_network(text: str) -> Network | str:
    """Return the network that an option names, or :data:`UNIX`.

    :raises InvalidValue: when it is neither.
    """
    if text == UNIX:
        return UNIX
    try:
        return parse_network(text)
    except InvalidValue as error:
        raise InvalidValue(f"{error}, or {UNIX}") from None


@frozen(kw_only=True)
class TrustedProxies:
    """The proxies whose word on the address of a client is believed.

    :ivar networks: their networks, and :data:`UNIX`.
    """

    networks: Sequence[Network | str] = ()

    def client_of(
        self, peer: str | None, forwarded: Iterable[bytes], x_forwarded_for: Iterable[bytes]
    ) -> str | None:
        """Return the address of the client of a request.

        That is the last address in the header that is not a trusted proxy's: the ones before it
        are what the client itself may have sent. Of a request with both headers neither is
        believed, because a proxy sets one and lets the other pass.

        :param peer: the address that the connection comes from; ``None`` for a Unix socket.
        :param forwarded: the values of ``Forwarded`` (RFC 7239).
        :param x_forwarded_for: the values of ``X-Forwarded-For``.
        """
        if not self.trusts(peer):
            return peer
        standard, common = list(forwarded), list(x_forwarded_for)
        if standard and common:
            return peer
        hops = b",".join(standard or common).decode("latin-1").split(",")
        client = peer
        for hop in list(reversed(hops))[:_MAX_HOPS]:
            address = _address_in(hop, is_standard=bool(standard))
            if address is None:
                break
            client = address
            if not self.trusts(address):
                break
        return client

    def trusts(self, peer: str | None) -> bool:
        """Return whether an address, or a Unix socket (``None``), is that of a trusted proxy."""
        if not self.networks:
            return False
        if peer is None:
            return UNIX in self.networks
        address = parse_address(peer)
        return any(not isinstance(network, str) and address in network for network in self.networks)


def _address_in(hop: str, *, is_standard: bool) -> str | None:
    """Return the address that an element of a header names; ``None`` if it names none."""
    text = hop.strip()
    if is_standard:
        match = _FORWARDED_FOR.search(text)
        text = match[2] if match else ""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        return str(parse_address(text))
    except ValueError:
        return None
