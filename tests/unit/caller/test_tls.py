"""Certificates are compared with hosts, and the start is refused where they are not."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from service_identity import CertificateError, VerificationError, exceptions

from callme.caller import tls
from callme.caller.tls import (
    CertificateRefused,
    ClientCertificate,
    UncheckedNames,
    check_name,
    describe_refusal,
    self_check,
)
from tests.helpers.certificates import make_certificate


def test_self_check_passes() -> None:
    self_check()


def test_self_check_fails_if_another_host_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "verify_hostname", lambda *_: None)
    with pytest.raises(UncheckedNames, match=r"accepted for other\.example"):
        self_check()


def test_self_check_fails_if_every_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TypeError

    monkeypatch.setattr(tls, "verify_hostname", fail)
    with pytest.raises(UncheckedNames, match="could not be compared with the host: TypeError"):
        self_check()


def test_any_error_of_the_library_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type)]
    raised: list[Any] = [kind for kind in kinds if issubclass(kind, Exception)]
    assert {VerificationError, CertificateError} <= set(raised)
    for kind in [*raised, KeyError]:

        def fail(*_: object, kind: Any = kind) -> None:
            raise kind(["x"])

        monkeypatch.setattr(tls, "verify_hostname", fail)
        with pytest.raises(CertificateRefused):
            check_name(None, "a.example")


def test_missing_certificate_is_refused() -> None:
    for host in ("a.example", "127.0.0.1", "::1", ""):
        with pytest.raises(CertificateRefused):
            check_name(None, host)


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ([], None),
        ([(10, 0)], "the certificate has expired"),
        ([(10, 1)], "the certificate has expired (certificate 1 of its chain)"),
        ([(20, 0), (21, 0)], "the issuer of the certificate is unknown, or an intermediate"),
        ([(79, 0)], "the certificate is not trusted (OpenSSL's error 79)"),
    ],
)
def test_refusal_of_openssl_is_explained(errors: Any, message: str | None) -> None:
    described = describe_refusal(errors)
    assert described == message or (message is not None and str(described).startswith(message))


def pem_pair(name: str) -> tuple[str, str]:
    """Return a certificate and its key, in PEM."""
    key, certificate = make_certificate(name)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def test_client_certificate_has_a_chain_and_a_key() -> None:
    (first, key), (second, _) = pem_pair("a.example"), pem_pair("b.example")
    assert len(ClientCertificate.parse(first + second + key)) == 2
    assert len(ClientCertificate.parse(key + first)) == 1


def test_unusable_client_certificate_is_refused_without_its_content() -> None:
    (first, key), (_, other_key) = pem_pair("a.example"), pem_pair("b.example")
    for text, message in (
        (key, "it contains no certificate in PEM that can be read"),
        (first, "it contains no unencrypted private key in PEM"),
        (first + other_key, "its key is not the one of its first certificate"),
    ):
        with pytest.raises(ValueError, match="it") as error:
            ClientCertificate.parse(text)
        assert str(error.value) == message
