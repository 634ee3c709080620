"""A server of test methods on the h2 transport, in the test's own event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("CI"):
    pytest.importorskip(
        "device_api_transport_h2._engine",
        reason="the engine was not built: Python's C headers or libnghttp2 are missing",
        exc_type=ImportError,
    )
sys.path.insert(0, str(Path(__file__).parent / "support"))

from device_api_transport_h2.transport import H2Listening, H2Transport
from raw import Raw

from device_api_core.errors import DeviceApiError, NotFound, Unavailable
from device_api_core.metrics import Metrics
from device_api_core.server.transport import Exchange, Face, ServerStream, Unary
from device_api_core.watch import Subscription, WatchHub


class Service:
    """``Echo`` answers what it is told, ``Known`` the same and need not be asked again, ``Big`` so
    many bytes, ``Wait`` when it is let, ``Fail`` never well; ``Watch`` sends what is published,
    ``Talk`` each message twice, and ``Hold`` listens when it is let."""

    def __init__(self) -> None:
        self.hub = WatchHub(0, encode_bookmark=lambda _: b"", queue_events=64)
        self.known: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []
        self.let = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.heard: list[bytes] = []
        self.ended: list[str] = []

    @property
    def methods(self) -> tuple[Any, ...]:
        return (
            Unary("t.S", "Echo", self.echo),
            Unary("t.S", "Known", self.answer, known=self.known),
            Unary("t.S", "Big", self.big),
            Unary("t.S", "Wait", self.wait),
            Unary("t.S", "Fail", self.fail),
            ServerStream("t.S", "Watch", self.watch),
            Exchange("t.S", "Talk", self.talk),
            Exchange("t.S", "Hold", self.hold),
        )

    async def echo(self, data: bytes) -> bytes:
        return data

    async def answer(self, data: bytes) -> bytes:
        self.asked.append(data)
        self.known[data] = data
        return data

    async def big(self, data: bytes) -> bytes:
        return bytes(int(data))

    async def wait(self, data: bytes) -> bytes:
        self.waiting += 1
        self.heard.append(data)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return data

    async def fail(self, data: bytes) -> bytes:
        if data == b"defect":
            raise RuntimeError("a secret")
        raise NotFound(data.decode())

    async def watch(self, data: bytes) -> Subscription:
        if data == b"refuse":
            raise Unavailable("not now", reason="rate")
        return self.hub.subscribe([data] if data else [])

    async def hold(
        self, requests: AsyncIterator[bytes], respond: Callable[[bytes], Awaitable[None]]
    ) -> None:
        await self.let.wait()
        self.heard.extend([data async for data in requests])

    async def talk(
        self, requests: AsyncIterator[bytes], respond: Callable[[bytes], Awaitable[None]]
    ) -> None:
        try:
            async for data in requests:
                self.heard.append(data)
                if data == b"fail":
                    raise NotFound("as you wish")
                await respond(data)
                await respond(data)
            self.ended.append("half-close")
        except asyncio.CancelledError:
            self.ended.append("broken")
            raise


class Served:
    """The running server."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.service = Service()
        self.socket = str(path / "h2.sock")
        self.listening: H2Listening
        self.metrics: Metrics
        self._stack = stack

    async def listen(self, **face: Any) -> None:
        """Serve at another socket from now on, as another face."""
        self.socket = f"{self.socket}s"
        self.metrics = Metrics(version="1", node="n")
        faced = Face(self.service.methods, self.socket, 0o600, **face)
        self.listening = await H2Transport().listen(faced, self.metrics)
        self._stack.push_async_callback(self.listening.stop, 0.5)

    async def raw(self, **how: Any) -> Raw:
        """A client of it."""
        raw = await Raw.open(self.socket, **how)
        self._stack.push_async_callback(raw.close)
        return raw

    async def raw_tcp(self) -> Raw:
        """A client whose process cannot be seen."""
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.listening.tcp_port))
        raw.greet()
        self._stack.push_async_callback(raw.close)
        return raw


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="h2-") as path:
        async with AsyncExitStack() as stack:
            running = Served(Path(path), stack)
            await running.listen()
            yield running


@pytest.fixture
async def raw(served: Served) -> Raw:
    """A client that has greeted."""
    return await served.raw()


@pytest.fixture(autouse=True)
def errors_are_seen(caplog: pytest.LogCaptureFixture) -> Any:
    """No test may leave an exception in the event loop's log."""
    yield
    assert not [r for r in caplog.records if r.name == "asyncio" and r.levelno >= logging.ERROR]


__all__ = ["DeviceApiError", "Served"]
