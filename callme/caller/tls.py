"""TLS to endpoints: trusted authorities, host name checks, and client certificates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from zope.interface import implementer

from ..security.outgoing import ForHost, find_for_host
from ..security.secret_file import SecretFile, UnusableFile

# OpenSSL's error numbers (x509_vfy.h) for faults that an operator can repair.
_REFUSALS = {
    7: "the signature of the certificate is wrong",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate is issued by an authority that is not trusted",
    20: "the issuer of the certificate is unknown, or an intermediate certificate is missing",
    21: "the issuer of the certificate is unknown, or an intermediate certificate is missing",
    23: "the certificate is revoked",
    24: "the issuer of the certificate is not a certificate authority",
    26: "the certificate is not meant for servers",
}


class UncheckedNames(Exception):
    """The installed libraries do not check the host of a certificate; the text is the reason."""


class CertificateRefused(Exception):
    """The certificate of an endpoint is not accepted; the text is the reason."""


@define
class _Peer:
    """Adapter of a certificate to the connection that :mod:`service_identity` expects."""

    _certificate: X509

    def get_peer_certificate(self) -> X509:
        return self._certificate


def check_name(certificate: X509 | None, host: str) -> None:
    """Check that a certificate is valid for a host (RFC 9110, section 4.3.4; RFC 9525).

    :param host: an address, or a name in ASCII.
    :raises CertificateRefused: when it is not, or when the check itself fails.
    """
    try:
        peer: Any = _Peer(certificate)  # type: ignore[arg-type]
        if _is_address(host):
            verify_ip_address(peer, host)
        else:
            verify_hostname(peer, host.removesuffix("."))
    except VerificationError:
        raise CertificateRefused("the certificate is for another host") from None
    except CertificateError:
        raise CertificateRefused(
            "the certificate is for another host: it has no valid subjectAltName"
        ) from None
    except Exception as error:
        raise CertificateRefused(
            f"the certificate could not be compared with the host: {type(error).__name__}"
        ) from error


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)


@define(eq=False)
class ClientCertificate:
    """Client certificate that callme presents to an endpoint, with its private key.

    :ivar chain: the certificate, followed by its intermediate certificates.
    """

    key: Any
    chain: Sequence[x509.Certificate]

    def __len__(self) -> int:
        return len(self.chain)

    @classmethod
    def parse(cls, text: str) -> ClientCertificate:
        """Return the certificate of a PEM file that also contains its unencrypted key.

        :raises ValueError: when the certificate or the key is missing, or when they do not match.
            The text quotes nothing from the file.
        """
        data = text.encode("utf-8")
        try:
            chain = x509.load_pem_x509_certificates(data)
        except Exception:
            raise ValueError("it contains no certificate in PEM that can be read") from None
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except Exception:
            raise ValueError("it contains no unencrypted private key in PEM") from None
        certificate = cls(key, chain)
        try:
            certificate.use_in(SSL.Context(SSL.TLS_METHOD))
        except Exception:
            raise ValueError("its key is not the one of its first certificate") from None
        return certificate

    def use_in(self, context: SSL.Context) -> None:
        """Make connections of a context present the certificate."""
        context.use_certificate(self.chain[0])
        for intermediate in self.chain[1:]:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(self.key)
        context.check_privatekey()


def load_authorities(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file.

    :raises UnusableFile: when it cannot be read or contains none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise UnusableFile("certificate authority", path, error.strerror) from None
    except ValueError:
        reason = "it contains no certificate in PEM that can be read"
        raise UnusableFile("certificate authority", path, reason) from None


@define(eq=False, kw_only=True)
class TLSContexts:
    """TLS contexts: one for each client certificate, and one without a client certificate.

    :param trust_root: as for :class:`~twisted.internet.ssl.CertificateOptions`; by default the
        authorities that the system trusts.
    :param authorities: additional trusted authorities.
    :param certificates: client certificates by host.
    """

    _trust_root: Any = None
    _authorities: Sequence[x509.Certificate] = ()
    _certificates: Sequence[ForHost[SecretFile[ClientCertificate]]] = ()
    _made: dict[SecretFile[ClientCertificate] | None, tuple[object, SSL.Context]] = field(
        factory=dict, init=False
    )

    @property
    def files(self) -> list[SecretFile[ClientCertificate]]:
        """The files of client certificates, which can be reloaded."""
        return [setting.value for setting in self._certificates]

    def for_host(self, host: str) -> SSL.Context:
        """Return the context for connections to a host."""
        file = find_for_host(self._certificates, host)
        certificate = None if file is None else file.value
        made_for, context = self._made.get(file, (self, None))
        if context is None or made_for is not certificate:
            context = self._make(certificate)
            self._made[file] = certificate, context
        return context

    def _make(self, certificate: ClientCertificate | None) -> SSL.Context:
        root = platformTrust() if self._trust_root is None else self._trust_root
        context: SSL.Context = CertificateOptions(trustRoot=root).getContext()
        store = context.get_cert_store()
        assert store is not None
        for authority in self._authorities:
            store.add_cert(X509.from_cryptography(authority))
        if certificate is not None:
            certificate.use_in(context)
        return context


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class TLSClient:
    """TLS client options for one host.

    Twisted's own options reject names that are not valid in IDNA 2008, and only log an unexpected
    error in their check of the host name.

    :param host: an address, or a name in ASCII.
    """

    _contexts: TLSContexts
    host: str
    _server_name: bytes | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Server Name Indication excludes addresses and the trailing dot (RFC 6066, section 3).
        name = None if _is_address(self.host) else self.host.removesuffix(".").encode("ascii")
        self._server_name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the TLS side of a connection, which records the errors of a certificate."""
        connection = SSL.Connection(self._contexts.for_host(self.host), None)
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
    """Return the reason why OpenSSL refused a certificate; ``None`` if it accepted the certificate.

    :param errors: OpenSSL's error numbers, each with the depth in the chain.
    """
    if not errors:
        return None
    error, depth = errors[-1]
    sentence = _REFUSALS.get(error, f"the certificate is not trusted (OpenSSL's error {error})")
    return sentence if depth == 0 else f"{sentence} (certificate {depth} of its chain)"


def self_check() -> None:
    """Check with certificates made in memory that the libraries verify the host of a certificate.

    An incompatible version of a library is found at the start instead of in a call.

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
