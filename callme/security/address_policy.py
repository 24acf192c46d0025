"""Where callbacks may go: from an address to whether it may be called, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from attrs import field, frozen

from ..errors import InvalidValue, quoted
from .iana import Address, Network, embedded_addresses, parse_address, special_purpose

# Link-local addresses and those at which clouds tell whoever asks from inside about
# credentials, as the providers document them. Most answer at 169.254.169.254; the rest are here,
# each with who answers there. (cloud-init's data sources name them, as do the lists of Stripe's
# Smokescreen, Synapse and OWASP's cheat sheet on request forgery, none of them all.)
_DENIED_BY_DEFAULT = {
    "169.254.0.0/16": "link-local, and cloud metadata",
    "fe80::/10": "link-local",
    "100.100.100.200/32": "cloud metadata: Alibaba",
    "168.63.129.16/32": "cloud metadata: Azure's wire server",
    "192.0.0.192/32": "cloud metadata: Oracle",
    "fd00:100::100:200/128": "cloud metadata: Alibaba",
    "fd00:42::42/128": "cloud metadata: Scaleway",
    "fd00:a9fe:a9fe::1/128": "cloud metadata: Linode",
    "fd00:c1::a9fe:a9fe/128": "cloud metadata: Oracle",
    "fd00:ec2::/32": "cloud metadata: AWS",
    "fd20:ce::254/128": "cloud metadata: Google",
}
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """Return the network that a CIDR (RFC 4632), or a single address, means.

    One of IPv4-mapped addresses is the IPv4 network: it is judged as that.

    :raises InvalidValue: when it means none, or has bits set beyond its length.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        told = "a network such as 10.0.0.0/8 or fd00::/8"
        raise InvalidValue(f"expected {told} ({error})") from None
    if "%" in text:
        raise InvalidValue("a zone means something on one machine only")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first = IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _narrowest_first(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(dict.fromkeys(networks), key=lambda one: (-one.prefixlen, str(one))))


_USE = {ip_network(text): use for text, use in _DENIED_BY_DEFAULT.items()}
_BY_DEFAULT = _narrowest_first(_USE)


@frozen(cache_hash=True)
class AddressPolicy:
    """Which addresses may be called.

    Of the networks named, by an option or by default, the narrowest that an address lies
    in decides; one both allowed and denied is allowed. So an allowed network opens a hole in a
    denied one, and the other way round. An address in none of them may be called, unless only
    public ones may.

    :ivar allowed: networks that may be called.
    :ivar denied: networks that may not, besides those denied by default.
    :ivar public_only: whether what is not globally reachable may not be called either.
    """

    allowed: tuple[Network, ...] = field(default=(), converter=_narrowest_first)
    denied: tuple[Network, ...] = field(default=(), converter=_narrowest_first)
    public_only: bool = False

    def refusal(self, address: str) -> str | None:
        """Return why an address may not be called, in one sentence; ``None`` where it may.

        Every address that it leads to is judged: see :func:`.address_space.embedded_addresses`.
        """
        return _refusal(self, address)

    def _why_not(self, address: Address) -> str | None:
        allowed, denied, by_default = (
            next((network for network in networks if address in network), None)
            for networks in (self.allowed, self.denied, _BY_DEFAULT)
        )
        narrowest = max((allowed, denied, by_default), key=_length)
        if narrowest is None:
            special = special_purpose(address) if self.public_only else None
            return special and f"is not globally reachable ({special}), as --public-only asks"
        if narrowest is allowed:
            return None
        if narrowest is denied:
            return f"lies in {denied}, which --deny-network denies"
        return f"lies in {by_default} ({_USE[narrowest]}), which is denied by default"


def _length(network: Network | None) -> int:
    """Return how narrow a network is; of equals, max() takes the first."""
    return -1 if network is None else network.prefixlen


@lru_cache(maxsize=4096)
def _refusal(networks: AddressPolicy, text: str) -> str | None:
    try:
        address = parse_address(text)
    except ValueError:
        # What cannot be judged is not called.
        return f"{quoted(text)} is not an address"
    for one in embedded_addresses(address):
        why = networks._why_not(one)
        if why is not None:
            on_the_way = "" if one == address else f", which leads to {one},"
            return f"{text}{on_the_way} is not to be called: it {why}"
    return None
