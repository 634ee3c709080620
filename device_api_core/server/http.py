"""Pages and streams of events over HTTP/1.1, on the event loop that owns the state.

Answering at all shows that the loop turns, which is what liveness means here; a provider that hangs
in a vendor call does not touch it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from device_api_core.errors import SettingsError
from device_api_core.server.sockets import BURST

logger = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"
IDLE_SECONDS = 30.0
"""How long a peer may say nothing, or read nothing."""
_MAX_CONNECTIONS = 64
_BACKLOG = 100


class Page(NamedTuple):
    """An answer: status, body, content type, further headers. With a ``stream`` the body goes on
    with what it gives, until it ends or the peer goes."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncGenerator[bytes, None] | None = None


class HttpEndpoint:
    """Serves ``GET`` and ``HEAD`` of fixed pages at one address. ``flags`` are what chooses it."""

    def __init__(
        self,
        pages: Mapping[str, Callable[[], Page]],
        flags: str = "--http-address, --health-port or --metrics-port",
    ) -> None:
        self._pages = pages
        self._flags = flags
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], None] = {}
        self._stopping = False

    async def listen(self, host: str, port: int) -> int:
        """Bind and serve; returns the port. Raises ``SettingsError`` if the address cannot be
        had."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, backlog=BURST)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror}; choose another "
                f"{self._flags}"
            ) from error
        for each in self._server.sockets:
            with socket.socket(fileno=os.dup(each.fileno())) as listener:
                listener.listen(_BACKLOG)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if self._stopping:
                return
            if len(self._connections) >= _MAX_CONNECTIONS:
                # The oldest goes: peers that only hold connections must not keep a probe out.
                next(iter(self._connections)).cancel()
            self._connections[task] = None
            # Who is never asked does not carry it.
            from device_api_core.server.http_connection import talk

            await talk(reader, writer, self._page_for)
            writer.close()
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            # The peer is slow or gone, or the daemon is stopping: nothing is owed.
            return
        finally:
            # Closing would wait for a peer that does not read, for as long as it likes.
            writer.transport.abort()
            self._connections.pop(task, None)

    def _page_for(self, method: bytes, target: bytes) -> Page:
        path = target.split(b"?", 1)[0].decode("ascii", "replace")
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(sorted(self._pages))
            return Page(HTTPStatus.NOT_FOUND, f"not found; here are {known}\n".encode())
        if method not in {b"GET", b"HEAD"}:
            return Page(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        try:
            return page()
        except Exception:
            # The last handler before the wire: the scraper gets a status, the log the traceback.
            logger.exception("page failed", extra={"path": path})
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; see the log\n")
