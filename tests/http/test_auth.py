"""Authentication: tokens, hosts and origins, and the responses to rejected requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from callme.security.proxies import TrustedProxies, parse_proxy_network
from callme.security.secret_file import MAX_SIZE, UnusableFile
from callme.server.auth import Gate
from callme.server.channel import CLOSE_SECONDS
from callme.server.refusals import Refusal
from callme.server.site import BoundedSite
from callme.store import tasks
from callme.tap import load_tokens
from tests.helpers.credentials import READER, TOKENS, WRITER
from tests.helpers.raw_client import BODY, Client, head
from tests.helpers.world import World


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return path


def connect(world: World, gate: Gate) -> Client:
    if gate.file is not None:
        world.tokens = gate.file.value
    return Client(world, BoundedSite(world.parts.site.resource, world.clock, gate))


def ask(client: Client, *arguments: bytes, host: bytes = b"localhost") -> int:
    client.send(head(*arguments, host=host))
    return client.status()


@pytest.mark.parametrize("target", [b"/status/", b"/nowhere", b"/healthz", b"*", b"/%FF"])
def test_foreign_host_is_refused_with_a_reason(world: World, target: bytes) -> None:
    client = connect(world, Gate())
    client.send(head(b"GET", target, host=b"rebound.example:6777"))
    ((status, problem),) = client.responses()
    assert status == 403
    assert '"rebound.example:6777" is neither a loopback address nor a name' in problem["detail"]
    assert ask(client, b"GET", b"/status/") == 200


def test_host_of_an_absolute_target_is_checked(world: World) -> None:
    client = connect(world, Gate())
    assert ask(client, b"GET", b"http://evil.example/status/") == 403
    assert ask(client, b"GET", b"HTTPS://evil.example?x") == 403
    assert ask(client, b"GET", b"http://callme/status/", host=b"evil.example") == 200
    assert ask(client, b"GET", b"http://evil.example@localhost/status/") == 400
    assert ask(client, b"GET", b"http:///status/") == 400


def test_http_1_0_request_without_host_is_accepted(world: World) -> None:
    client = connect(world, Gate())
    client.send(b"GET /status/ HTTP/1.0\r\n\r\n")
    assert client.status() == 200
    client = connect(world, Gate())
    client.send(b"GET /status/ HTTP/1.0\r\nOrigin: http://evil.example\r\n\r\n")
    assert client.status() == 403


@pytest.mark.parametrize("gate", [Gate(), Gate(any_host=True)])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"null", 403),
        (b"", 403),
        (b"http://evil.example", 403),
        (b"http://localhost.evil.example:6777", 403),
        (b"http://localhost", 403),
        (b"http://localhost:8080", 403),
        (b"localhost:6777", 403),
        (b"https://localhost:6777", 403),
        (b"chrome-extension://localhost:6777", 403),
        (b"http://localhost:6777", 200),
        (b"http://LOCALHOST:6777", 200),
        (b"http://localhost:6777\r\nOrigin: null", 403),
    ],
)
def test_cross_origin_request_is_refused(
    world: World, gate: Gate, origin: bytes, status: int
) -> None:
    client = connect(world, gate)
    assert ask(client, b"GET", b"/status/", b"Origin: " + origin, host=b"localhost:6777") == status


def test_default_port_is_not_part_of_an_origin(world: World) -> None:
    client = connect(world, Gate())
    origin = b"Origin: http://localhost"
    assert ask(client, b"GET", b"/status/", origin, host=b"localhost:80") == 200
    assert ask(client, b"GET", b"/status/", origin, host=b"localhost:443") == 403


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (b"https://callme.example.com", b"callme.example.com", 200),
        (b"https://callme.example.com", b"callme.example.com:443", 200),
        # A proxy may send its own name for callme.
        (b"https://callme.example.com", b"127.0.0.1:6777", 200),
        (b"http://127.0.0.1:6777", b"127.0.0.1:6777", 200),
        # A page that was changed on its way comes without TLS.
        (b"http://callme.example.com", b"callme.example.com", 403),
        (b"https://callme.example.com:8443", b"callme.example.com", 403),
        (b"https://other.example.com", b"callme.example.com", 403),
        (b"http://other.example.com", b"other.example.com", 403),
        (b"null", b"callme.example.com", 403),
    ],
)
def test_named_origin_is_accepted_with_its_scheme(
    world: World, origin: bytes, host: bytes, status: int
) -> None:
    client = connect(world, Gate(origins=frozenset({b"https://callme.example.com"})))
    assert ask(client, b"GET", b"/status/", b"Origin: " + origin, host=host) == status


SITES = [b"cross-site", b"same-site", b"", b"Same-Origin", b"same-origin, none", b"none-such"]
LINK = (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")


@pytest.mark.parametrize("with_token", [False, True])
@pytest.mark.parametrize("site", SITES)
def test_request_of_another_site_is_refused(
    world: World, token_file: Path, site: bytes, with_token: bool
) -> None:
    world.put("x")
    client = connect(world, Gate(file=load_tokens(token_file)) if with_token else Gate())
    token = [b"Authorization: " + WRITER] if with_token else []
    header = b"Sec-Fetch-Site: " + site
    for method, target in [
        (b"GET", b"/status/"),
        (b"GET", b"/status/x"),
        (b"GET", b"/healthz"),
        (b"GET", b"/page/find"),
        (b"HEAD", b"/metrics"),
        (b"OPTIONS", b"/task/x"),
        (b"DELETE", b"/task/x"),
        (b"POST", b"/page/login"),
    ]:
        client.send(head(method, target, header, *token))
        assert client.transport.value().startswith(b"HTTP/1.1 403 ")
        client.transport.clear()
    assert len(world.result(world.store.read(tasks.list_page)).tasks) == 1


@pytest.mark.parametrize("site", [b"same-origin", b"none"])
def test_request_of_an_own_page_or_of_the_user_is_accepted(world: World, site: bytes) -> None:
    assert ask(connect(world, Gate()), b"GET", b"/status/", b"Sec-Fetch-Site: " + site) == 200
    two = b"Sec-Fetch-Site: " + site + b"\r\nSec-Fetch-Site: cross-site"
    assert ask(connect(world, Gate()), b"GET", b"/status/", two) == 403


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        (b"GET", b"/page/find", LINK, 200),
        (b"GET", b"/", LINK, 200),
        (b"POST", b"/page/login", LINK, 403),
        (b"GET", b"/status/", LINK, 403),
        (b"GET", b"/page/find", LINK[:1], 403),
        (b"GET", b"/page/find", LINK[1:], 403),
        (b"GET", b"/page/find", (LINK[0], b"Sec-Fetch-Dest: iframe"), 403),
        (b"GET", b"/page/find", (b"Sec-Fetch-Mode: no-cors", LINK[1]), 403),
    ],
)
def test_only_a_link_to_a_page_may_be_followed_from_another_site(
    world: World, method: bytes, target: bytes, headers: tuple[bytes, ...], status: int
) -> None:
    client = connect(world, Gate())
    client.send(head(method, target, b"Sec-Fetch-Site: cross-site", *headers))
    assert client.transport.value().startswith(b"HTTP/1.1 %d " % status)


def test_gate_for_any_host_accepts_every_host(world: World) -> None:
    client = connect(world, Gate(any_host=True))
    assert ask(client, b"GET", b"/status/", host=b"callme.example") == 200
    assert ask(client, b"GET", b"/status/", host=b"a b") == 400
    client.send(head(b"GET", b"/healthz", host=b"callme.example"))
    ((_, health),) = client.responses()
    assert "backlog" in health


@pytest.mark.parametrize("target", [b"/status/", b"/nowhere", b"/task/x", b"/%FF", b"*"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"BREW"])
def test_request_without_token_is_unauthorized(
    world: World, token_file: Path, target: bytes, method: bytes
) -> None:
    world.put("x")
    client = connect(world, Gate(file=load_tokens(token_file)))
    challenges = []
    for header in (b"X: y", b"Authorization: Basic eDp5", b"Authorization: Bearer wrong"):
        client.send(head(method, target, header))
        response = bytes(client.transport.value()).lower()
        challenges += [line for line in response.split(b"\r\n") if line.startswith(b"www-auth")]
        assert client.status() == 401
    plain = b'www-authenticate: bearer realm="callme"'
    assert challenges == [plain, plain, plain + b', error="invalid_token"']


def test_token_is_accepted_from_any_host_and_origin(world: World, token_file: Path) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    token = b"Authorization: " + WRITER
    more = [b"Origin: http://evil.example", b"Content-Length: %d" % len(BODY)]
    client.send(head(b"PUT", b"/task/x", token, *more, host=b"callme.example") + BODY)
    assert client.status() == 201


def test_read_token_does_not_write(world: World, token_file: Path) -> None:
    world.put("x")
    client = connect(world, Gate(file=load_tokens(token_file)))
    token = b"Authorization: " + READER
    assert ask(client, b"GET", b"/status/x", token) == 200
    assert ask(client, b"OPTIONS", b"/task/x", token) == 204
    for method in (b"DELETE", b"POST", b"PUT", b"TRACE"):
        client.send(head(method, b"/task/x", token))
        response = bytes(client.transport.value()).lower()
        assert b'bearer realm="callme", error="insufficient_scope"' in response
        assert client.status() == 403
    assert len(world.result(world.store.read(tasks.list_page)).tasks) == 1


@pytest.mark.parametrize("target", [b"/healthz", b"/healthz/", b"/healthz?pretty"])
def test_health_without_token_omits_details(world: World, token_file: Path, target: bytes) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    client.send(head(b"GET", target) + head(b"GET", target, b"Authorization: " + READER))
    (status, told), (_, whole) = client.responses()
    assert (status, told) == (200, {"status": "ok"})
    assert "backlog" in whole
    world.store.is_broken = True
    client.send(head(b"GET", target))
    assert client.responses() == [(503, {"status": "failing"})]
    assert ask(client, b"POST", target) == 401


@pytest.mark.parametrize("target", [b"/healthzhttp://x", b"/heahttps://lthz", b"/healthz/x"])
def test_paths_near_healthz_require_a_token(world: World, token_file: Path, target: bytes) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    assert ask(client, b"GET", target) == 401


def test_health_of_an_absolute_target_needs_no_token(world: World, token_file: Path) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    client.send(head(b"GET", b"http://callme.example/healthz"))
    assert client.responses() == [(200, {"status": "ok"})]


# Bodies of rejected requests


def test_refused_body_is_discarded(world: World, token_file: Path) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    client.send(head(b"PUT", b"/task/x", b"Content-Length: 16000000") + b"{" * 1000)
    response = bytes(client.transport.value()).lower()
    assert b"connection: close" in response
    assert b"www-authenticate: bearer" in response
    assert client.status() == 401
    request = client.channel.requests[0]
    for _ in range(20):
        client.send(b"{" * 100_000)
    assert request.content is None
    assert client.responses() == []
    # The client closes after reading the response; otherwise callme does.
    assert not client.transport.disconnecting
    world.clock.advance(CLOSE_SECONDS)
    assert client.transport.aborted


@pytest.mark.parametrize("length", [b"Content-Length: 46", b"Transfer-Encoding: chunked"])
def test_request_after_a_refused_body_is_not_read(
    world: World, token_file: Path, length: bytes
) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    body = BODY if b"46" in length else b"2e\r\n" + BODY + b"\r\n0\r\n\r\n"
    good = head(b"DELETE", b"/task/x", b"Authorization: " + WRITER)
    client.send(head(b"PUT", b"/task/x", length) + body + good)
    client.send(good)
    assert client.status() == 401


def test_refused_head_request_has_no_body(world: World) -> None:
    client = connect(world, Gate())
    client.send(head(b"HEAD", b"/status/", b"Content-Length: 46", b"Origin: null"))
    response = client.transport.value()
    assert response.startswith(b"HTTP/1.1 403 ")
    assert response.endswith(b"\r\n\r\n")
    # The same holds for the malformed request after one.
    client = connect(world, Gate())
    client.send(head(b"HEAD", b"/healthz"))
    client.transport.clear()
    client.send(b"x" * 20_000)
    assert client.status() == 431


def test_refused_request_gets_no_100_continue(world: World) -> None:
    client = connect(world, Gate())
    more = [b"Expect: 100-continue", b"Content-Length: 46", b"Origin: null"]
    client.send(head(b"PUT", b"/task/x", *more))
    assert client.status() == 403


# Token file


def test_token_file_is_reloaded(world: World, token_file: Path) -> None:
    file = load_tokens(token_file)
    client = connect(world, Gate(file=file))
    old, new = b"Authorization: " + WRITER, b"Authorization: Bearer new-token-of-the-writer"
    assert ask(client, b"GET", b"/status/", old) == 200
    token_file.write_text("new-token-of-the-writer\n")
    assert ask(client, b"GET", b"/status/", new) == 401
    file.reload()
    assert ask(client, b"GET", b"/status/", new) == 200
    assert ask(client, b"GET", b"/status/", old) == 401


def spoil(path: Path, how: str) -> None:
    if how == "no such":
        path.unlink()
    elif how in ("604", "602", "666"):
        path.chmod(int(how, 8))
    elif how == "no file":
        path.unlink()
        os.mkfifo(path)
    else:
        contents = {"empty": b"", "latin": b"p\xe4ss", "large": b"#" * (MAX_SIZE + 1)}
        path.write_bytes(contents[how])


SPOILT = {
    "no such": "No such file",
    "604": "its mode 604 gives access to every user: expected a mode such as 600",
    "602": "its mode 602",
    "666": "its mode 666",
    "no file": "it is not a regular file",
    "empty": "it contains no token",
    "latin": "it is not UTF-8",
    "large": "it is larger than 1,048,576 bytes",
}


@pytest.mark.parametrize("how", SPOILT)
def test_unusable_token_file_keeps_the_old_tokens(world: World, token_file: Path, how: str) -> None:
    file = load_tokens(token_file)
    client = connect(world, Gate(file=file))
    spoil(token_file, how)
    with pytest.raises(UnusableFile, match=SPOILT[how]) as raised:
        load_tokens(token_file)
    assert str(raised.value).startswith(f'the token file "{token_file}": ')
    assert "\n" not in str(raised.value)
    file.reload()
    assert ask(client, b"GET", b"/status/", b"Authorization: " + WRITER) == 200


def test_token_file_may_be_group_readable(token_file: Path) -> None:
    token_file.chmod(0o640)
    assert len(load_tokens(token_file).value) == 2


def test_metrics_require_a_read_token(world: World, token_file: Path) -> None:
    client = connect(world, Gate(file=load_tokens(token_file)))
    assert ask(client, b"GET", b"/metrics") == 401
    client.send(head(b"GET", b"/metrics", b"Authorization: " + READER))
    assert client.transport.value().startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\ncallme_database_up 1.0\n" in client.transport.value()


# The record of refusals


@pytest.mark.parametrize(
    ("request_head", "reason"),
    [
        (head(b"GET", b"/status/"), Refusal.TOKEN_MISSING),
        (head(b"GET", b"/page/find"), Refusal.TOKEN_MISSING),
        (head(b"PUT", b"/task/x", b"Content-Length: 9"), Refusal.TOKEN_MISSING),
        (head(b"GET", b"/x", b"Authorization: Bearer guess"), Refusal.TOKEN_WRONG),
        (head(b"DELETE", b"/task/x", b"Authorization: " + READER), Refusal.READ_ONLY),
        (head(b"GET", b"/status/", b"Sec-Fetch-Site: cross-site"), Refusal.CROSS_ORIGIN),
        (head(b"POST", b"/page/login"), Refusal.CROSS_ORIGIN),
    ],
)
def test_refusal_with_tokens_is_counted_once(
    world: World, token_file: Path, request_head: bytes, reason: Refusal
) -> None:
    counted: list[Refusal] = []
    gate = Gate(file=load_tokens(token_file))
    site = BoundedSite(world.parts.site.resource, world.clock, gate, count_refusal=counted.append)
    Client(world, site).send(request_head)
    assert counted == [reason]
    good = Client(world, site)
    assert ask(good, b"GET", b"/status/", b"Authorization: " + WRITER) == 200
    assert ask(good, b"GET", b"/nowhere", b"Authorization: " + WRITER) == 404
    assert ask(good, b"GET", b"/healthz") == 200
    assert counted == [reason]


@pytest.mark.parametrize(
    ("request_head", "reason"),
    [
        (head(b"GET", b"/status/", host=b"evil.example"), Refusal.HOST),
        (head(b"PUT", b"/task/x", b"Content-Length: 9", host=b"evil.example"), Refusal.HOST),
        (head(b"GET", b"/status/", b"Origin: null"), Refusal.CROSS_ORIGIN),
    ],
)
def test_refusal_without_tokens_is_counted_once(
    world: World, request_head: bytes, reason: Refusal
) -> None:
    counted: list[Refusal] = []
    site = BoundedSite(world.parts.site.resource, world.clock, Gate(), count_refusal=counted.append)
    Client(world, site).send(request_head)
    assert counted == [reason]


@pytest.mark.parametrize("length", [0, 9])
def test_refused_request_is_counted_for_the_client_behind_a_trusted_proxy(
    world: World, length: int
) -> None:
    proxies = TrustedProxies(networks=[parse_proxy_network("192.168.1.1")])
    site = BoundedSite(world.parts.site.resource, world.clock, Gate(proxies=proxies))
    forwarded = (b"X-Forwarded-For: 198.51.100.7", b"Content-Length: %d" % length)
    Client(world, site).send(head(b"PUT", b"/task/x", b"Origin: null", *forwarded))
    with capturedLogs() as events:
        site.close()
    (line,) = [str(formatEvent(event)) for event in events]
    assert "198.51.100.7" in line
    assert "192.168.1.1" not in line


def test_refusals_are_logged_when_the_site_closes(world: World) -> None:
    client = connect(world, Gate())
    assert ask(client, b"GET", b"/status/", b"Origin: null") == 403
    assert world.clock.getDelayedCalls() != []
    client.site.close()
    client.hang_up()
    assert world.clock.getDelayedCalls() == []
