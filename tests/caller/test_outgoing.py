"""Calls through proxies, with client certificates and with private authorities, over sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater

from callme.caller.call import HttpCaller
from callme.caller.tls import ClientCertificate, TLSContexts, load_authorities
from callme.core.task import Claim, Reason
from callme.security.address_policy import AddressPolicy, parse_network
from callme.security.outgoing import ForHost, Proxy, parse_proxy
from callme.security.secret_file import SecretFile
from tests.helpers.certificates import Context, make_certificate
from tests.helpers.endpoint import Endpoint, listen, shut
from tests.helpers.tasks import NOON, definition


def claim(endpoint: Endpoint, host: str = "localhost", **more: Any) -> Claim:
    url = f"{endpoint.scheme}://{host}:{endpoint.port.getHost().port}/"
    return Claim(
        task_id=1,
        number=1,
        definition=definition(**{"callback": url, "timeout": 5, **more}),
        attempts_used=1,
        claimed_at_ms=NOON * 1000,
        host="host",
    )


class ProxyConnection(Protocol):
    """A connection to a proxy, which relays bytes after a ``CONNECT``."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._head = b""
        self._peer: Protocol | None = None

    def connectionMade(self) -> None:
        self._server.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self._peer is not None:
            assert self._peer.transport is not None
            self._peer.transport.write(data)
            return
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._server.heads.append(self._head)
            if self._server.respond is not None:
                self._server.respond(self)
            else:
                self._connect()

    def _connect(self) -> None:
        address, _, port = self._head.split(b" ")[1].decode().rpartition(":")
        factory: Any = ClientFactory.forProtocol(lambda: _Relay(self))
        factory.noisy = False
        IReactorTCP(reactor).connectTCP(address.strip("[]"), int(port), factory)

    def joined(self, peer: Protocol) -> None:
        self._peer = peer
        self.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._server.open.remove(self)
        if self._peer is not None and self._peer.transport is not None:
            self._peer.transport.loseConnection()


class _Relay(Protocol):
    def __init__(self, client: ProxyConnection) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self._client.joined(self)

    def dataReceived(self, data: bytes) -> None:
        self._client.write(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        assert self._client.transport is not None
        self._client.transport.loseConnection()


class ProxyServer:
    """An HTTP proxy on loopback that permits ``CONNECT`` to every address.

    :ivar heads: the requests that it received.
    :ivar respond: responds to a request in place of connecting.
    """

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.open: list[ProxyConnection] = []
        self.respond: Callable[[ProxyConnection], None] | None = None
        factory: Any = Factory.forProtocol(lambda: ProxyConnection(self))
        factory.noisy = False
        self._port: Any = IReactorTCP(reactor).listenTCP(0, factory, interface="127.0.0.1")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        await maybeDeferred(self._port.stopListening)
        while self.open:
            for connection in self.open:
                connection.transport.abortConnection()  # type: ignore[union-attr]
            await deferLater(reactor, 0.001)


@pytest_twisted.async_yield_fixture
async def proxy() -> AsyncIterator[ProxyServer]:
    made = ProxyServer()
    yield made
    await made.stop()


@pytest_twisted.async_yield_fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    made.port = listen(made)
    yield made
    await shut(made)


def names(name: str) -> list[str]:
    """Resolve every name to loopback."""
    return ["127.0.0.1"]


def caller_through(proxy: ProxyServer, *exceptions: str, **more: Any) -> HttpCaller:
    proxies = [parse_proxy(proxy.url), *map(parse_proxy, exceptions)]
    return HttpCaller(reactor, time.time, 10, proxies=proxies, **{"lookup": names, **more})


async def test_call_through_a_proxy_connects_to_the_address(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    caller = caller_through(proxy)
    outcome = await caller.call(claim(endpoint, "shop.example"))
    assert (outcome.status, outcome.detail) == (200, "")
    port = endpoint.port.getHost().port
    authority = b"127.0.0.1:%d" % port
    assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)]
    assert b"\r\nHost: shop.example:%d\r\n" % port in endpoint.requests[0]
    await caller.close()


async def test_tls_through_a_proxy_is_between_callme_and_the_endpoint(proxy: ProxyServer) -> None:
    endpoint, pem = secure_endpoint("shop.example")
    contexts = TLSContexts(authorities=authorities(pem))
    caller = caller_through(proxy, contexts=contexts)
    assert (await caller.call(claim(endpoint, "shop.example"))).status == 200
    refused = await caller.call(claim(endpoint, "other.example"))
    assert refused.detail == "the certificate is for another host"
    assert len(proxy.heads) == 2
    assert len(endpoint.requests) == 1
    await caller.close()
    await shut(endpoint)


async def test_connections_through_a_proxy_are_reused(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    caller = caller_through(proxy)
    for _ in range(3):
        assert (await caller.call(claim(endpoint, "shop.example"))).status == 200
    assert len(proxy.heads) == 1
    await caller.close()


async def test_address_rules_hold_behind_a_proxy(proxy: ProxyServer, endpoint: Endpoint) -> None:
    """Neither a name nor a number leads a proxy to an address that callme must not call."""
    policy = AddressPolicy(denied=(parse_network("127.0.0.0/8"),))
    caller = caller_through(proxy, networks=policy)
    for host in ("shop.example", "127.0.0.1"):
        outcome = await caller.call(claim(endpoint, host))
        assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    assert proxy.heads == []
    await caller.close()


async def test_metadata_service_is_denied_behind_a_proxy(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    caller = caller_through(proxy, lookup=lambda name: ["169.254.169.254"])
    outcome = await caller.call(claim(endpoint, "shop.example"))
    assert outcome.reason is Reason.FORBIDDEN_ADDRESS
    assert proxy.heads == []
    await caller.close()


async def test_host_with_direct_does_not_use_the_proxy(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    caller = caller_through(proxy, ".internal.example=direct")
    assert (await caller.call(claim(endpoint, "shop.internal.example"))).status == 200
    assert proxy.heads == []
    await caller.close()


async def test_credentials_reach_the_proxy_and_not_the_endpoint(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    port = proxy.url.rpartition(":")[2]
    proxies = [parse_proxy(f"http://ada:se%40cret@127.0.0.1:{port}")]
    caller = HttpCaller(reactor, time.time, 10, proxies=proxies, lookup=names)
    assert (await caller.call(claim(endpoint, "shop.example"))).status == 200
    assert b"\r\nProxy-Authorization: Basic YWRhOnNlQGNyZXQ=\r\n" in proxy.heads[0]
    assert b"roxy" not in endpoint.requests[0]
    await caller.close()


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "the proxy responded to CONNECT with 403"),
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "the proxy responded to CONNECT with 407",
        ),
        (b"SSH-2.0-x\r\n\r\n", "the response of the proxy to CONNECT is not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "the proxy sent data before it was sent a request",
        ),
        (b"x" * 20_000, "the response of the proxy to CONNECT is too long"),
        (b"", "the proxy closed the connection without a response to CONNECT"),
    ],
)
async def test_failure_of_a_proxy_is_explained(
    proxy: ProxyServer, endpoint: Endpoint, response: bytes, detail: str
) -> None:
    def respond(connection: ProxyConnection) -> None:
        connection.write(response)
        assert connection.transport is not None
        connection.transport.loseConnection()

    proxy.respond = respond
    caller = caller_through(proxy)
    outcome = await caller.call(claim(endpoint, "shop.example"))
    assert (outcome.reason, outcome.detail) == (Reason.CONNECTION_FAILED, detail)
    assert endpoint.requests == []
    await caller.close()


async def test_interim_response_of_a_proxy_is_skipped(
    proxy: ProxyServer, endpoint: Endpoint
) -> None:
    def respond(connection: ProxyConnection) -> None:
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n")

    proxy.respond = respond
    caller = caller_through(proxy)
    outcome = await caller.call(claim(endpoint, "shop.example"))
    assert outcome.detail == "the proxy responded to CONNECT with 502"
    await caller.close()


async def test_unreachable_proxy_is_explained(proxy: ProxyServer, endpoint: Endpoint) -> None:
    caller = caller_through(proxy)
    await proxy.stop()
    outcome = await caller.call(claim(endpoint, "shop.example"))
    assert outcome.detail == "the proxy cannot be reached: the connection was refused"
    await caller.close()


async def test_silent_proxy_ends_at_the_deadline(proxy: ProxyServer, endpoint: Endpoint) -> None:
    proxy.respond = lambda connection: None
    clock = Clock()
    caller = caller_through(proxy, clock=clock)
    calling = caller.call(claim(endpoint, "127.0.0.1", timeout=7))
    while not proxy.heads:
        await deferLater(reactor, 0.001)
    clock.advance(7)
    assert (await calling).reason is Reason.TIMEOUT
    while proxy.open:
        await deferLater(reactor, 0.001)
    await caller.close()


# TLS


def pem_of(certificate: Any) -> bytes:
    data: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return data


def authorities(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def secure_endpoint(name: str, client_authority: Any = None) -> tuple[Endpoint, bytes]:
    """Return a TLS endpoint, and its certificate.

    :param client_authority: the issuer of the client certificates that it requires.
    """
    key, certificate = make_certificate(name)
    context = Context(key, certificate)
    if client_authority is not None:
        store = context.context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(client_authority))
        context.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    endpoint = Endpoint(scheme="https")
    endpoint.port = listen(endpoint, context)
    return endpoint, pem_of(certificate)


def key_pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return data


def certificate_file(path: Path, *parts: bytes) -> SecretFile[ClientCertificate]:
    path.write_bytes(b"".join(parts))
    path.chmod(0o600)
    return SecretFile(path=path, kind="client certificate", parse=ClientCertificate.parse)


async def test_authority_of_a_file_is_trusted(tmp_path: Path) -> None:
    endpoint, pem = secure_endpoint("localhost")
    (tmp_path / "ca.pem").write_bytes(pem)
    for contexts, status in (
        (TLSContexts(authorities=load_authorities(tmp_path / "ca.pem")), 200),
        (TLSContexts(), None),
    ):
        caller = HttpCaller(reactor, time.time, 10, contexts=contexts)
        assert (await caller.call(claim(endpoint))).status == status
        await caller.close()
    await shut(endpoint)


async def test_client_certificate_is_presented_to_its_host_only(tmp_path: Path) -> None:
    authority = make_certificate("authority", names=[], is_authority=True)
    key, certificate = make_certificate("callme.example", issuer=authority)
    file = certificate_file(tmp_path / "client.pem", pem_of(certificate), key_pem(key))
    endpoint, pem = secure_endpoint("localhost", authority[1])
    for pattern, status in (("localhost", 200), ("other.example", None)):
        contexts = TLSContexts(
            authorities=authorities(pem), certificates=[ForHost(pattern=pattern, value=file)]
        )
        caller = HttpCaller(reactor, time.time, 10, contexts=contexts)
        outcome = await caller.call(claim(endpoint))
        assert outcome.status == status, outcome.detail
        await caller.close()
    assert len(endpoint.requests) == 1
    await shut(endpoint)


async def test_reloaded_client_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    trusted = make_certificate("authority", names=[], is_authority=True)
    other = make_certificate("other authority", names=[], is_authority=True)
    pairs = [make_certificate("callme.example", issuer=issuer) for issuer in (other, trusted)]
    path = tmp_path / "client.pem"
    file = certificate_file(path, pem_of(pairs[0][1]), key_pem(pairs[0][0]))
    endpoint, pem = secure_endpoint("localhost", trusted[1])
    contexts = TLSContexts(
        authorities=authorities(pem), certificates=[ForHost(pattern="localhost", value=file)]
    )
    caller = HttpCaller(reactor, time.time, 10, contexts=contexts)
    assert (await caller.call(claim(endpoint))).status is None
    path.write_bytes(pem_of(pairs[1][1]) + key_pem(pairs[1][0]))
    contexts.files[0].reload()
    assert (await caller.call(claim(endpoint))).status == 200
    await caller.close()
    await shut(endpoint)


def test_proxy_hides_its_credentials() -> None:
    setting = parse_proxy("http://ada:secret@proxy.example:3128")
    assert isinstance(setting.value, Proxy)
    assert setting.value.authorization is not None
    assert setting.value.authorization not in repr(setting)
