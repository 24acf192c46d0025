"""What IP addresses are for: which are globally reachable, and which lead to another one.

The standard library's ``ipaddress`` answers this anew with each version of Python (3.10 to
3.13 disagree on 64:ff9b:1::/48, 2002::/16, 192.0.0.0/24 and more), and where a call may go must
not depend on that. The tables here are IANA's own, as RFC 6890 set them up:
https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_32_BITS = 0xFFFF_FFFF

_REGISTRY: tuple[tuple[str, bool, str], ...] = (
    # Each block, whether it is globally reachable, and what it is for. Where the registry
    # says neither (N/A), it is not: nobody is to be reached there that can be reached at home.
    ("0.0.0.0/0", True, "global unicast"),
    ("0.0.0.0/8", False, "this network"),  # RFC 791
    ("10.0.0.0/8", False, "private use"),  # RFC 1918
    ("100.64.0.0/10", False, "shared address space"),  # RFC 6598
    ("127.0.0.0/8", False, "loopback"),  # RFC 1122
    ("169.254.0.0/16", False, "link-local"),  # RFC 3927
    ("172.16.0.0/12", False, "private use"),
    ("192.0.0.0/24", False, "IETF protocol assignments"),  # RFC 6890
    ("192.0.0.9/32", True, "port control protocol"),  # RFC 7723
    ("192.0.0.10/32", True, "TURN"),  # RFC 8155
    ("192.0.2.0/24", False, "documentation"),  # RFC 5737
    ("192.88.99.0/24", False, "6to4 relay, deprecated"),  # RFC 7526
    ("192.168.0.0/16", False, "private use"),
    ("198.18.0.0/15", False, "benchmarking"),  # RFC 2544
    ("198.51.100.0/24", False, "documentation"),
    ("203.0.113.0/24", False, "documentation"),
    ("224.0.0.0/4", False, "multicast"),  # RFC 5771
    ("240.0.0.0/4", False, "reserved"),  # RFC 1112
    # Of IPv6, only 2000::/3 is given out as global unicast (RFC 4291, section 2.4).
    ("::/0", False, "not global unicast"),
    ("::/128", False, "unspecified"),
    ("::1/128", False, "loopback"),
    ("64:ff9b::/96", True, "NAT64"),  # RFC 6052; what it leads to is judged as well
    ("64:ff9b:1::/48", False, "local-use NAT64"),  # RFC 8215
    ("100::/64", False, "discard only"),  # RFC 6666
    ("100:0:0:1::/64", False, "dummy prefix"),  # RFC 9780
    ("2000::/3", True, "global unicast"),
    ("2001::/23", False, "IETF protocol assignments"),  # RFC 2928
    ("2001::/32", False, "Teredo"),  # RFC 4380
    ("2001:1::1/128", True, "port control protocol"),  # RFC 7723
    ("2001:1::2/128", True, "TURN"),  # RFC 8155
    ("2001:1::3/128", True, "DNS-SD registration"),  # RFC 9665
    ("2001:3::/32", True, "AMT"),  # RFC 7450
    ("2001:4:112::/48", True, "AS112"),  # RFC 7535
    ("2001:20::/28", True, "ORCHIDv2"),  # RFC 7343
    ("2001:30::/28", True, "drone remote ID"),  # RFC 9374
    ("2001:db8::/32", False, "documentation"),  # RFC 3849
    ("2002::/16", False, "6to4"),  # RFC 3056
    ("3fff::/20", False, "documentation"),  # RFC 9637
    ("fc00::/7", False, "unique local"),  # RFC 4193
    ("fe80::/10", False, "link-local"),  # RFC 4291
    ("fec0::/10", False, "site-local, deprecated"),  # RFC 3879
    ("ff00::/8", False, "multicast"),
)
# The narrowest first: it is the one that speaks for an address.
_BLOCKS = sorted(
    ((ip_network(block), reachable, use) for block, reachable, use in _REGISTRY),
    key=lambda row: -row[0].prefixlen,
)


def special_purpose(address: Address) -> str | None:
    """Return why an address is not globally reachable, as ``10.0.0.0/8, private use``."""
    block, reachable, use = next(row for row in _BLOCKS if address in row[0])
    return None if reachable else f"{block}, {use}"


def parse_address(text: str) -> Address:
    """Return the address that a text means, its zone (``%eth0``, RFC 4007) left out.

    :raises ValueError: when it means none.
    """
    return ip_address(text.partition("%")[0])


def embedded_addresses(address: Address) -> tuple[Address, ...]:
    """Return every address that a connection to one may end at.

    An IPv4-mapped address is the IPv4 address and nothing else. Any other stands for
    itself, for what it carries inside, and, where it is the unspecified one, which
    reaches this machine, for the loopback.
    """
    number = int(address)
    if isinstance(address, IPv6Address) and number >> 32 == 0xFFFF:
        return embedded_addresses(IPv4Address(number & _32_BITS))
    found: list[Address] = [address]
    if number == 0:
        found.append(_LOOPBACK[address.version])
    elif isinstance(address, IPv6Address):
        for inner in _carried(number):
            found += embedded_addresses(IPv4Address(inner))
    return tuple(dict.fromkeys(found))


def _carried(number: int) -> Iterator[int]:
    """Yield the IPv4 addresses that an IPv6 address carries for somebody to unwrap."""
    low = number & _32_BITS
    if number >> 32 in (
        0x0064_FF9B << 64,  # NAT64 (RFC 6052, section 2.1)
        0xFFFF << 16,  # IPv4-translated (RFC 2765, section 2.1)
    ):
        yield low
    elif number >> 32 == 0:  # IPv4-compatible (RFC 4291, section 2.5.5.1)
        yield from _hosts(low)
    elif number >> 80 == 0x0064_FF9B_0001:  # local-use NAT64 (RFC 8215)
        # How long the translator's own prefix is, it alone knows: each length that
        # RFC 6052, section 2.2, has room for is one reading.
        yield from _hosts(
            low,
            number >> 24 & _32_BITS,
            (number >> 64 & 0xFF) << 24 | number >> 32 & 0xFF_FFFF,
            (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF,
        )
    elif number >> 112 == 0x2002:  # 6to4 (RFC 3056, section 2)
        yield number >> 80 & _32_BITS
    elif number >> 96 == 0x2001_0000:  # Teredo (RFC 4380, section 4): server, client
        yield number >> 64 & _32_BITS
        yield low ^ _32_BITS
    if number >> 32 & 0xFCFF_FFFF == 0x0000_5EFE:  # ISATAP (RFC 5214, section 6.1)
        yield low


def _hosts(*readings: int) -> Iterator[int]:
    """Yield the readings that may be those of a host: neither 0.0.0.0/8 nor 224.0.0.0/3."""
    return (number for number in readings if 1 << 24 <= number < 224 << 24)
