"""HTTP pages beside a program that has no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from device_api_core.errors import SettingsError
from device_api_core.server.http import HttpEndpoint, Page

_MAX_PORT = 65_535


@contextmanager
def serving(pages: Mapping[str, Callable[[], Page]], address: str, flag: str) -> Iterator[str]:
    """Serve the pages in a thread of their own while the block runs; gives the address, with the
    port that was bound. Pages are made in that thread. ``flag`` is what chooses the address.

    Raises:
        SettingsError: the address is none, or cannot be had.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _MAX_PORT:
        raise SettingsError(f"{flag} must be HOST:PORT or :PORT, not {address!r}")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="http", daemon=True)
    endpoint = HttpEndpoint(pages, flag)
    thread.start()

    def on_loop(coroutine: object) -> int | None:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()  # type: ignore[arg-type]

    try:
        bound = on_loop(endpoint.listen(host.strip("[]"), int(port)))
        try:
            yield f"{host}:{bound}"
        finally:
            on_loop(endpoint.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
