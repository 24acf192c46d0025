"""The web page in a real browser, against a daemon process: about half a minute in all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.helpers.axe import check_rules
from tests.helpers.browser import Browser, keep
from tests.helpers.processes import Daemon, Sink, wait_for

pytestmark = pytest.mark.daemon

# Contrast of every text with its background (WCAG 2.2, 1.4.3): 4.5:1, or 3:1 for large text.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function colour(text) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((one) => one / 255).map(
    (one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function ground(element) {
  for (let at = element; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found[3] === 255) return found;
  }
  return [255, 255, 255, 255];
}
const poor = [];
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].filter((one) => one.nodeType === 3 && one.data.trim());
  if (!own.length || !element.checkVisibility() || element.closest("title, .skip, .box")) continue;
  const style = getComputedStyle(element);
  const text = element instanceof SVGElement ? style.fill : style.color;
  const [one, other] = [light(colour(text)), light(ground(element))].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const ratio = (one + 0.05) / (other + 0.05);
  seen += 1;
  if (ratio < (large ? 3 : 4.5)) poor.push(`${own[0].data.trim()}: ${ratio.toFixed(2)}`);
}
return [seen, poor];
"""
NAMED = {"link", "button", "textbox", "searchbox", "img", "image", "table", "navigation", "region"}


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def daemon(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with finished, failed and scheduled tasks."""
    daemon = Daemon(tmp_path_factory.mktemp("browser")).start()
    for number in range(4):
        daemon.put(f"good{number}", sink.url("/status/200"))
        daemon.put(f"later{number}", sink.url("/status/200"), f"+{number + 1}h")
    failed = daemon.put("failed-once", sink.url("/status/503"), retry=0, payload='{"a": 1}')
    daemon.until(failed, "failed")
    yield daemon
    daemon.kill()


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """A browser without history; it must log no errors and contact no other host."""
    shared_browser.go("about:blank")
    shared_browser.tell("Emulation.setScriptExecutionDisabled", value=False)
    shared_browser.tell("Network.clearBrowserCookies")
    shared_browser.set_screen(1400)
    shared_browser.complaints()
    shared_browser.requests()
    yield shared_browser
    # The console lists policy violations too. A 401 or 409 is expected.
    loud = [one for one in shared_browser.complaints() if "the server responded with" not in one]
    assert loud == []
    hosts = {urlsplit(url).hostname for url in shared_browser.requests() if "://" in url}
    assert hosts <= {"127.0.0.1"}


def url(daemon: Daemon, path: str) -> str:
    return f"http://127.0.0.1:{daemon.port}{path}"


def failed(daemon: Daemon, sink: Sink, name: str) -> str:
    """Let a task fail; return its key."""
    key = daemon.put(name, sink.url("/status/500"), retry=0)
    daemon.until(key, "failed", 60)
    return key


def tab_to(browser: Browser, wanted: str) -> None:
    """Press the tab key until the element with this text has the focus."""
    for _ in range(100):
        browser.press(Keys.TAB)
        if browser.focused() == wanted:
            outline = browser.run(
                "const s = getComputedStyle(document.activeElement);"
                "return [s.outlineStyle, parseFloat(s.outlineWidth)]"
            )
            assert outline[0] == "solid"
            assert outline[1] >= 2
            return
    raise AssertionError(f"no way to {wanted} by the keyboard")


def paths_of_pages(daemon: Daemon, sink: Sink) -> dict[str, str]:
    """Return the path of each kind of page by a name for it."""
    key = daemon.curl("GET", "/status/failed-once")[1]["tasks"][0]["task"]
    later = daemon.curl("GET", "/status/later0")[1]["tasks"][0]["task"]
    return {
        "overview": "/",
        "task": f"/page/task/{key}",
        "reschedule": f"/page/reschedule/{key}",
        "delete": f"/page/delete/{later}",
        "run": f"/page/run/{later}",
        "new": "/page/new",
        "duplicate": f"/page/new?from={key}",
        "found": "/page/find?name=",
        "selected": "/page/find?state=scheduled&select=all",
        "filtered": "/page/find?state=failed&host=x.example:80&label=customer:42&order=due",
        "misfiltered": "/page/find?host=x",
        "failures": "/page/failures",
        "retry-many": "/page/reschedule-many?state=failed",
        "delete-many": "/page/delete-many?name=later",
        "hosts": "/page/hosts",
        "host": f"/page/hosts/{urlsplit(sink.url('/')).netloc}",
        "wrong": "/page/nowhere",
    }


def open_page(browser: Browser, daemon: Daemon, path: str) -> None:
    """Load a page, and open all that is folded."""
    browser.go(url(daemon, path))
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_page_fits_the_screen_and_has_contrast(
    daemon: Daemon, sink: Sink, browser: Browser, width: int, dark: bool
) -> None:
    browser.set_screen(width, dark)
    for name, path in paths_of_pages(daemon, sink).items():
        open_page(browser, daemon, path)
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} wide"
        seen, poor = browser.run(CONTRAST)
        assert seen > 5
        assert poor == [], path
        check_what_is_heard(browser, path)
        keep(browser, f"{name}-{width}-{'dark' if dark else 'light'}")


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1400, False)], ids=["phone", "desk"])
def test_every_page_obeys_the_rules_of_axe(
    daemon: Daemon, sink: Sink, browser: Browser, width: int, dark: bool
) -> None:
    browser.set_screen(width, dark)
    for path in paths_of_pages(daemon, sink).values():
        open_page(browser, daemon, path)
        passed, violated = check_rules(browser)
        assert violated == [], path
        assert {"color-contrast", "document-title", "target-size"} <= set(passed), path
    browser.run("document.querySelector('#find').labels[0].remove()")
    assert [one.partition(":")[0] for one in check_rules(browser)[1]] == ["label"]


def check_what_is_heard(browser: Browser, path: str) -> None:
    """Check the accessibility tree: landmarks, and a name for every element that needs one."""
    nodes = [n for n in browser.tell("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    roles = [node["role"]["value"] for node in nodes]
    for landmark in ("banner", "main", "contentinfo", "search", "heading"):
        assert landmark in roles, f"{path} has no {landmark}"
    nameless = [n for n in nodes if n["role"]["value"] in NAMED and not message(n)]
    assert nameless == [], path


def message(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", "")).strip()


def test_dashboard_draws_its_charts(daemon: Daemon, browser: Browser) -> None:
    browser.go(url(daemon, "/"))
    assert browser.h1.endswith("failed in the last 3 hours")
    assert "failed" in browser.driver.title
    boxes = browser.run(
        "return [...document.querySelectorAll('.box path[d*=z]')].map("
        "(one) => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) >= 4
    assert all(box["width"] >= 1 and box["height"] >= 1 for box in boxes)
    zone = browser.one("#zone").text
    assert zone.startswith("Your time zone: UTC")
    assert browser.one("main time").get_attribute("title")
    loaded = {urlsplit(one).path for one in browser.requests()}
    assert {one.partition("-")[0] for one in loaded} >= {
        "/page/static/style",
        "/page/static/script",
    }


def test_task_is_rescheduled_by_keyboard_alone(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    key = failed(daemon, sink, "by-keyboard")
    browser.go(url(daemon, "/"))
    browser.one("body").send_keys(Keys.TAB)
    assert browser.focused() == "Skip to the content"
    browser.press(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "main"
    tab_to(browser, "by-keyboard")
    browser.press(Keys.ENTER)
    browser.arrives(f"/page/task/{key}")
    tab_to(browser, "Reschedule\u2026")
    browser.press(Keys.ENTER)
    browser.arrives(f"/page/reschedule/{key}")
    tab_to(browser, "time")
    browser.press(Keys.CONTROL, "a")
    browser.press("soon", Keys.ENTER)
    browser.until("return document.querySelector('[role=alert]')")
    assert "is not a time" in browser.one("[role=alert]").text
    assert browser.one("#time").get_attribute("value") == "soon"
    tab_to(browser, "time")
    browser.press(Keys.CONTROL, "a")
    browser.press("+2h")
    tab_to(browser, "Reschedule")
    browser.press(Keys.ENTER)
    browser.until("return location.pathname.startsWith('/page/task/')")
    assert browser.one("[role=status]").text == "The task was rescheduled."
    (task,) = daemon.curl("GET", "/status/by-keyboard")[1]["tasks"]
    assert (task["state"], browser.path) == (
        "scheduled",
        f"/page/task/{task['task']}?done=rescheduled",
    )


def test_pages_work_without_scripts(daemon: Daemon, sink: Sink, browser: Browser) -> None:
    failed(daemon, sink, "no-script")
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(url(daemon, "/"))
    assert browser.one("#zone").text == ""
    browser.one("#find").send_keys("no-scr", Keys.ENTER)
    browser.arrives("/page/find?name=no-scr")
    browser.one("main td a").click()
    wait_for(lambda: browser.h1 == "no-script", 60)
    browser.one("a.do.bad").click()
    wait_for(lambda: browser.h1 == "Delete no-script?", 60)
    browser.one("main button").click()
    browser.arrives("/?done=deleted")
    assert browser.one("[role=status]").text == "The task was deleted."
    assert daemon.curl("GET", "/status/no-script")[0] == 404


def test_task_is_created_duplicated_and_run_without_scripts(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(url(daemon, "/"))
    browser.one("header a.quiet").click()
    wait_for(lambda: browser.h1 == "New task", 60)
    browser.one("#field-task-name").send_keys("by-form")
    browser.one("#field-callback").send_keys(sink.url("/status/200"))
    browser.one("#time").send_keys("soon")
    browser.one("#field-payload").send_keys("one\ntwo")
    browser.one("button[value=preview]").click()
    wait_for(lambda: browser.all("#time-error"), 60)
    assert "is not a time" in browser.one("#time-error").text
    browser.one("#time").clear()
    browser.one("#time").send_keys("+2h")
    browser.one("button[value=preview]").click()
    wait_for(lambda: browser.all("main [role=status]"), 60)
    assert "The task would be created." in browser.one("main [role=status]").text
    keep(browser, "preview-1400-light")
    browser.one("button[value=create]").click()
    wait_for(lambda: browser.h1 == "by-form", 60)
    (task,) = daemon.curl("GET", "/status/by-form")[1]["tasks"]
    assert daemon.task(task["task"])["payload"] == "one\ntwo"
    # The texts to copy are there without buttons.
    assert browser.one("#copy-key").get_attribute("value") == task["task"]
    assert browser.all(".copy button") == []
    browser.one("a[href^='/page/new?from=']").click()
    wait_for(lambda: browser.h1 == "New task", 60)
    assert browser.one("#field-payload").get_attribute("value") == "one\ntwo"
    browser.one("#local-time").send_keys("11262028\t0900AM")
    browser.one("#time-zone").clear()
    browser.one("#time-zone").send_keys("Europe/Berlin")
    browser.one("button[value=create]").click()
    wait_for(lambda: browser.h1 == "by-form", 60)
    assert "due at 2028-11-26 09:00 in Europe/Berlin" in browser.one("[role=status]").text
    browser.one("main .actions form button").click()
    wait_for(lambda: "done=run" in browser.path, 60)
    names = daemon.curl("GET", "/status/by-form")[1]["tasks"]
    ran = daemon.until(names[0]["task"], "succeeded", 60)
    assert sink.count(ran["task"]) == 1
    browser.go(url(daemon, "/"))
    browser.one("form[action='/page/acknowledge'] button").click()
    browser.arrives("/?done=acknowledged")
    assert browser.h1 == "All is well"


def test_texts_of_a_task_are_copied_by_a_button(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    key = daemon.put("to-copy", sink.url("/status/200"), "+1h")
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.tell("Browser.grantPermissions", permissions=permissions)
    browser.go(url(daemon, f"/page/task/{key}"))
    # A refresh leaves the buttons.
    browser.run("return refresh()")
    for name in ("copy-key", "copy-curl"):
        browser.one(f"#{name} + button").click()
        wait_for(lambda name=name: browser.one(f"#{name} + button").text == "Copied", 60)  # type: ignore[misc]
        copied = browser.run("return navigator.clipboard.readText()")
        assert copied == browser.one(f"#{name}").get_attribute("value")
    assert copied.startswith(f"curl -X PUT http://127.0.0.1:{daemon.port}/task/{key}")
    done = subprocess.run(["sh", "-c", f"{copied} -sS"], capture_output=True, check=True)
    assert json.loads(done.stdout)["task"] == key


def test_local_times_are_in_the_zone_of_the_browser(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    key = daemon.put("zoned", sink.url("/status/200"), "+1h")
    browser.tell("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    try:
        browser.go(url(daemon, f"/page/reschedule/{key}"))
        assert browser.one("#time-zone").get_attribute("value") == "Asia/Tokyo"
        browser.run("document.getElementById('local-time').value = '2028-11-26T09:00'")
        browser.one("button[value=preview]").click()
        browser.until("return document.querySelector('main [role=status]')")
        meaning = browser.one("main [role=status]").text
        assert meaning.startswith("New time: 2028-11-26 00:00 UTC, which is 2028-11-26 09:00 in")
        browser.one("main button.go").click()
        browser.until("return location.pathname.startsWith('/page/task/')")
        assert "2028-11-26 09:00 in Asia/Tokyo" in browser.one("[role=status]").text
    finally:
        browser.tell("Emulation.setTimezoneOverride", timezoneId="")


def shows(browser: Browser, selector: str, text: str) -> None:
    """Wait until the page has an element with a text."""
    script = "return document.querySelector(arguments[0])?.textContent === arguments[1]"
    browser.until(script, selector, text)


def test_many_tasks_are_changed_without_scripts(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    for number in range(3):
        daemon.put(f"many.{number}", sink.url("/status/200"), "+1h")
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(url(daemon, "/page/find"))
    browser.one("#filters summary").click()
    browser.one("#filter-name").send_keys("many.", Keys.ENTER)
    shows(browser, "h1", "Tasks whose names start with \u201cmany.\u201d")
    for number in range(2):
        browser.one(f"#select-{number}").click()
    browser.one("button[formaction]").click()
    shows(browser, "h1", "Delete 2 tasks?")
    browser.one("main button").click()
    shows(browser, "[role=status]", "2 tasks were deleted.")
    assert daemon.curl("GET", "/status/?prefix=many.")[1]["tasks"][0]["task"].startswith("many.2")
    browser.go(url(daemon, "/page/find?name=many."))
    browser.one("a[href^='/page/reschedule-many']").click()
    shows(browser, "h1", "Reschedule 1 task?")
    browser.one("main form.confirm button").click()
    shows(browser, "[role=status]", "1 task was rescheduled.")


def test_all_tasks_of_a_page_are_selected_with_and_without_a_script(
    daemon: Daemon, browser: Browser
) -> None:
    path = "/page/find?name=later"
    count = "return document.querySelectorAll('tbody input:checked').length"
    select_all, select_none = "[data-select=all]", "[data-select=none]"
    browser.go(url(daemon, path))
    browser.one(select_all).click()
    assert (browser.run(count), browser.path) == (4, path)
    assert browser.one("#news").get_attribute("textContent") == "Selected tasks: 4"
    browser.one(select_none).click()
    assert browser.run(count) == 0
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(url(daemon, path))
    browser.one(select_all).click()
    browser.arrives(f"{path}&select=all")
    # The policy does not affect Selenium's own scripts.
    assert len(browser.all("tbody input:checked")) == 4
    browser.one("form.bulk button:not(.bad)").click()
    browser.arrives("/page/reschedule-many")
    assert browser.h1 == "Reschedule 4 tasks?"


def test_dashboard_refreshes_without_disturbing_the_reader(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    browser.go(url(daemon, "/?done=deleted"))
    browser.run("document.title = 'another headline'")
    browser.one("#ahead-table summary").click()
    key = failed(daemon, sink, "fresh")
    # The page refreshes itself after a few seconds.
    browser.until(
        "return [...document.querySelectorAll('main td a')].some((a) => a.textContent === 'fresh')"
    )
    assert browser.all("[role=status]") == []
    assert browser.run("return document.getElementById('ahead-table').open")
    # A screen reader announces the new headline.
    assert browser.run("return document.getElementById('news').textContent").endswith("callme")
    # Focus and selection survive a refresh.
    browser.run("document.querySelector(`a[href='/page/task/${arguments[0]}']`).focus()", key)
    before = browser.run("return window.before = document.querySelector('main h1')")
    assert before.text
    browser.run("return refresh()")
    assert browser.run("return window.before.isConnected") is False
    assert browser.focused() == "fresh"
    browser.run(
        "window.before = document.querySelector('main h1');"
        "getSelection().selectAllChildren(window.before)"
    )
    browser.run("return refresh()")
    assert browser.run("return window.before.isConnected")
    browser.run("getSelection().removeAllRanges()")
    button = browser.one(".refresh")
    button.click()
    assert button.text == "Resume refresh"
    button.click()


def test_dashboard_reports_an_unreachable_daemon(
    sink: Sink, browser: Browser, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path).start()
    browser.go(url(daemon, "/"))
    daemon.kill()
    browser.run("return refresh()")
    # The page marks its content as outdated, in view.
    trouble = browser.one("#stale")
    assert trouble.text.startswith("callme is not responding: this page is out of date.")
    assert trouble.location["y"] < browser.one("h1").location["y"]
    assert trouble.get_attribute("aria-live") == "assertive"
    assert browser.all("main.stale")
    assert browser.run(CONTRAST)[1] == []
    keep(browser, "old-1400-light")
    browser.complaints()
    daemon.start()
    browser.run("return refresh()")
    assert browser.one("#stale").text == ""
    assert browser.all("main.stale") == []
    browser.complaints()
    daemon.kill()


def test_operator_logs_in_and_out(browser: Browser, sink: Sink, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("let-me-in-let-me-in\nread:let-me-look-let-me\n")
    daemon = Daemon(tmp_path, f"--token-file={tokens}")
    daemon.start()
    bearer = ("-H", "Authorization: Bearer let-me-in-let-me-in")
    body = {"trigger_at": "+1h", "callback": sink.url("/status/200")}
    _, task = daemon.curl("PUT", "/task/kept", body, *bearer)
    path = f"/page/task/{task['task']}"
    browser.go(url(daemon, path))
    assert browser.h1 == "Log in"
    keep(browser, "login-1400-light")
    browser.one("#token").send_keys("guess", Keys.ENTER)
    browser.until("return document.querySelector('[role=alert]')")
    browser.one("#token").send_keys("let-me-look-let-me", Keys.ENTER)
    browser.until("return document.querySelector('h1').textContent === 'kept'")
    assert browser.all("a.do") == []
    cookies = browser.driver.get_cookies()
    assert [(one["name"], one["httpOnly"], one["sameSite"]) for one in cookies] == [
        ("callme", True, "Strict")
    ]
    assert "let-me" not in cookies[0]["value"]
    browser.one("header button.quiet").click()
    browser.arrives("/page/login")
    browser.go(url(daemon, path))
    browser.one("#token").send_keys("let-me-in-let-me-in", Keys.ENTER)
    browser.until("return document.querySelector('h1').textContent === 'kept'")
    browser.one("a.do.bad").click()
    browser.until("return document.querySelector('h1').textContent === 'Delete kept?'")
    # A page of another site cannot: the cookie is not sent, and its origin is refused.
    browser.one("main button").click()
    browser.arrives("/?done=deleted")
    assert daemon.curl("GET", "/status/kept", None, *bearer)[0] == 404
    # The next refresh reports the end of a session.
    tokens.write_text("another-token-of-theirs\n")
    assert daemon.process is not None
    daemon.process.send_signal(1)
    wait_for(lambda: "tokens reloaded: " in daemon.log(), 60)
    browser.run("refresh()")
    browser.until("return document.querySelector('h1').textContent === 'Log in'")
    daemon.kill()


def test_page_of_another_site_cannot_time_a_response(
    daemon: Daemon, sink: Sink, browser: Browser
) -> None:
    key = daemon.put("private", sink.url("/status/200"), "+1h")
    timed = (
        "const begin = performance.now(), end = () => performance.now() - begin;"
        "return fetch(arguments[0], {mode: 'no-cors'}).then(end, end)"
    )
    # The same site at another port, and another site.
    same_site = sink.url("/status/200")
    for foreign in (same_site, same_site.replace("127.0.0.1", "localhost")):
        browser.go(foreign)
        # If the wait began, the task would exist.
        assert browser.run(timed, url(daemon, f"/status/{key}?wait=3")) < 2000
        browser.complaints()
        # A link to a page works.
        browser.run("location.href = arguments[0]", url(daemon, "/page/find"))
        browser.arrives("/page/find")
    assert browser.run(timed, url(daemon, f"/status/{key}?wait=3")) > 2500
    # The fixture accepts no other host; this test has visited one.
    browser.requests()
