"""TLS to endpoints: which certificates are trusted, and for which host."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from zope.interface import implementer

# OpenSSL's numbers (x509_vfy.h) for what users can do something about.
_REFUSALS = {
    7: "the signature of the certificate is wrong",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate is issued by an authority that is not trusted",
    20: "the issuer of the certificate is unknown, or an intermediate certificate is missing",
    21: "the issuer of the certificate is unknown, or an intermediate certificate is missing",
    23: "the certificate is revoked",
    24: "the certificate is issued by one that is no authority",
    26: "the certificate is not meant for servers",
}


class UncheckedNames(Exception):
    """Certificates cannot be compared with hosts here; its text says why."""


class CertificateRefused(Exception):
    """The certificate of an endpoint is not accepted; its text says why."""


@define
class _Peer:
    """A connection as :mod:`service_identity` takes it."""

    _certificate: X509

    def get_peer_certificate(self) -> X509:
        return self._certificate


def check_name(certificate: X509 | None, host: str) -> None:
    """Check that a certificate is one for a host (RFC 9110, section 4.3.4; RFC 9525).

    :param host: an address, or a name in ASCII.
    :raises CertificateRefused: when it is not, or when the check fails in any way.
    """
    try:
        peer: Any = _Peer(certificate)  # type: ignore[arg-type]
        if _is_address(host):
            verify_ip_address(peer, host)
        else:
            verify_hostname(peer, host.removesuffix("."))
    except VerificationError:
        raise CertificateRefused("the certificate is not one for this host") from None
    except CertificateError:
        raise CertificateRefused(
            "the certificate is not one for this host: it has no valid subjectAltName"
        ) from None
    except Exception as error:
        raise CertificateRefused(
            f"the certificate could not be compared with the host: {type(error).__name__}"
        ) from error


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)


def trusting_context(trust_root: Any = None) -> SSL.Context:
    """Return a context for connections to servers whose certificates are trusted.

    :param trust_root: as for :class:`~twisted.internet.ssl.CertificateOptions`; by default
        the authorities that the system trusts.
    """
    options = CertificateOptions(trustRoot=platformTrust() if trust_root is None else trust_root)
    context: SSL.Context = options.getContext()
    return context


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class TLSClient:
    """TLS to one host.

    Twisted's own client options accept no name that is not valid IDNA 2008, and of the
    errors of their check of the name they only log those that they do not know.

    :param host: an address, or a name in ASCII.
    """

    _context: SSL.Context
    host: str
    _server_name: bytes | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        # No addresses, and no trailing dot (RFC 6066, section 3).
        name = None if _is_address(self.host) else self.host.removesuffix(".").encode("ascii")
        self._server_name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the TLS side of a connection, which notes why it refuses a certificate."""
        connection = SSL.Connection(self._context, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        errors: list[tuple[int, int]] = []
        tlsProtocol.wrappedProtocol.verify_errors = errors

        def verify(_: SSL.Connection, __: X509, error: int, depth: int, ok: int) -> bool:
            if not ok:
                errors.append((error, depth))
            return bool(ok)

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def describe_refusal(errors: list[tuple[int, int]]) -> str | None:
    """Return why OpenSSL refused a certificate, in one sentence; ``None`` where it did not.

    :param errors: its numbers for what is wrong, each with the depth in the chain.
    """
    if not errors:
        return None
    error, depth = errors[-1]
    sentence = _REFUSALS.get(error, f"the certificate is not trusted (OpenSSL's error {error})")
    return sentence if depth == 0 else f"{sentence} (certificate {depth} of its chain)"


def self_check() -> None:
    """See that certificates are compared with hosts, by certificates made in memory.

    A mismatch of library versions must not show itself first in a call.

    :raises UncheckedNames: when a certificate is accepted for another host, or refused for its
        own.
    """
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "callme.example")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    alternative = x509.SubjectAlternativeName([x509.DNSName("callme.example")])
    named = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    unnamed = builder.sign(key, hashes.SHA256())
    try:
        check_name(X509.from_cryptography(named), "callme.example")
    except CertificateRefused as refusal:
        raise UncheckedNames(f"certificates are refused for their own host: {refusal}") from None
    for certificate, host in (
        (named, "other.example"),
        (named, "192.0.2.1"),
        (unnamed, "callme.example"),
    ):
        try:
            check_name(X509.from_cryptography(certificate), host)
        except CertificateRefused:
            continue
        raise UncheckedNames(
            f"certificates are not compared with hosts, but accepted for {host}: "
            "upgrade service-identity, pyOpenSSL and cryptography"
        )
