"""A headless Chromium, driven over a pipe by the DevTools protocol: real keys, mouse and touch."""

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
_TIMEOUT_S = 60.0


class Browser:
    """One page of a headless browser.

    Attributes:
        trouble: What the page wrote to its console as a warning or an error, and exceptions.
        requests: Every address that the page asked for.
    """

    def __init__(self, profile: Path) -> None:
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self._ids = itertools.count(1)
        self._rest = b""
        here, theirs = os.pipe(), os.pipe()
        self._out, self._in = here[1], theirs[0]
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                 "--no-first-run", f"--user-data-dir={profile}", "about:blank")  # fmt: skip
        self._pid = os.posix_spawn(
            str(CHROMIUM), [str(CHROMIUM), *flags], dict(os.environ), setpgroup=0,
            file_actions=[(os.POSIX_SPAWN_DUP2, here[0], 63), (os.POSIX_SPAWN_DUP2, theirs[1], 64),
                          (os.POSIX_SPAWN_DUP2, 63, 3), (os.POSIX_SPAWN_DUP2, 64, 4),
                          (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
        )  # fmt: skip
        os.close(here[0])
        os.close(theirs[1])
        target = self._call("Target.createTarget", None, url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", None, targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command of the protocol and return its answer."""
        return self._call(method, self._session, **params)

    def open(self, path: Path, width: int, height: int, *, touch: bool = False) -> None:
        """Load a file in a window of some size, and wait until its first viewer shows a slice."""
        self.trouble, self.requests = [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=touch)  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && "
                  "document.querySelector('.viewer')?.viewer?.images")  # fmt: skip

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _TIMEOUT_S
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def key(self, key: str, **params: Any) -> None:
        """Press a key and let it go."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **params)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **params)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **params: Any) -> None:
        """Send a mouse event: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place, move to another, let go."""
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        self.mouse("mouseMoved", *((a + b) / 2 for a, b in zip(start, end, strict=True)),
                   button="left", buttons=1)  # fmt: skip
        self.mouse("mouseMoved", *end, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)
        self.settle()

    def fingers(self, *steps: list[tuple[float, float]]) -> None:
        """Put fingers on the screen, move them step by step, and lift them."""
        for k, places in enumerate(steps):
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            kind = "touchMove" if k else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError, AssertionError):
            self._call("Browser.close", None)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._out)
        os.close(self._in)

    def _call(self, method: str, session: str | None, **params: Any) -> Any:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)
        raise AssertionError(f"the browser ended during {method}")

    def _messages(self) -> Iterator[Any]:
        while True:
            while b"\0" in self._rest:
                one, self._rest = self._rest.split(b"\0", 1)
                yield json.loads(one)
            ready, _, _ = select.select([self._in], [], [], _TIMEOUT_S)
            assert ready, "the browser does not answer"
            more = os.read(self._in, 1 << 20)
            if not more:
                return
            self._rest += more

    def _note(self, event: Any) -> None:
        name, params = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.trouble.append(str(params["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.trouble.append(str(params["args"]))
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.trouble.append(str(params["entry"]))
        elif name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser, and end it."""
    found = Browser(profile)
    try:
        yield found
    finally:
        found.close()
