"""Self-signed TLS certificates, and contexts that serve or trust them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
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


def make_certificate(
    name: str,
    issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None,
    *,
    names: Sequence[x509.GeneralName] | None = None,
    days: tuple[int, int] = (-1, 1),
    is_authority: bool = False,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a key and a certificate, signed by an issuer or by itself.

    :param names: the alternative names; by default the name itself.
    :param days: when it is valid, from today.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternative = [x509.DNSName(name)] if names is None else names
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[1].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return key, builder.sign(key if issuer is None else issuer[0], hashes.SHA256())


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
