"""The address policy: allowed addresses in every notation and embedding."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.errors import InvalidValue
from callme.security.address_policy import AddressPolicy, parse_network
from callme.security.iana import embedded_addresses, parse_address, special_purpose


def networks(allow: str = "", deny: str = "", public_only: bool = False) -> AddressPolicy:
    return AddressPolicy(
        allowed=[parse_network(text) for text in allow.split()],
        denied=[parse_network(text) for text in deny.split()],
        public_only=public_only,
    )


METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:100::100:200",
]
WRAPPED = [
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    # Local-use NAT64 with a prefix of 96, 64, 56 and 48 bits (RFC 6052, section 2.4).
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::1",
    # Teredo: the server, then the client with inverted bits.
    "2001:0:a9fe:a9fe::",
    "2001:0:c000:201::5601:5601",
    # ISATAP, under any prefix.
    "2001:db8::5efe:a9fe:a9fe",
    "2001:db8::200:5efe:a9fe:a9fe",
]


@pytest.mark.parametrize("address", METADATA)
def test_metadata_and_link_local_are_denied_by_default(address: str) -> None:
    refusal = networks().reason_denied(address)
    assert refusal is not None
    assert refusal.startswith(address)
    assert "denied by default" in refusal


@pytest.mark.parametrize("address", WRAPPED)
def test_embedded_ipv4_address_is_checked(address: str) -> None:
    refusal = networks().reason_denied(address)
    assert refusal is not None
    assert refusal.startswith(f"{address}, which leads to 169.254.")
    assert refusal.endswith(
        ", must not be called: it is in 169.254.0.0/16 (link-local, and cloud metadata), "
        "which is denied by default"
    )
    assert networks(allow="169.254.0.0/16").reason_denied(address) is None


@pytest.mark.parametrize(
    "address",
    [
        *["127.0.0.1", "::1", "0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "fd12::1"],
        *["192.0.2.1", "2001:db8::1", "8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8"],
        *["100.100.100.201", "169.253.255.255", "fec0::1", "::5efe:a9fe:a9fe:1"],
    ],
)
def test_other_addresses_are_allowed_by_default(address: str) -> None:
    assert networks().reason_denied(address) is None


@pytest.mark.parametrize(
    ("address", "led"),
    [
        ("0.0.0.0", "0.0.0.0 127.0.0.1"),
        ("::", ":: ::1"),
        ("::1", "::1"),
        ("::ffff:0.0.0.0", "0.0.0.0 127.0.0.1"),
        ("::7f00:1", "::7f00:1 127.0.0.1"),
        ("64:ff9b::", "64:ff9b:: 0.0.0.0 127.0.0.1"),
        ("64:ff9b:1::10.0.0.1", "64:ff9b:1::a00:1 10.0.0.1"),
        # The examples of RFC 6052, section 2.4; each may be read with other lengths as well.
        ("64:ff9b:1:c000:2:2100::", "64:ff9b:1:c000:2:2100:: 2.33.0.0 192.0.2.33"),
        ("64:ff9b:1:1c0:0:221::", "64:ff9b:1:1c0:0:221:: 192.0.2.33 1.192.0.2"),
        ("64:ff9b:1:0:c0:2:2100::", "64:ff9b:1:0:c0:2:2100:: 33.0.0.0 192.0.2.33"),
        ("2001:0:102:304::fefd:fcfa", "2001:0:102:304::fefd:fcfa 1.2.3.4 1.2.3.5"),
        ("2002:102:304::1", "2002:102:304::1 1.2.3.4"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_embedded_ipv4_address_is_extracted(address: str, led: str) -> None:
    assert list(embedded_addresses(parse_address(address))) == [
        parse_address(one) for one in led.split()
    ]


@pytest.mark.parametrize("address", ["127.1.2.3", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_every_form_of_loopback_can_be_denied(address: str) -> None:
    assert networks(deny="127.0.0.0/8").reason_denied(address)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        # RFC 6890 and later additions to the registries.
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("9.255.255.255", True),
        ("10.0.0.0", False),
        ("10.255.255.255", False),
        ("11.0.0.0", True),
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("127.0.0.1", False),
        ("128.0.0.0", True),
        ("169.254.0.1", False),
        ("172.15.255.255", True),
        ("172.16.0.0", False),
        ("172.31.255.255", False),
        ("172.32.0.0", True),
        ("192.0.0.8", False),
        ("192.0.0.9", True),
        ("192.0.0.10", True),
        ("192.0.0.11", False),
        ("192.0.0.170", False),
        ("192.0.1.0", True),
        ("192.0.2.255", False),
        ("192.31.196.1", True),
        ("192.52.193.1", True),
        ("192.88.99.1", False),
        ("192.168.255.255", False),
        ("192.169.0.0", True),
        ("192.175.48.1", True),
        ("198.17.255.255", True),
        ("198.18.0.0", False),
        ("198.19.255.255", False),
        ("198.20.0.0", True),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("223.255.255.255", True),
        ("224.0.0.1", False),
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::8.8.8.8", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:10.0.0.1", False),
        ("::ffff:0:8.8.8.8", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b:1::8.8.8.8", False),
        ("100::1", False),
        ("100:0:0:1::1", False),
        ("200::1", False),
        ("1fff:ffff::1", False),
        ("2001::1", False),
        ("2001:1::1", True),
        ("2001:1::2", True),
        ("2001:1::3", True),
        ("2001:1::4", False),
        ("2001:2::1", False),
        ("2001:3::1", True),
        ("2001:4:112::1", True),
        ("2001:4:113::1", False),
        ("2001:10::1", False),
        ("2001:20::1", True),
        ("2001:3f:ffff::1", True),
        ("2001:40::1", False),
        ("2001:1ff:ffff::1", False),
        ("2001:200::1", True),
        ("2001:db7:ffff::1", True),
        ("2001:db8::1", False),
        ("2001:db9::1", True),
        ("2002:808:808::1", False),
        ("2003::1", True),
        ("2620:4f:8000::1", True),
        ("2a00:1450::5efe:8.8.8.8", True),
        ("2a00:1450::5efe:10.0.0.1", False),
        ("3ffe:ffff::1", True),
        ("3fff::1", False),
        ("3fff:fff:ffff::1", False),
        ("3fff:1000::1", True),
        ("4000::1", False),
        ("5f00::1", False),
        ("fc00::1", False),
        ("fdff:ffff::1", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("ff0e::1", False),
        ("168.63.129.16", False),
    ],
)
def test_public_addresses_do_not_depend_on_the_python_version(address: str, public: bool) -> None:
    assert public is (networks(public_only=True).reason_denied(address) is None)


def test_reason_of_a_non_public_address_is_given() -> None:
    assert networks(public_only=True).reason_denied("10.0.0.1") == (
        "10.0.0.1 must not be called: it is not globally reachable (10.0.0.0/8, private use), "
        "which --public-only requires"
    )


@pytest.mark.parametrize(
    ("allow", "deny", "address", "allowed"),
    [
        ("10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", True),
        ("10.1.0.0/16", "10.0.0.0/8", "10.2.0.1", False),
        ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.0.0/16", "10.2.0.1", True),
        ("10.0.0.0/8", "10.0.0.0/8", "10.2.0.1", True),
        ("10.1.0.0/16 10.0.0.0/8", "10.1.2.0/24", "10.1.2.3", False),
        ("10.1.2.3", "10.1.2.0/24", "10.1.2.3", True),
        ("10.0.0.0/8 10.1.2.0/24", "10.1.0.0/16", "10.1.2.3", True),
        # A wide allowance does not permit networks denied by default; an equally narrow one does.
        ("0.0.0.0/0", "", "169.254.169.254", False),
        ("100.64.0.0/10", "", "100.100.100.200", False),
        ("fd00::/8", "", "fd00:ec2::254", False),
        ("169.254.0.0/16", "", "169.254.169.254", True),
        ("169.254.1.0/24", "", "169.254.1.9", True),
        ("169.254.1.0/24", "", "169.254.2.9", False),
        ("fe80::/10", "", "fe80::1%eth0", True),
        ("", "::ffff:10.0.0.0/104", "10.2.3.4", False),
        ("", "::ffff:10.0.0.0/104", "::ffff:10.2.3.4", False),
        ("", "fd00::/8", "fd12::1", False),
        ("", "0.0.0.0/0", "::1", True),
        ("", "::/0", "127.0.0.1", True),
        ("", "::/0", "::ffff:127.0.0.1", True),
        ("", "0.0.0.0/0", "64:ff9b::8.8.8.8", False),
        ("64:ff9b::/96", "", "64:ff9b::169.254.169.254", False),
    ],
)
def test_narrowest_network_decides(allow: str, deny: str, address: str, allowed: bool) -> None:
    refusal = networks(allow, deny).reason_denied(address)
    assert allowed is (refusal is None)
    assert allowed or "must not be called" in str(refusal)


def test_allowed_network_need_not_be_public() -> None:
    inside = networks(allow="10.0.0.0/8 64:ff9b:1::/48", public_only=True)
    assert inside.reason_denied("10.1.2.3") is None
    assert inside.reason_denied("::ffff:10.1.2.3") is None
    assert inside.reason_denied("64:ff9b:1::8.8.8.8") is None
    assert inside.reason_denied("64:ff9b:1::192.168.1.1")
    assert inside.reason_denied("192.168.1.1")


def test_denial_names_its_option() -> None:
    assert networks(deny="10.0.0.0/8").reason_denied("10.0.0.1") == (
        "10.0.0.1 must not be called: it is in 10.0.0.0/8, which --deny-network denies"
    )


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "1.2.3.4/8", "[::1]"])
def test_invalid_address_is_denied(text: str) -> None:
    assert "is not an IP address" in str(networks(allow="0.0.0.0/0").reason_denied(text))


@pytest.mark.parametrize("text", ["", "x", "10.0.0.1/8", "10.0.0.0/33", "fe80::%eth0/10", "::/129"])
def test_invalid_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_network(text)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:", "64:ff9b::", "2001:db8::5efe:"]))
def test_embedding_an_address_does_not_allow_it(address: IPv4Address, prefix: str) -> None:
    for rules in (networks(), networks(deny="0.0.0.0/1"), networks(public_only=True)):
        assert rules.reason_denied(str(address)) is None or rules.reason_denied(
            f"{prefix}{address}"
        )


@given(st.ip_addresses(v=6))
def test_public_only_denies_every_address_that_is_not_public(address: IPv6Address) -> None:
    public = special_purpose(embedded_addresses(address)[0]) is None
    assert public or networks(public_only=True).reason_denied(str(address))
