"""A headless Chromium, driven by the DevTools protocol over a pair of pipes (--remote-debugging-pipe).

Source of the protocol: https://chromedevtools.github.io/devtools-protocol/ (domains Target, Page, Runtime).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
ANSWER = 60.0
"""Seconds for one answer of the browser; a hang ends there."""


class Browser:
    """Commands and answers, each a JSON object that ends with a null byte."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest = write, read, b""
        self._ids = itertools.count(1)

    def ask(self, method: str, session: str = "", **parameters: object) -> dict[str, Any]:
        """The result of a command; AssertionError when the browser refuses it."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], ANSWER)
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser has ended, or does not answer"
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """One open page."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        target = browser.ask("Target.createTarget", url=url)["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page; promises are awaited."""
        told = self._browser.ask(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str, limit: float = 600.0) -> None:
        """Wait until the expression is true; `limit` only keeps a broken test from hanging."""
        end = time.monotonic() + limit
        while not self.value(f"!!({expression})"):
            text = self.value("document.body?.innerText")
            assert time.monotonic() < end, f"{expression} did not become true:\n{text}"
            time.sleep(0.1)


@contextlib.contextmanager
def running(program: str, *flags: str) -> Iterator[Browser]:
    """A browser with a fresh profile; it and its profile are gone afterwards."""
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="platform-browser-", ignore_cleanup_errors=True) as profile:
        # The browser reads from 3 and writes to 4; only a shell can say so; dash knows no numbers above 9.
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        child = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "HOME": profile},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        browser = Browser(ours_out, ours_in)
        try:
            yield browser
            browser.ask("Browser.close")
            child.wait(timeout=30)
        finally:
            child.kill()
            child.wait()
            os.close(ours_in)
            os.close(ours_out)
