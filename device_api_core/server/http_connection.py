"""One connection of a page's reader: HTTP/1.1, by h11."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

import h11

from device_api_core.server.http import IDLE_SECONDS, Page

_READ_BYTES = 16 * 1024


async def talk(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    page_for: Callable[[bytes, bytes], Page],
) -> None:
    """Answer requests until either side ends. ``page_for`` takes a method and a target."""
    connection = h11.Connection(h11.SERVER)
    while connection.our_state is h11.IDLE:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                request = await _next_request(connection, reader)
                if request is None:
                    return
                page = page_for(request.method, request.target)
                head = request.method == b"HEAD"
                await _send(connection, writer, page, head=head)
            if page.stream is not None and not head:
                await _follow(connection, reader, writer, page.stream)
                return
        except h11.RemoteProtocolError as error:
            await _refuse(connection, writer, error)
            return
        _next_cycle(connection)


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
            async with asyncio.timeout(IDLE_SECONDS):
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
