"""A real browser for tests, spoken to in Chromium's DevTools protocol: no driver, no further package."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One open page."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number, self.errors = socket, 0, []
        self.asked: list[str] = []  # every address that the page wanted something from

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, *, seconds: float = 30) -> Any:
        """Wait until a JavaScript expression is truthy and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}; the page says: {self.run('document.body.innerText')}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def picture(self, path: Path) -> None:
        """Write what is seen to a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def upload(self, files: list[Path]) -> None:
        """Give files to the page's file input."""
        self.until("!!document.querySelector('input[type=file]')")
        node = self.call("Runtime.evaluate", expression="document.querySelector('input[type=file]')")
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=node["result"]["objectId"])

    def click(self, text: str) -> None:
        """Click the visible button or tab that is called `text`, as soon as it can be."""
        found = (
            "[...document.querySelectorAll('button, [role=tab], [role=radio]')].find(b => b.offsetParent && "
            f"!b.disabled && b.innerText.includes({json.dumps(text)}))"
        )
        self.until(f"!!{found}")
        self.run(f"{found}.click()")


@contextmanager
def browser(folder: Path, *, flags: Sequence[str] = ("--disable-gpu",)) -> Iterator[Browser]:
    """Open a browser with a profile of its own below `folder`; what it downloads comes to `folder/downloads`."""
    from websockets.sync.client import connect

    assert CHROMIUM
    profile = folder / "profile"
    command = [CHROMIUM, "--headless", "--no-sandbox", *flags, "--disable-dev-shm-usage", "--no-first-run"]
    own = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--disable-background-networking"]
    process = subprocess.Popen([*command, *own, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_page_of(profile), max_size=None) as socket:
            page = Browser(socket)
            for domain in ("Page", "Runtime", "DOM", "Network"):
                page.call(f"{domain}.enable")
            (folder / "downloads").mkdir()
            page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
            yield page
    finally:
        process.terminate()
        process.wait(20)


def _page_of(profile: Path) -> str:
    import requests

    port_file = profile / "DevToolsActivePort"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if port_file.is_file() and port_file.read_text().count("\n"):
            port = port_file.read_text().splitlines()[0]
            pages = requests.get(f"http://127.0.0.1:{port}/json", timeout=10).json()
            found = [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]
            if found:
                return str(found[0])
        time.sleep(0.1)
    raise AssertionError("Chromium did not start")
