"""Headless Chromium, driven through its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 30.0


class Browser:
    """A browser with one page."""

    def __init__(self, program: str, directory: Path) -> None:
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # The protocol's own numbers: it reads from 3 and writes to 4.
        command = (
            f"exec 3<&{read_there} 4>&{write_there}; "
            'exec "$0" --remote-debugging-pipe --headless=new '
            "--no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars "
            '--no-first-run "--user-data-dir=$1" about:blank'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command, program, str(directory)],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._answers: BinaryIO = os.fdopen(read_here, "rb")
        self._orders: BinaryIO = os.fdopen(write_here, "wb")
        self._numbers = itertools.count(1)
        self._session = ""
        self.messages: list[dict[str, Any]] = []
        """What the page logged, and what broke its rules."""
        target = self._order("Target.createTarget", url="about:blank")["targetId"]
        attached = self._order("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._order(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self._answers.close()
        self._orders.close()

    def open(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Load a page in a window of that size; narrow ones are phones."""
        # What the page before still has to say is not about this one.
        self._order("Page.navigate", url="about:blank")
        self.evaluate("0")
        self.messages.clear()
        phone = width < 600
        self._order(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._order("Emulation.setEmulatedMedia", features=[scheme])
        self._order("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._order("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression as soon as it is true."""
        ends = time.monotonic() + SECONDS
        while not (value := self.evaluate(script)):
            assert time.monotonic() < ends, self.evaluate("document.body.innerText")
            time.sleep(0.05)
        return value

    def screenshot(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self._order("Page.captureScreenshot", format="png")["data"])

    def _order(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        self._orders.write(json.dumps(order).encode() + b"\0")
        self._orders.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            if answer.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.messages.append(answer["params"])

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return dict(json.loads(text))
