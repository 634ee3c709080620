"""A bad road to a unix socket: it delays what is said, and ends connections in mid-word."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

_BYTES = 64 * 1024


class Road:
    """From one socket to another. To be used from any thread once it is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, target: Path) -> None:
        self.path = path
        self._loop = loop
        self._target = target
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()

    def slow(self, seconds: float) -> None:
        """Delay every piece from now on by that much."""
        self._delay = seconds

    def cut(self) -> None:
        """End all connections, in the middle of what is being said."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def open(self) -> None:
        """Begin to listen."""
        await asyncio.start_unix_server(self._meet, str(self.path))

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._carry(reader, far_writer)),
                    asyncio.create_task(self._carry(far_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            # What one end has not yet said when the other is gone is never heard.
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_BYTES):
                if self._delay:
                    await asyncio.sleep(self._delay)
                    writer.write(data[: len(data) // 2])
                    await asyncio.sleep(self._delay)
                    data = data[len(data) // 2 :]
                writer.write(data)
                await writer.drain()


class Roads:
    """Roads in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Roads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def build(self, path: Path, target: Path) -> Road:
        """A road that is open when this returns."""
        road = Road(self._loop, path, target)
        asyncio.run_coroutine_threadsafe(road.open(), self._loop).result(10)
        return road

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
