"""callme below a path of another site: each path in each response begins with the base path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from attrs import define, field, frozen
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from callme.api.openapi.operations import document
from callme.server.paths import BasePath
from callme.server.site import BoundedSite
from callme.webui.routes import WebUi
from tests.helpers.credentials import gate_for
from tests.helpers.raw_client import Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World

BASE = "/callme"
LATER = NOON + 3600
TOKEN = "a-token-of-these-tests"
HOSTILE = '" href="<a href="'
ORIGIN = b"Origin: http://localhost"
HTML = b"Accept: text/html"
FORM = b"Content-Type: application/x-www-form-urlencoded"


@frozen
class Answer:
    """A response as its client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_page(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/html")

    @property
    def tree(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body.removeprefix(b"<!DOCTYPE html>"))


class _Received:
    """Bytes in place of a socket, for :mod:`http.client`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._data)


def ask(
    site: BoundedSite, world: World, method: str, target: str, *lines: bytes, body: bytes = b""
) -> Answer:
    """Send a request over a new connection."""
    client = Client(world, site)
    length = [b"Content-Length: %d" % len(body)] if body else []
    client.send(head(method.encode(), target.encode(), *lines, *length) + body)
    for _ in range(30):
        world.clock.advance(0)
    received: Any = _Received(client.transport.value())
    client.hang_up()
    response = HTTPResponse(received, method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


@contextmanager
def filled(base: str) -> Iterator[World]:
    """Run a daemon below a path, with tasks in every state."""
    world = World(base_path=base)
    try:
        fill(world)
        yield world
    finally:
        world.close()


@pytest.fixture
def world() -> Iterator[World]:
    with filled(BASE) as world:
        yield world


def fill(world: World) -> None:
    world.scheduler.start()
    world.caller.status = 500
    for number in range(3):
        world.put(f"failed{number}", NOON, retry=0)
    world.put("retried", NOON, retry=5)
    world.notify_due("sink.example:80")
    world.turn_to(NOON + 5)
    world.caller.status = 200
    # The page of a task with a long payload has a link to its curl command.
    world.put("succeeded", NOON, payload="x" * 110_000)
    world.notify_due("sink.example:80")
    world.turn_to(NOON + 10)
    world.caller.status = None
    world.put("running", NOON + 60)
    world.put("two words", LATER)
    world.put(HOSTILE, LATER, payload='<a href="/x">', headers={"X": '" href="/'})
    for number in range(105):
        world.put(f"later{number:03}", LATER + 60 * number)
    world.turn_to(NOON + 65)


# The pages


@define
class Crawler:
    """A browser that follows each link of each page, and then submits each form.

    :ivar pages: the pages that were found, by target.
    :ivar forms: the fields of the forms that change something, by the path that receives the form.
    """

    world: World
    pages: dict[str, Answer] = field(factory=dict)
    forms: dict[str, bytes] = field(factory=dict)
    _queue: list[str] = field(factory=lambda: [f"{BASE}/"])
    _shapes: dict[str, int] = field(factory=dict)

    def crawl(self) -> None:
        while self._queue:
            target = self._queue.pop(0)
            answer = self.pages[target] = ask(
                self.world.parts.site, self.world, "GET", target, HTML
            )
            assert answer.status in (200, 303), target
            self._follow(answer)
            if answer.is_page and answer.status == 200:
                self._read(target, answer.tree)

    def submit(self) -> None:
        """Submit all forms, and visit the pages that they lead to."""
        for action, fields in self.forms.items():
            lines = (HTML, FORM, ORIGIN)
            answer = ask(self.world.parts.site, self.world, "POST", action, *lines, body=fields)
            if answer.status == 303:
                self._follow(answer)
            else:
                # The form leads to another one, another form has changed or deleted the task, or
                # the form needs an entry.
                assert answer.status in (200, 404, 409, 422), action
                self._read(action, answer.tree)

    def _follow(self, answer: Answer) -> None:
        if "location" in answer.headers:
            self._add(answer.headers["location"])

    def _read(self, page: str, tree: ElementTree.Element) -> None:
        for element in tree.iter():
            for name, value in element.attrib.items():
                # No attribute has a path, other than these.
                assert name in ("href", "src", "action", "formaction") or not value.startswith("/")
                if name in ("href", "src") and not value.startswith("#"):
                    self._add(value)
        for form in tree.iter("form"):
            self._read_form(page, form)

    def _add(self, target: str) -> None:
        assert target.startswith(f"{BASE}/"), target
        # Many links differ in a name or a number only.
        shape = re.sub(r"[0-9]+", "0", target)
        if target not in self.pages and self._shapes.setdefault(shape, 0) < 3:
            self._shapes[shape] += 1
            self._queue.append(target)

    def _read_form(self, page: str, form: ElementTree.Element) -> None:
        action = form.get("action") or page
        assert action.startswith(f"{BASE}/")
        # Of several buttons a browser sends the one that was pressed, by default the first.
        controls = [*form.iter("input"), *form.iter("select"), *form.iter("textarea")]
        fields = urlencode(
            [
                (one.get("name", ""), one.get("value", ""))
                for one in [*controls, *list(form.iter("button"))[:1]]
                if one.get("name")
            ]
        )
        if form.get("method", "get") == "get":
            self._add(f"{action}?{fields}")
        else:
            self.forms[action] = fields.encode()


def test_every_link_and_form_of_every_page_has_the_base_path(world: World) -> None:
    crawler = Crawler(world)
    crawler.crawl()
    urls = WebUi.app.url_map.bind("callme")

    def routes_of(targets: Iterable[str], method: str) -> set[str]:
        paths = [target.removeprefix(BASE).partition("?")[0] for target in targets]
        return {urls.match(path, method)[0] for path in paths}

    routes = list(WebUi.app.url_map.iter_rules())
    # Without tokens, no page has a link to the login or to the logout.
    for found, method in ((crawler.pages, "GET"), (crawler.forms, "POST")):
        expected = {rule.endpoint for rule in routes if method in (rule.methods or ())}
        assert routes_of(found, method) == expected - {"login", "logout"}
    crawler.submit()
    crawler.crawl()


@pytest.mark.parametrize("path", ["/", "/page/find", f"/page/task/running@{NOON + 60}"])
def test_page_differs_from_that_at_the_root_in_its_links_only(path: str) -> None:
    with filled("") as at_root, filled(BASE) as below:
        expected = ask(at_root.parts.site, at_root, "GET", path, HTML).body
        page = ask(below.parts.site, below, "GET", path, HTML).body
    assert b"/callme/page/static/style" in page
    page = page.replace(b"http://localhost/callme/", b"http://localhost/")
    assert re.sub(rb'(href|src|action)="/callme/', rb'\1="/', page) == expected


def test_text_of_a_task_is_no_link(world: World) -> None:
    found = ask(world.parts.site, world, "GET", f"{BASE}/page/find?name=%22+href", HTML)
    links = [link.get("href", "") for link in found.tree.iter("a")]
    (path,) = [link for link in links if "/page/task/" in link]
    page = ask(world.parts.site, world, "GET", path, HTML)
    text = "".join(page.tree.itertext())
    assert page.status == 200
    assert '<a href="/x">' in text
    assert HOSTILE in text
    assert BASE not in text.replace(f"http://localhost{BASE}/task/", "")


def test_curl_command_of_a_task_has_the_base_path(world: World) -> None:
    path = f"{BASE}/page/curl/later000@{LATER}"
    command = ask(world.parts.site, world, "GET", path, HTML).body.decode()
    assert command.startswith(f"curl -X PUT http://localhost/callme/task/later000@{LATER} ")


class Pieces(Resource):
    """A page that is written in pieces.

    :param size: the bytes of each.
    """

    isLeaf = True
    page = b'<!DOCTYPE html><p title="&gt;/"><!-- < --><a href="/x">/ &lt;a href="/y"</a></p>'

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def render(self, request: Request) -> int:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        for begin in range(0, len(self.page), self._size):
            request.write(self.page[begin : begin + self._size])
        request.finish()
        return NOT_DONE_YET


@pytest.mark.parametrize("size", range(1, len(Pieces.page) + 1))
def test_link_that_is_written_in_pieces_has_the_base_path(size: int) -> None:
    world = World()
    site = BoundedSite(Pieces(size), world.clock)
    site.base_path = BasePath(BASE)
    page = ask(site, world, "GET", "/callme/").body
    world.close()
    assert page == Pieces.page.replace(b'<a href="/x">', b'<a href="/callme/x">')


# The login


def login(world: World, tmp_path: Path, *lines: bytes, next_page: str = "/page/find") -> Answer:
    """Log in at a daemon with tokens."""
    gate = gate_for(tmp_path, TOKEN)
    assert gate.file is not None
    world.tokens = gate.file.value
    gate.origins = frozenset({line.removeprefix(b"Origin: ") for line in lines})
    world.parts.site.gate = gate
    body = urlencode({"token": TOKEN, "next": next_page}).encode()
    target = f"{BASE if world.parts.site.base_path.path else ''}/page/login"
    return ask(world.parts.site, world, "POST", target, HTML, FORM, *lines, body=body)


def test_session_is_limited_to_the_base_path(world: World, tmp_path: Path) -> None:
    answer = login(world, tmp_path, b"Origin: http://localhost")
    assert (answer.status, answer.headers["location"]) == (303, "/callme/page/find")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("callme=")
    assert "Path=/callme" in attributes
    for path in ("/", "/page/find"):
        shown = ask(world.parts.site, world, "GET", path, HTML, b"Cookie: " + cookie.encode())
        assert (shown.status, b"Log out" in shown.body) == (200, True)
        assert ask(world.parts.site, world, "GET", BASE + path, HTML).status == 401


def test_session_over_tls_has_the_prefix_that_permits_a_path(world: World, tmp_path: Path) -> None:
    answer = login(world, tmp_path, b"Origin: https://localhost")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("__Secure-callme=")
    assert {"Path=/callme", "Secure", "HttpOnly"} <= set(attributes)
    line = b"Cookie: " + cookie.encode()
    assert ask(world.parts.site, world, "GET", f"{BASE}/", HTML, line).status == 200
    world.build()
    answer = login(world, tmp_path, b"Origin: https://localhost")
    assert answer.headers["set-cookie"].startswith("__Host-callme=")
    assert "Path=/;" in answer.headers["set-cookie"]


def test_login_leads_to_the_page_that_required_it(world: World, tmp_path: Path) -> None:
    login(world, tmp_path, b"Origin: http://localhost")
    path = f"/page/task/running@{NOON + 60}"
    required = ask(world.parts.site, world, "GET", BASE + path, HTML)
    assert required.status == 401
    (form,) = required.tree.iter("form")
    assert form.get("action") == "/callme/page/login"
    fields = {one.get("name"): one.get("value") for one in form.iter("input")}
    answer = login(world, tmp_path, ORIGIN, next_page=fields["next"] or "")
    assert answer.headers["location"] == BASE + path


# The API


def operations() -> list[tuple[str, str]]:
    """Return the method and the path of every operation of the API, on an existing task."""
    return sorted(
        (method.upper(), re.sub(r"\{(\w+)\}", partial(_value_of, method, path), path))
        for path, item in document()["paths"].items()
        for method in item.keys() - {"parameters", "summary", "description"}
    )


def _value_of(method: str, path: str, parameter: re.Match[str]) -> str:
    if method == "put":
        name, at = "new", LATER
    elif path.startswith("/reschedule"):
        name, at = "failed0", NOON
    else:
        name, at = "later001", LATER + 60
    return {"task_name": name, "trigger_at": str(at), "host": "sink.example:80"}[parameter[1]]


_QUERIES = {
    ("GET", "/status/"): "?limit=2",
    ("POST", "/reschedule"): "?state=failed",
    ("DELETE", "/task"): "?state=failed",
}


def body_of(method: str, path: str) -> bytes:
    """Return a body that an operation accepts."""
    if method == "PUT" and path.startswith("/hosts"):
        return b'{"paused": true}'
    if method not in ("PUT", "POST") or path.startswith("/reschedule"):
        return b""
    task = {"callback": "http://sink.example/"}
    if "@" not in path:
        task["trigger_at"] = str(LATER)
    if "new" not in path:
        task["task_name"] = "new"
    return json.dumps([task] if path == "/batch" else task).encode()


@pytest.mark.parametrize(("method", "path"), operations())
def test_operation_differs_in_its_paths_only(method: str, path: str) -> None:
    answers = []
    for base in ("", BASE):
        target = base + path + _QUERIES.get((method, path), "")
        body = body_of(method, path)
        with filled(base) as world:
            lines = [b"X-Request-Id: 1"]
            answers.append(ask(world.parts.site, world, method, target, *lines, body=body))
    at_root, below = answers
    assert at_root.status < 300
    assert below.status == at_root.status
    moved = {
        name: re.sub("(^|<)/", r"\1/callme/", value) if name in ("location", "link") else value
        for name, value in at_root.headers.items()
    }
    moved.pop("date"), below.headers.pop("date")
    if path in ("/", "/openapi.json", "/metrics"):
        # These contain the base path, or the time of the start.
        moved["content-length"] = below.headers["content-length"]
    else:
        assert below.body == at_root.body
    assert below.headers == moved


def test_paths_in_responses_have_the_base_path(world: World) -> None:
    site = world.parts.site
    service = json.loads(ask(site, world, "GET", BASE).body)
    assert all(link.startswith("/callme/") for link in service["links"].values())
    for link in service["links"].values():
        method = "POST" if link.endswith("batch") else "GET"
        assert ask(site, world, method, link, body=b"[]" if method == "POST" else b"").status == 200
    openapi = json.loads(ask(site, world, "GET", service["links"]["openapi"]).body)
    assert [server["url"] for server in openapi["servers"]] == [BASE]
    created = ask(site, world, "PUT", f"{BASE}/task/new@{LATER}", body=body_of("PUT", "new@"))
    assert created.headers["location"] == f"/callme/task/new@{LATER}"
    assert ask(site, world, "GET", created.headers["location"]).status == 200


def test_links_lead_through_all_pages_of_a_list(world: World) -> None:
    target, names = f"{BASE}/status/?prefix=later&limit=50", []
    while target:
        answer = ask(world.parts.site, world, "GET", target)
        names += [task["task_name"] for task in json.loads(answer.body)["tasks"]]
        link = re.fullmatch('<(/callme/status/[^>]*)>; rel="next"', answer.headers.get("link", "<"))
        target = link[1] if link else ""
    assert names == [f"later{number:03}" for number in range(105)]


@pytest.mark.parametrize("path", [f"/status/later000@{LATER}", "/status/later000.ics", "/healthz"])
def test_request_is_served_with_and_without_the_base_path(world: World, path: str) -> None:
    site = world.parts.site
    answers = [
        ask(site, world, "GET", base + path) for base in ("", BASE, f"http://localhost{BASE}")
    ]
    assert [answer.status for answer in answers] == [200] * 3
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize("path", ["/callmex/status/", "/other/callme/status/", "/callme/callme/"])
def test_other_path_is_not_found(world: World, path: str) -> None:
    assert ask(world.parts.site, world, "GET", path).status == 404


def test_limits_of_paths_hold_below_the_base_path(world: World) -> None:
    """A batch may be longer than other bodies, and a form is shorter."""
    site = world.parts.site
    body = b"[" + b" " * (1024 * 1024) + b"]"
    assert ask(site, world, "POST", f"{BASE}/batch", body=body).status == 200
    assert ask(site, world, "PUT", f"{BASE}/task/x", body=body).status == 413
    form = b"x" * (17 * 1024)
    path = f"{BASE}/page/run/later000@{LATER}"
    assert ask(site, world, "POST", path, HTML, FORM, ORIGIN, body=form).status == 413
