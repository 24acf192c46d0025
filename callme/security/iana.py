"""Special-purpose IP addresses: the IANA registries, and IPv4 addresses embedded in IPv6 ones.

The standard library's ``ipaddress`` does not suffice: Python 3.10 to 3.13 disagree on
64:ff9b:1::/48, 2002::/16, 192.0.0.0/24 and other blocks, and the networks that callme may call must
not depend on the version of Python. The table is from the registries that RFC 6890 established:
https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_32_BITS = 0xFFFF_FFFF

_REGISTRY: tuple[tuple[str, bool, str], ...] = (
    # Each entry is the block, whether it is globally reachable, and its purpose. "N/A" in the
    # registry counts as not globally reachable.
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
    # Only 2000::/3 of IPv6 is allocated as global unicast (RFC 4291, section 2.4).
    ("::/0", False, "not global unicast"),
    ("::/128", False, "unspecified"),
    ("::1/128", False, "loopback"),
    ("64:ff9b::/96", True, "NAT64"),  # RFC 6052; the embedded address is judged as well
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
# The narrowest block comes first, because it takes precedence.
_BLOCKS = sorted(
    ((ip_network(block), reachable, purpose) for block, reachable, purpose in _REGISTRY),
    key=lambda row: -row[0].prefixlen,
)


def special_purpose(address: Address) -> str | None:
    """Return the block and the purpose of an address, such as ``10.0.0.0/8, private use``.

    :return: ``None`` if the address is globally reachable.
    """
    block, reachable, purpose = next(row for row in _BLOCKS if address in row[0])
    return None if reachable else f"{block}, {purpose}"


def parse_address(text: str) -> Address:
    """Return the address in a text, without its zone (``%eth0``, RFC 4007).

    :raises ValueError: when the text is not an IP address.
    """
    return ip_address(text.partition("%")[0])


def embedded_addresses(address: Address) -> tuple[Address, ...]:
    """Return every address that a connection to ``address`` may reach.

    For an IPv4-mapped address, this is only its IPv4 address; for any other, the address itself and
    the addresses embedded in it. The unspecified address includes the loopback address, because a
    connection to it reaches this machine.
    """
    number = int(address)
    if isinstance(address, IPv6Address) and number >> 32 == 0xFFFF:
        return embedded_addresses(IPv4Address(number & _32_BITS))
    found: list[Address] = [address]
    if number == 0:
        found.append(_LOOPBACK[address.version])
    elif isinstance(address, IPv6Address):
        for embedded in _embedded_ipv4(number):
            found += embedded_addresses(IPv4Address(embedded))
    return tuple(dict.fromkeys(found))


def _embedded_ipv4(number: int) -> Iterator[int]:
    """Yield the IPv4 addresses that a translator or tunnel may extract from an IPv6 address."""
    low = number & _32_BITS
    if number >> 32 in (
        0x0064_FF9B << 64,  # NAT64 (RFC 6052, section 2.1)
        0xFFFF << 16,  # IPv4-translated (RFC 2765, section 2.1)
    ):
        yield low
    elif number >> 32 == 0:  # IPv4-compatible (RFC 4291, section 2.5.5.1)
        yield from _hosts(low)
    elif number >> 80 == 0x0064_FF9B_0001:  # local-use NAT64 (RFC 8215)
        # The prefix length of the translator is unknown, and each length that RFC 6052, section
        # 2.2, permits yields a different IPv4 address.
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


def _hosts(*numbers: int) -> Iterator[int]:
    """Yield the numbers that are not in 0.0.0.0/8 or 224.0.0.0/3, and may be hosts."""
    return (number for number in numbers if 1 << 24 <= number < 224 << 24)
