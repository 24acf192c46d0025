"""The egress policy: the networks that callbacks may reach (protection against SSRF)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from attrs import field, frozen

from ..errors import InvalidValue, quoted
from .iana import Address, Network, embedded_addresses, parse_address, special_purpose

# Link-local addresses, and the metadata services of clouds, which give credentials to any machine
# inside. Most services are at 169.254.169.254; the others are listed with their providers, whose
# documentation is the source. (cloud-init's data sources, Stripe's Smokescreen, Synapse and OWASP's
# cheat sheet on request forgery list some of them as well.)
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
    """Return the network in CIDR notation (RFC 4632), or of a single address.

    A network of IPv4-mapped addresses becomes the IPv4 network, because the policy treats mapped
    addresses as IPv4.

    :raises InvalidValue: when the text is neither, has bits set beyond the prefix, or has a
        zone.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise InvalidValue(f"expected a network such as 10.0.0.0/8 or fd00::/8 ({error})") from None
    if "%" in text:
        raise InvalidValue(
            "expected a network without a zone, which has a meaning on one machine only"
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first = IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _narrowest_first(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(
        sorted(dict.fromkeys(networks), key=lambda network: (-network.prefixlen, str(network)))
    )


_PURPOSE = {ip_network(text): purpose for text, purpose in _DENIED_BY_DEFAULT.items()}
_BY_DEFAULT = _narrowest_first(_PURPOSE)


@frozen(kw_only=True, cache_hash=True)
class AddressPolicy:
    """Rules about the addresses that may be called.

    The narrowest network that contains an address, allowed or denied by an option or by default,
    determines the result; a network that is both allowed and denied is allowed. A narrow network is
    therefore an exception to a wider one. An address in none of the networks is allowed, unless
    ``public_only`` is set and the address is not globally reachable.

    :ivar allowed: networks that may be called.
    :ivar denied: networks that must not be called, in addition to those denied by default.
    :ivar public_only: whether only globally reachable addresses may be called.
    """

    allowed: tuple[Network, ...] = field(default=(), converter=_narrowest_first)
    denied: tuple[Network, ...] = field(default=(), converter=_narrowest_first)
    public_only: bool = False

    def reason_denied(self, address: str) -> str | None:
        """Return the reason why an address is denied, as a sentence; ``None`` if it is allowed.

        The rules apply to embedded addresses too: see :func:`.iana.embedded_addresses`.
        """
        return _reason_denied(self, address)

    def _judge(self, address: Address) -> str | None:
        allowed, denied, by_default = (
            next((network for network in networks if address in network), None)
            for networks in (self.allowed, self.denied, _BY_DEFAULT)
        )
        narrowest = max((allowed, denied, by_default), key=_length)
        if narrowest is None:
            special = special_purpose(address) if self.public_only else None
            return (
                special and f"is not globally reachable ({special}), which --public-only requires"
            )
        if narrowest is allowed:
            return None
        if narrowest is denied:
            return f"is in {denied}, which --deny-network denies"
        return f"is in {by_default} ({_PURPOSE[narrowest]}), which is denied by default"


def _length(network: Network | None) -> int:
    """Return the prefix length; -1 for ``None``."""
    return -1 if network is None else network.prefixlen


@lru_cache(maxsize=4096)
def _reason_denied(policy: AddressPolicy, text: str) -> str | None:
    try:
        address = parse_address(text)
    except ValueError:
        return f"{quoted(text)} is not an IP address"
    for reached in embedded_addresses(address):
        reason = policy._judge(reached)
        if reason is not None:
            via = "" if reached == address else f", which leads to {reached},"
            return f"{text}{via} must not be called: it {reason}"
    return None
