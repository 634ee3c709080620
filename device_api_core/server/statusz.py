"""``/statusz``: the node at a glance, live, for people with a browser.

The page is one file without anything from elsewhere; what it shows comes as server-sent events.
Everything that a provider says reaches the page as JSON and is put there as text, never as HTML,
and the content security policy lets nothing run but the page's own script.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

from device_api_core.server.http import Page
from device_api_core.server.observer import Observer

MAX_VIEWERS = 16
"""Open pages; each costs a connection and, while something changes, a message a second."""
_TICK_SECONDS = 1.0
_CLOCK_TICKS = 15


class Statusz:
    """Serves the page and its events. All viewers share what is made of the state, once a second
    and only while somebody looks."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._viewers = 0
        self._looked = float("-inf")
        self._gpus_version = -1
        self._texts: dict[str, str] = {}
        self._frames: dict[str, tuple[int, bytes]] = {}
        self._number = 0

    @property
    def viewers(self) -> int:
        """Pages that are open now."""
        return self._viewers

    def page(self) -> Page:
        """The page itself."""
        from importlib.resources import files  # few ever look

        html = files(__package__).joinpath("statusz.html").read_bytes()
        return Page(HTTPStatus.OK, html, "text/html; charset=utf-8", _headers(html))

    def live(self) -> Page:
        """Its events: each part of the state when the viewer comes, and again when it changes."""
        if self._viewers >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} status pages are open, which is the limit\n"
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())
        return Page(HTTPStatus.OK, b"", "text/event-stream", stream=self._events())

    async def _events(self) -> AsyncGenerator[bytes, None]:
        self._viewers += 1
        try:
            seen = -1
            for tick in itertools.count():
                self._look()
                due = [frame for number, frame in self._frames.values() if number > seen]
                seen = self._number
                if tick % _CLOCK_TICKS == 0:
                    # Ages are counted by the server's clock. Besides, only a write notices that
                    # somebody is gone without a word.
                    due.insert(0, _frame("clock", str(time.time_ns() // 1_000_000)))
                if due:
                    yield b"".join(due)
                await asyncio.sleep(_TICK_SECONDS)
        finally:
            self._viewers -= 1
            if not self._viewers:
                # What is shown may be a megabyte; nobody looks at it now.
                self._texts.clear()
                self._frames.clear()
                self._gpus_version = -1
                self._looked = float("-inf")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _TICK_SECONDS / 2:
            return
        self._looked = now
        if self._observer.version != self._gpus_version:
            self._gpus_version = self._observer.version
            self._tell("gpus", self._observer.gpus)
        self._tell("providers", self._observer.providers)
        self._tell("recent", self._observer.recent)
        self._tell("server", self._observer.server)

    def _tell(self, part: str, look: Callable[[], object]) -> None:
        text = json.dumps(look(), separators=(",", ":"))
        if text == self._texts.get(part):
            return
        self._texts[part] = text
        self._number += 1
        self._frames[part] = self._number, _frame(part, text)


def _frame(event: str, text: str) -> bytes:
    # JSON is ASCII in one line: nothing in it can end the event or look like another field of it.
    return f"event: {event}\ndata: {text}\n\n".encode("ascii")


def _headers(html: bytes) -> tuple[tuple[str, str], ...]:
    policy = (
        "default-src 'none'",
        f"script-src '{_hash_of(html, b'script')}'",
        f"style-src '{_hash_of(html, b'style')}'",
        "connect-src 'self'",
        # The empty icon, so that the browser asks for none.
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return (
        ("content-security-policy", "; ".join(policy)),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    )


def _hash_of(html: bytes, element: bytes) -> str:
    # Only who looks at the page pays for it.
    import base64
    import hashlib

    [content] = re.findall(b"<%s>(.*?)</%s>" % (element, element), html, re.S)
    return f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"
