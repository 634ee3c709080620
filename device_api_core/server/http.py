"""Pages and streams of events over HTTP/1.1, on the event loop that owns the state.

Answering at all shows that the loop turns, which is what liveness means here; a provider that hangs
in a vendor call does not touch it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

from device_api_core.errors import SettingsError
from device_api_core.server.sockets import BURST

logger = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"
_IDLE_SECONDS = 30.0
_MAX_CONNECTIONS = 64
_BACKLOG = 100
_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Page:
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
            await self._talk(reader, writer)
            writer.close()
            async with asyncio.timeout(_IDLE_SECONDS):
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            # The peer is slow or gone, or the daemon is stopping: nothing is owed.
            return
        finally:
            # Closing would wait for a peer that does not read, for as long as it likes.
            writer.transport.abort()
            self._connections.pop(task, None)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while connection.our_state is h11.IDLE:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    request = await _next_request(connection, reader)
                    if request is None:
                        return
                    page = self._page_for(request)
                    head = request.method == b"HEAD"
                    await _send(connection, writer, page, head=head)
                if page.stream is not None and not head:
                    await _follow(connection, reader, writer, page.stream)
                    return
            except h11.RemoteProtocolError as error:
                await _refuse(connection, writer, error)
                return
            _next_cycle(connection)

    def _page_for(self, request: h11.Request) -> Page:
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(sorted(self._pages))
            return Page(HTTPStatus.NOT_FOUND, f"not found; here are {known}\n".encode())
        if request.method not in {b"GET", b"HEAD"}:
            return Page(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        try:
            return page()
        except Exception:
            # The last handler before the wire: the scraper gets a status, the log the traceback.
            logger.exception("page failed", extra={"path": path})
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; see the log\n")


def _next_cycle(connection: h11.Connection) -> None:
    """Keep the connection for the next request if both sides are done with this one."""
    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
        connection.start_next_cycle()


async def _next_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    """The next request, its body read and dropped; ``None`` when the peer closed."""
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, head: bool
) -> None:
    headers = [
        ("content-type", page.content_type),
        ("cache-control", "no-store"),
        *page.headers,
    ]
    if page.stream is None:
        headers.append(("content-length", str(len(page.body))))
    response = h11.Response(status_code=page.status, headers=headers, reason=page.status.phrase)
    parts = [connection.send(response)]
    if not head:
        parts.append(connection.send(h11.Data(data=page.body)))
    if head or page.stream is None:
        parts.append(connection.send(h11.EndOfMessage()))
    writer.write(b"".join(part for part in parts if part))
    await writer.drain()


async def _follow(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    stream: AsyncGenerator[bytes, None],
) -> None:
    """Send what the stream gives. A peer that closes, says anything more or does not read ends
    it."""
    task = asyncio.current_task()
    assert task is not None

    def end(_: object) -> None:
        task.cancel()

    gone = asyncio.create_task(reader.read(1))
    gone.add_done_callback(end)
    try:
        async for part in stream:
            writer.write(connection.send(h11.Data(data=part)) or b"")
            async with asyncio.timeout(_IDLE_SECONDS):
                await writer.drain()
    finally:
        gone.remove_done_callback(end)
        gone.cancel()
        await stream.aclose()


async def _refuse(
    connection: h11.Connection, writer: asyncio.StreamWriter, error: h11.RemoteProtocolError
) -> None:
    if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
        status = HTTPStatus(error.error_status_hint)
        with contextlib.suppress(h11.LocalProtocolError):
            await _send(connection, writer, Page(status, b"bad request\n"), head=False)
