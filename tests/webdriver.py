"""A headless Chromium for tests, through chromedriver's own protocol (W3C WebDriver), without a library."""

import json
import re
import shutil
import subprocess
import urllib.request

import pytest

KEYS = {
    "Enter": "\ue007",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowUp": "\ue013",
    "ArrowDown": "\ue015",
}


class Browser:
    """One window; `open` a page, then read and use it by CSS selectors."""

    def __init__(self, driver: str, chromium: str):
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                break
        self.address = f"http://127.0.0.1:{found[1]}/session"
        flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"]
        options = {"binary": chromium, "args": [f"--{flag}" for flag in flags]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self.address += "/" + self._ask("", {"capabilities": capabilities})["sessionId"]

    def open(self, url: str) -> None:
        """Load a page, with its scripts run."""
        self._ask("/url", {"url": url})

    def run(self, script: str):
        """What a script returns."""
        return self._ask("/execute/sync", {"script": script, "args": []})

    def texts(self, selector: str) -> list[str]:
        """The text of each element that a selector finds."""
        return self.run(
            f"return [...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
        )

    def click(self, selector: str) -> None:
        self._ask(f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into an element, or press keys of `KEYS` in it."""
        self._ask(f"/element/{self._find(selector)}/value", {"text": KEYS.get(text, text)})

    def dark(self, on: bool) -> None:
        """Prefer the dark colours, as a system setting would."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._ask("/goog/cdp/execute", command)

    def resize(self, width: int, height: int) -> None:
        """Take a viewport of this size, in pixels."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen}
        self._ask("/goog/cdp/execute", command)

    def close(self) -> None:
        try:
            self._ask("", method="DELETE")
        finally:
            self.process.terminate()
            self.process.wait()

    def _find(self, selector: str) -> str:
        found = self._ask("/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def _ask(self, path: str, content: dict | None = None, method: str = "POST"):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@pytest.fixture(scope="module")
def browser():
    """A `Browser`; skips where Chromium is not installed."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("Chromium is not here: apt-get install chromium chromium-driver")
    window = Browser(driver, chromium)
    yield window
    window.close()
