"""Certificates of a ``tls:`` endpoint, made in memory and replaced while it listens."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL.SSL import Connection, WantReadError

from callme.server.certificates import RenewedCertificates, directory_of
from callme.server.listen import CannotListen, check_bindable, endpoint_of
from tests.helpers.certificates import write_certificate

# Twisted reads the subjects of certificates with methods of pyOpenSSL that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:X509:DeprecationWarning")


def creator_of(description: str) -> RenewedCertificates:
    creator: RenewedCertificates = endpoint_of(object(), description).connectionCreator  # type: ignore[attr-defined]
    return creator


def served(creator: RenewedCertificates) -> bytes:
    """Return the certificate that a client receives in a handshake, as PEM."""
    connection: Connection = creator.serverConnectionForTLS(None)
    connection.set_accept_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    for _ in range(10):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            connection.bio_write(outgoing.read())
            with suppress(WantReadError):
                connection.do_handshake()
            incoming.write(connection.bio_read(65536))
        else:
            certificate = client.getpeercert(True)
            assert certificate is not None
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    raise AssertionError("no handshake")


def test_renewed_certificate_is_used_by_the_next_connection(tmp_path: Path) -> None:
    first = write_certificate(tmp_path)
    creator = creator_of(f"tls:{tmp_path}:port=6777")
    assert served(creator) == first
    second = write_certificate(tmp_path)
    assert second != first
    assert served(creator) == second


def test_half_finished_renewal_keeps_the_old_certificate(tmp_path: Path) -> None:
    first = write_certificate(tmp_path)
    creator = creator_of(f"tls:{tmp_path}:port=6777")
    key = (tmp_path / "key.pem").read_bytes()
    second = write_certificate(tmp_path)
    new_key = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(key)
    assert served(creator) == first
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN rubbish")
    assert served(creator) == first
    (tmp_path / "key.pem").unlink()
    assert served(creator) == first
    (tmp_path / "key.pem").write_bytes(new_key)
    assert served(creator) == second


def test_links_are_followed_as_certbot_makes_them(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"archive{number}").mkdir()
    live = tmp_path / "live"
    live.mkdir()
    first = write_certificate(tmp_path / "archive1")
    for name in ("key.pem", "cert.pem"):
        (live / name).symlink_to(tmp_path / "archive1" / name)
    creator = creator_of(f"tls:{live}:port=6777")
    assert served(creator) == first
    second = write_certificate(tmp_path / "archive2")
    for name in ("cert.pem", "key.pem"):
        (live / name).unlink()
        (live / name).symlink_to(tmp_path / "archive2" / name)
        if name == "cert.pem":
            assert served(creator) == first
    assert served(creator) == second


def test_directory_without_certificate_is_rejected_at_start(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match=r"has no \.pem files of a certificate and its key"):
        check_bindable(f"tls:{tmp_path}:port=0:interface=127.0.0.1")


@pytest.mark.parametrize(("interface", "exposed"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_reach_of_a_tls_endpoint_is_that_of_its_interface(
    tmp_path: Path, interface: str, exposed: bool
) -> None:
    write_certificate(tmp_path)
    assert check_bindable(f"tls:{tmp_path}:port=0:interface={interface}") is exposed


@pytest.mark.parametrize(
    "description",
    ["tls:/a\\:b:port=1", "tls:port=1:path=/a\\:b", "tls:backlog=1:/a\\:b", "tls:/a\\:b:1"],
)
def test_directory_is_read_from_the_description(description: str) -> None:
    assert directory_of(description) == Path("/a:b")
