"""Self-signed TLS certificates, and contexts that serve or trust them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, ContextFactory, optionsForClientTLS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


def write_certificate(directory: Path) -> bytes:
    """Write a key and a certificate for localhost; return the certificate."""
    key, made = make_certificate("localhost")
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (directory / "key.pem").write_bytes(private)
    (directory / "cert.pem").write_bytes(pem)
    return pem


def make_certificate(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a key and a certificate signed with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, built


class Context(ContextFactory):
    """The TLS context of a server."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, make_certificate: x509.Certificate) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_privatekey(key)
        self.context.use_certificate(make_certificate)

    def getContext(self) -> SSL.Context:
        return self.context


@implementer(IPolicyForHTTPS)
class Trusting:
    """A policy that trusts one certificate, for the names in it."""

    def __init__(self, pem: bytes) -> None:
        self.authority = Certificate.loadPEM(pem)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return optionsForClientTLS(hostname.decode("ascii"), self.authority)
