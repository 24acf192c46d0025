"""Trusted proxies, and the address of the client behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from ..errors import InvalidValue
from .address_policy import parse_network
from .iana import Network, parse_address

UNIX = "unix"
"""The name, in an option, of proxies that connect through a Unix socket."""
_MAX_HOPS = 20
"""Maximum number of proxies in a chain that are examined."""
# The parameter "for", whose value is an address with an optional port (RFC 7239, section 4).
_FORWARDED_FOR = re.compile(r"(?:^|;)\s*for=(\"?)([^\";,]*)\1\s*(?:;|$)", re.IGNORECASE)
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+|\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?")


def parse_proxy_network(text: str) -> Network | str:
    """Return the network in an option, or :data:`UNIX`.

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
    """Proxies whose headers about the address of a client are trusted.

    :ivar networks: the networks of the proxies, which may include :data:`UNIX`.
    """

    networks: Sequence[Network | str] = ()

    def client_of(
        self, peer: str | None, forwarded: Iterable[bytes], x_forwarded_for: Iterable[bytes]
    ) -> str | None:
        """Return the address of the client of a request.

        The address is the last one in the header that is not of a trusted proxy: the client may
        have forged earlier ones. If a request has both headers, neither is trusted, because a proxy
        sets one and passes the other on.

        :param peer: the remote address of the connection; ``None`` for a Unix socket.
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
    """Return the address in an element of a header; ``None`` if it contains none."""
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
