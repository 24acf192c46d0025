"""Logins to the web page: sessions, cookies, forms and origins."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from callme.core.task import State
from callme.security.login_throttle import FREE_ATTEMPTS, SECONDS_PER_ATTEMPT
from callme.security.secret_file import SecretFile
from callme.security.sessions import SESSION_SECONDS
from callme.security.tokens import Tokens
from callme.server.auth import Gate
from callme.server.refusals import Refusal, Refusals
from callme.server.site import BoundedSite
from callme.tap import load_tokens
from callme.webui.routes import WebUi
from tests.helpers.credentials import READER, READS, TOKENS, WRITER, WRITES
from tests.helpers.raw_client import Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World

LATER = NOON + 3600


OURS = b"Origin: http://localhost"


HTML = b"Accept: text/html"


@pytest.fixture
def file(tmp_path: Path) -> SecretFile[Tokens]:
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text(TOKENS)
    return load_tokens(path)


@pytest.fixture
def client(world: World, file: SecretFile[Tokens]) -> Client:
    world.tokens = file.value
    gate = Gate(file=file, now=world.now)
    return Client(world, BoundedSite(world.parts.site.resource, world.clock, gate))


class Answer:
    """A response as bytes on the wire."""

    def __init__(self, data: bytes) -> None:
        top, _, self.body = data.partition(b"\r\n\r\n")
        lines = top.decode().split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:]]

    def header(self, name: str) -> str:
        return next((value for n, value in self.headers if n.lower() == name), "")


def ask(client: Client, method: bytes, target: str, *headers: bytes, body: bytes = b"") -> Answer:
    more = [b"Content-Length: %d" % len(body)] if body else []
    # Each request has a separate connection, because a refusal closes it.
    fresh = Client(client.world, client.site)
    fresh.send(head(method, target.encode(), *headers, *more) + body)
    return Answer(fresh.transport.value())


def send(client: Client, target: str, fields: dict[str, str], *headers: bytes) -> Answer:
    kind = b"Content-Type: application/x-www-form-urlencoded"
    body = urlencode(fields).encode() or b"x="
    return ask(client, b"POST", target, HTML, kind, *headers, body=body)


def log_in(client: Client, token: bytes = WRITES, *headers: bytes, next_page: str = "/") -> bytes:
    """Log in; return the cookie."""
    fields = {"token": token.decode(), "next": next_page}
    response = send(client, "/page/login", fields, *(headers or (OURS,)))
    assert (response.status, response.header("location")) == (303, next_page)
    return b"Cookie: " + response.header("set-cookie").partition(";")[0].encode()


def form_of(client: Client, cookie: bytes) -> str:
    page = ask(client, b"GET", "/", HTML, cookie)
    return page.body.decode().partition('name="csrf_token" value="')[2].partition('"')[0]


@pytest.mark.parametrize("target", ["/", f"/page/task/x@{LATER}", "/page/find", "/page/nowhere"])
def test_page_without_session_redirects_to_the_login(
    world: World, client: Client, target: str
) -> None:
    world.put("x", LATER)
    page = ask(client, b"GET", target, HTML)
    assert page.status == (404 if target == "/page/nowhere" else 401)
    assert b"x</bdi>" not in page.body
    assert b"2027" not in page.body
    if page.status == 401:
        assert page.header("www-authenticate") == 'Bearer realm="callme"'
        assert b'<input id="token"' in page.body
        assert f'name="next" value="{target}"'.encode() in page.body


@pytest.mark.parametrize("target", ["/", "/page/find", f"/page/delete/x@{LATER}"])
def test_api_request_without_token_gets_json(client: Client, target: str) -> None:
    response = ask(client, b"GET", target, b"Accept: */*")
    assert response.status == 401
    assert response.header("content-type") == "application/problem+json"


def test_login_page_and_static_files_need_no_session(client: Client) -> None:
    page = ask(client, b"GET", "/page/login", HTML)
    assert page.status == 200
    style = page.body.decode().partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert ask(client, b"GET", style).status == 200


def test_login_opens_and_logout_ends_a_session(world: World, client: Client) -> None:
    world.put("x", LATER)
    cookie = log_in(client, next_page=f"/page/task/x@{LATER}")
    page = ask(client, b"GET", f"/page/task/x@{LATER}", HTML, cookie)
    assert page.status == 200
    assert b"Delete" in page.body
    assert send(client, "/page/logout", {}, OURS, cookie).status == 403
    gone = send(client, "/page/logout", {"csrf_token": form_of(client, cookie)}, OURS, cookie)
    assert (gone.status, gone.header("location")) == (303, "/page/login")
    assert "max-age=0" in gone.header("set-cookie").lower()
    assert gone.header("set-cookie").startswith("callme=;")


@pytest.mark.parametrize(
    ("origin", "named", "secure"),
    [(OURS, "callme", False), (b"Origin: https://localhost", "__Host-callme", True)],
)
def test_session_cookie_is_httponly_and_samesite(
    client: Client, origin: bytes, named: str, secure: bool
) -> None:
    client.site.gate.origins = frozenset({b"https://localhost"} if secure else ())
    response = send(client, "/page/login", {"token": WRITES.decode()}, origin)
    name, _, rest = response.header("set-cookie").partition("=")
    assert name == named
    message = {one.strip().lower() for one in rest.split(";")[1:]}
    expected = {"httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}"}
    assert message == expected | ({"secure"} if secure else set())
    cookie = f"Cookie: a=b; {name}={rest.partition(';')[0]}".encode()
    assert ask(client, b"GET", "/", HTML, cookie).status == 200


def test_session_gives_access_to_pages_and_not_to_the_api(client: Client) -> None:
    cookie = log_in(client)
    for target in ("/status/", "/metrics", "/openapi.json", "/task/x"):
        assert ask(client, b"GET", target, HTML, cookie).status == 401
    assert ask(client, b"DELETE", "/task/x", cookie, OURS).status == 401


def test_login_with_a_wrong_token_is_refused(client: Client) -> None:
    response = send(client, "/page/login", {"token": "guess"}, OURS)
    assert response.status == 401
    assert response.header("set-cookie") == ""
    assert b"Invalid token." in response.body
    assert b"guess" not in response.body


def test_reader_logs_in_with_another_token(world: World, client: Client) -> None:
    cookie = log_in(client, READS)
    page = ask(client, b"GET", "/page/find", HTML, cookie)
    assert b'<a href="/page/login"' in page.body
    assert ask(client, b"GET", "/page/login", HTML, cookie).status == 200
    answer = send(client, "/page/login", {"token": WRITES.decode()}, OURS, cookie)
    assert answer.status == 303
    better = b"Cookie: " + answer.header("set-cookie").partition(";")[0].encode()
    page = ask(client, b"GET", "/page/find", HTML, better)
    assert b'<a href="/page/login"' not in page.body
    key = world.put("x", LATER).key
    assert ask(client, b"GET", f"/page/delete/{key}", HTML, better).status == 200


@pytest.mark.parametrize(
    "others",
    [
        "callme=junk; {}",
        "{}; callme=junk",
        "callme=; a=b; callme={forged}; {}",
        "__Host-callme={forged}; {}",
        "; ".join(["callme=junk"] * 100) + "; {}",
    ],
)
def test_cookies_of_other_programs_do_not_hide_the_session(client: Client, others: str) -> None:
    own = log_in(client).removeprefix(b"Cookie: ").decode()
    forged = own.removeprefix("callme=")[:-1] + ("0" if own[-1] != "0" else "1")
    cookie = b"Cookie: " + others.format(own, forged=forged).encode()
    assert ask(client, b"GET", "/", HTML, cookie).status == 200
    assert ask(client, b"GET", "/", HTML, b"Cookie: callme=" + forged.encode()).status == 401


def test_number_of_verified_cookies_is_bounded(client: Client) -> None:
    own = log_in(client).removeprefix(b"Cookie: ").decode()
    forged = own[:-1] + ("0" if own[-1] != "0" else "1")
    for count, status in ((15, 200), (16, 401)):
        cookie = "; ".join([forged] * count + [own])
        assert ask(client, b"GET", "/", HTML, b"Cookie: " + cookie.encode()).status == status


def test_failed_logins_are_counted_and_slowed(world: World, client: Client) -> None:
    counted: list[Refusal] = []
    client.site.refusals = Refusals(world.clock, counted.append)
    for _ in range(FREE_ATTEMPTS):
        assert send(client, "/page/login", {"token": "guess"}, OURS).status == 401
    assert counted == [Refusal.LOGIN_WRONG] * FREE_ATTEMPTS
    # Even the right token must wait: a guess must not show whether it was right.
    slowed = send(client, "/page/login", {"token": WRITES.decode()}, OURS)
    assert (slowed.status, slowed.header("retry-after")) == (429, "5")
    assert b"Try again in 5 s" in slowed.body
    assert slowed.header("set-cookie") == ""
    assert counted[FREE_ATTEMPTS:] == [Refusal.LOGIN_TOO_OFTEN]
    world.clock.advance(SECONDS_PER_ATTEMPT)
    log_in(client)


def test_removed_token_ends_its_sessions(
    world: World, client: Client, file: SecretFile[Tokens], tmp_path: Path
) -> None:
    cookie = log_in(client)
    assert ask(client, b"GET", "/", HTML, cookie).status == 200
    (tmp_path / "tokens").write_text("another-token-of-theirs\n")
    file.reload()
    assert ask(client, b"GET", "/", HTML, cookie).status == 401


def test_expired_session_redirects_to_the_login(world: World, client: Client) -> None:
    cookie = log_in(client)
    world.clock.rightNow += SESSION_SECONDS
    assert ask(client, b"GET", "/", HTML, cookie).status == 401


CHANGES = sorted(
    rule.rule.replace("<path:path>", "example.com:443" if "/hosts/" in rule.rule else f"x@{LATER}")
    for rule in WebUi.app.url_map.iter_rules()
    if "POST" in (rule.methods or ()) and rule.rule not in ("/page/login", "/page/logout")
)
"""The path of every form that changes something."""


@pytest.mark.parametrize("path", CHANGES)
def test_change_needs_a_form_of_a_session_that_may_change(
    world: World, client: Client, path: str
) -> None:
    world.put("x", LATER)
    before = list(world.store.connection.iterdump())
    reader, writer = log_in(client, READS), log_in(client)
    fields = {"expected_state": "scheduled", "until_ms": "0"}
    foreign = b"Origin: http://evil.example"
    for cookie, token, origin, reason in (
        (reader, form_of(client, reader), OURS, b"this session is read-only"),
        (b"Authorization: " + READER, "", OURS, b"this token only permits GET"),
        (writer, form_of(client, reader), OURS, b"the form belongs to another session"),
        (writer, form_of(client, writer), foreign, b"evil.example"),
        (writer, form_of(client, writer), b"X: y", b"a form needs an Origin header"),
    ):
        response = send(client, path, {**fields, "csrf_token": token}, origin, cookie)
        assert response.status == 403
        assert reason in response.body
    assert list(world.store.connection.iterdump()) == before


def test_read_session_changes_nothing(world: World, client: Client) -> None:
    key = world.put("x", LATER).key
    cookie = log_in(client, READS)
    for target in ("/", f"/page/task/{key}"):
        page = ask(client, b"GET", target, HTML, cookie)
        assert page.status == 200
        assert b"Reschedule" not in page.body
        assert b"Delete" not in page.body
    fields = {
        "csrf_token": form_of(client, cookie),
        "expected_state": "scheduled",
        "trigger_at": "+5m",
    }
    bearer = b"Authorization: " + READER
    for doing in ("delete", "reschedule"):
        for credentials in (cookie, bearer):
            page = ask(client, b"GET", f"/page/{doing}/{key}", HTML, credentials)
            assert page.status == 403
            assert b'name="expected_state"' not in page.body
            assert b"log in with another token" in page.body
        assert send(client, f"/page/{doing}/{key}", fields, OURS, cookie).status == 403
    assert world.task(key).state is State.SCHEDULED
    assert send(client, "/page/logout", fields, OURS, cookie).status == 303


def test_read_session_gets_no_actions_on_lists_and_hosts(world: World, client: Client) -> None:
    world.put("x", retry=0)
    world.put("y", retry=0)
    world.caller.status = 500
    world.scheduler.start()
    world.turn_to(NOON + 5)
    cookie = log_in(client, READS)
    for target in ("/", "/page/find?state=failed", "/page/failures", "/page/hosts"):
        page = ask(client, b"GET", target, HTML, cookie)
        assert page.status == 200
        for action in (b"checkbox", b"Reschedule", b"Retry all", b"Delete", b"Pause or limit"):
            assert action not in page.body
        assert b"Delete all" in ask(client, b"GET", target, HTML, log_in(client)).body or (
            target == "/page/hosts"
        )
    for target in (
        "reschedule-many?state=failed",
        "delete-many?state=failed",
        "hosts/a.example:80",
    ):
        page = ask(client, b"GET", f"/page/{target}", HTML, cookie)
        assert page.status == 403
        assert b"log in with another token" in page.body


@pytest.mark.parametrize("doing", ["delete", "reschedule"])
def test_form_of_another_session_is_refused(world: World, client: Client, doing: str) -> None:
    key = world.put("x", LATER).key
    cookie = log_in(client)
    other = form_of(client, log_in(client))
    path = f"/page/{doing}/{key}"
    for wrong in ({}, {"csrf_token": ""}, {"csrf_token": other}):
        response = send(client, path, {"expected_state": "scheduled", **wrong}, OURS, cookie)
        assert response.status == 403
        assert b"the form belongs to another session" in response.body
    right = {"expected_state": "scheduled", "csrf_token": form_of(client, cookie)}
    foreign = (b"http://evil.example", b"null", b"http://localhost:81")
    for origin in (*(b"Origin: " + one for one in foreign), b"X: y"):
        assert send(client, path, right, origin, cookie).status == 403
    assert world.task(key).state is State.SCHEDULED
    assert send(client, path, right, OURS, cookie).status == 303


def test_cross_origin_login_is_refused(client: Client) -> None:
    for origin in (b"Origin: http://evil.example", b"X: y"):
        response = send(client, "/page/login", {"token": WRITES.decode()}, origin)
        assert (response.status, response.header("set-cookie")) == (403, "")


def test_form_of_an_expired_session_is_refused(world: World, client: Client) -> None:
    key = world.put("x", LATER).key
    response = send(client, f"/page/delete/{key}", {"expected_state": "scheduled"}, OURS)
    assert response.status == 401
    assert b'name="next" value="/"' in response.body
    assert world.task(key)


def test_token_in_a_header_gives_access_to_pages(world: World, client: Client) -> None:
    key = world.put("x", LATER).key
    reader, writer = b"Authorization: " + READER, b"Authorization: " + WRITER
    assert ask(client, b"GET", f"/page/task/{key}", reader).status == 200
    fields = {"expected_state": "scheduled"}
    assert send(client, f"/page/delete/{key}", fields, reader).status == 403
    wrong = ask(client, b"GET", "/", HTML, b"Authorization: Bearer wrong")
    assert wrong.status == 401
    assert wrong.header("content-type") == "application/problem+json"
    assert send(client, f"/page/delete/{key}", fields, writer).status == 303


def test_large_form_is_refused(client: Client) -> None:
    response = send(client, "/page/login", {"token": "x" * 20_000}, OURS)
    assert response.status == 413


def test_form_without_tokens_requires_the_origin(world: World) -> None:
    key = world.put("x", LATER).key
    client = Client(world, BoundedSite(world.parts.site.resource, world.clock, Gate()))
    path = f"/page/delete/{key}"
    fields = {"expected_state": "scheduled"}
    for origin in (b"X: y", b"Origin: null", b"Origin: http://evil.example"):
        assert send(client, path, fields, origin).status == 403
    rebound = head(b"GET", b"/", HTML, host=b"rebound.example")
    client.send(rebound)
    assert client.status() == 403
    assert world.task(key)
    # A path that is not recognized as a page is not served as one either.
    assert send(client, path.replace("page", "pag%65"), fields, b"X: y").status == 404
    assert send(client, path, fields, OURS).status == 303
