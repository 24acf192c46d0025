"""A headless browser: Chromium, driven by selenium."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.helpers.processes import wait_for

# The browser contacts only the daemon under test, and leaves no files.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 30
"""Time limit in seconds of a step of the browser on a busy machine."""


def _found(*names: str) -> str:
    paths = [path for path in map(shutil.which, names) if path]
    if not paths:
        reason = f"{names[0]} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return paths[0]


class Browser:
    """A browser that records its requests.

    :ivar requested: the URL of every request that it made.
    """

    def __init__(self) -> None:
        program = _found("chromium", "chromium-browser", "google-chrome")
        driver = _found("chromedriver")
        self._profile = tempfile.mkdtemp(prefix="callme-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*_FLAGS, f"--user-data-dir={self._profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # With an explicit path, selenium does not download a driver.
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(SECONDS)
        self.requested: list[str] = []

    def close(self) -> None:
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def go(self, url: str) -> None:
        self.driver.get(url)

    @property
    def path(self) -> str:
        parts = urlsplit(self.driver.current_url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    @property
    def h1(self) -> str:
        # In one step: an element found first may be gone with its page before its text is read.
        return str(self.run("return document.querySelector('h1')?.innerText.trim() ?? ''"))

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def tell(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script returns a true value; return it."""
        return wait_for(lambda: self.run(script, *arguments), SECONDS, 0.05)

    def arrives(self, path: str) -> None:
        """Wait until the page of a path is loaded."""
        self.until(
            "return location.pathname + location.search === arguments[0]"
            " && document.readyState === 'complete'",
            path,
        )

    def press(self, *keys: str) -> None:
        """Send keys to the focused element."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """Return the focused element's text, value or id."""
        return str(
            self.run(
                "const e = document.activeElement; return e.textContent.trim() || e.id || e.name"
            )
        )

    def set_screen(self, width: int, dark: bool = False, height: int = 900) -> None:
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def complaints(self) -> list[str]:
        """Return the console messages since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the requested URLs since the last call."""
        events = (
            json.loads(one["message"])["message"] for one in self.driver.get_log("performance")
        )
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


def keep(browser: Browser, name: str) -> None:
    """Save a screenshot of the whole page if ``CALLME_SCREENSHOTS`` names a directory."""
    directory = os.environ.get("CALLME_SCREENSHOTS")
    if directory:
        shot = browser.tell("Page.captureScreenshot", captureBeyondViewport=True)
        Path(directory, f"{name}.png").write_bytes(b64decode(shot["data"]))
