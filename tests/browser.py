"""A headless Chromium for the tests of the HTML page: found, or installed from Debian, or said to be missing.

It speaks WebDriver with the standard library: selenium would bring trio, which other test plugins then import.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("chromium", "chromium-driver")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--force-prefers-reduced-motion",
    "--window-size=1280,1000",
    # Whatever the page asks for, nothing answers; the log still has the request.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ENTER, ESCAPE, DOWN, UP, END = "\ue007", "\ue00c", "\ue015", "\ue013", "\ue010"


def find_chromium() -> tuple[str, str]:
    """Paths of chromium and its driver; skips the test, saying what to install, where there is no way to have them."""
    if not _paths() and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
    return _paths() or pytest.skip(f"no {' and '.join(PACKAGES)} on PATH: apt-get install -y {' '.join(PACKAGES)}")


class Browser:
    """One Chromium with one tab.

    Args:
        downloads: folder that downloads land in.
    """

    def __init__(self, downloads: Path):
        chromium, driver = find_chromium()
        self.driver = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            port = next(
                m[1] for m in (re.search(r"successfully on port (\d+)", line) for line in self.driver.stdout) if m
            )
            self.address = f"http://127.0.0.1:{port}/session"
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            options = {"binary": chromium, "args": [*FLAGS, *sandbox]}
            options["prefs"] = {"download.default_directory": str(downloads)}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            session = self._call("POST", "", capabilities={"alwaysMatch": wanted})["sessionId"]
            self.address += f"/{session}"
        except BaseException:
            self.driver.kill()
            raise

    def quit(self) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self.driver.kill()
            self.driver.wait()
            self.driver.stdout.close()

    def open(self, path: Path) -> None:
        self._call("POST", "/url", url=path.as_uri())

    def run(self, script: str, *args: Any) -> Any:
        """What the script returns; it sees the arguments as `arguments`."""
        return self._call("POST", "/execute/sync", script=script, args=args)

    def click(self, selector: str) -> None:
        """A real click, which fails where something else lies on top."""
        found = self._call("POST", "/element", using="css selector", value=selector)
        self._call("POST", f"/element/{next(iter(found.values()))}/click")

    def press(self, keys: str) -> None:
        """Press one key after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def devtools(self, command: str, **params: Any) -> dict:
        return self._call("POST", "/goog/cdp/execute", cmd=command, params=params)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return Array.from(document.querySelectorAll(arguments[0]), (e) => e.innerText)", selector)

    def wait(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """The condition's first true value; fails after so many seconds."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)
        return value

    def requests(self) -> list[str]:
        """Addresses asked for since the last call; those inside the file itself (data:, blob:) left out."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """What the console has said since the last call: errors, refusals of the policy, anything logged."""
        return [entry["message"] for entry in self._log("browser")]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def _log(self, kind: str) -> list[dict]:
        return self._call("POST", "/se/log", type=kind)

    def _call(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with LOCAL.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {json.load(error)['value']['message']}") from None


def _paths() -> tuple[str, str] | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    return found if all(found) else None


def _install() -> None:
    """Try Debian's packages, for some minutes at most; it takes 15 s where the mirror is near."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        try:
            command = ["apt-get", "-o", "DPkg::Lock::Timeout=60", *command]  # another test process may be at it
            subprocess.run(command, env=environment, timeout=120, check=True, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            return
