"""The load client: the same for every server, in a process of its own.

It obeys commands that come as JSON lines on its input and answers each with a JSON line. Times are
seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any

import grpc

_OPTIONS = (
    # Channels to one address would share one connection otherwise.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)
_RETRY_SECONDS = 0.002
_GIVE_UP_SECONDS = 60.0


class Watchers:
    """Open streams that only count what arrives. ``last`` is when the newest message came."""

    def __init__(self) -> None:
        self.arrived = 0
        self.last = 0.0
        self._wanted = 0
        self._enough = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, channels: list[grpc.aio.Channel], method: str, count: int) -> None:
        """Spread ``count`` streams over the channels."""
        for channel in islice(cycle(channels), count):
            call: Any = channel.unary_stream(method)
            self._tasks.append(asyncio.create_task(self._read(call(b""))))

    async def until(self, count: int) -> float:
        """When ``count`` messages had arrived in all."""
        self._wanted = count
        self._enough.clear()
        if self.arrived < count:
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                await self._enough.wait()
        return self.last

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, stream: Any) -> None:
        async for _message in stream:
            self.arrived += 1
            self.last = time.monotonic()
            if self.arrived == self._wanted:
                self._enough.set()


class Load:
    """What can be asked of the load client, one method a command."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str], list[grpc.aio.Channel]] = {}
        self._watchers: dict[str, Watchers] = {}
        self._stalled: list[Any] = []

    async def once(self, target: str, method: str, request: str) -> dict[str, Any]:
        """One call; its response's size."""
        [channel] = self._connections(target, 1)
        call: Any = channel.unary_unary(method)
        response = await call(base64.b64decode(request))
        return {"bytes": len(response)}

    async def calls(
        self, target: str, method: str, requests: list[str], count: int, connections: int
    ) -> dict[str, Any]:
        """``count`` calls by as many callers as connections, each waiting for its answer."""
        bodies = [base64.b64decode(r) for r in requests]
        durations = array("d")
        todo = iter(range(count))

        async def caller(channel: grpc.aio.Channel) -> None:
            call: Any = channel.unary_unary(method)
            for number in todo:
                began = time.perf_counter()
                await call(bodies[number % len(bodies)])
                durations.append(time.perf_counter() - began)

        began = time.monotonic()
        await asyncio.gather(*(caller(c) for c in self._connections(target, connections)))
        return {"seconds": time.monotonic() - began, **_quantiles(durations)}

    async def paced(
        self, target: str, method: str, requests: list[str], count: int, per_second: float
    ) -> dict[str, Any]:
        """``count`` calls at a steady pace on one connection, whether or not those before have been
        answered. A call's time is from when it is due: one that has to wait has waited."""
        [channel] = self._connections(target, 1)
        call: Any = channel.unary_unary(method)
        durations = array("d")
        loop = asyncio.get_running_loop()
        start = loop.time()

        async def send(number: int, body: bytes) -> None:
            due = start + number / per_second
            await asyncio.sleep(due - loop.time())
            await call(body)
            durations.append(loop.time() - due)

        bodies = islice(cycle(base64.b64decode(r) for r in requests), count)
        await asyncio.gather(*(send(number, body) for number, body in enumerate(bodies)))
        return _quantiles(durations)

    async def flood(self, target: str, method: str, calls: int, seconds: float) -> dict[str, Any]:
        """Keep so many calls open on one connection, at full speed, for ``seconds``."""
        [channel] = self._connections(target, 1, "flood")
        call: Any = channel.unary_unary(method)
        ends = time.monotonic() + seconds
        answered = 0

        async def caller() -> None:
            nonlocal answered
            while time.monotonic() < ends:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call(b"")
                    answered += 1

        await asyncio.gather(*(caller() for _ in range(calls)))
        return {"answered": answered}

    async def watch(
        self, target: str, method: str, count: int, connections: int, initial: int
    ) -> dict[str, Any]:
        """Open ``count`` streams and wait for the ``initial`` messages of each."""
        watchers = self._watchers[target] = Watchers()
        watchers.open(self._connections(target, connections), method, count)
        await watchers.until(count * initial)
        return {}

    async def stall(
        self, target: str, method: str, count: int, connections: int, use: str
    ) -> dict[str, Any]:
        """Open ``count`` streams and read nothing. A unary method does, too: its answer waits."""
        # A window that does not grow, or the library would read ahead.
        options = (*_OPTIONS, ("grpc.http2.bdp_probe", 0))
        channels = self._channels.setdefault((target, use), [])
        channels += [grpc.aio.insecure_channel(target, options=options) for _ in range(connections)]
        for channel in islice(cycle(channels), count):
            call: Any = channel.unary_stream(method)(b"")
            self._stalled.append(call)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.initial_metadata()
        return {}

    async def propagate(
        self, target: str, via: str, method: str, requests: list[str], count: int, each: int
    ) -> dict[str, Any]:
        """``count`` writes through ``via``, each waiting until all ``each`` streams of ``target``
        have its event: the times from the write to the last of them."""
        watchers = self._watchers[target]
        # A connection of its own, as a provider has one.
        [channel] = self._connections(via, 1, "writes")
        call: Any = channel.unary_unary(method)
        durations = array("d")
        for request in islice(cycle(base64.b64decode(r) for r in requests), count):
            arrival = asyncio.create_task(watchers.until(watchers.arrived + each))
            await asyncio.sleep(0)
            began = time.monotonic()
            await call(request)
            durations.append(await arrival - began)
        return {"durations": list(durations)}

    async def arrival(self, target: str, count: int) -> dict[str, Any]:
        """When the streams of ``target`` had ``count`` messages in all."""
        return {"at": await self._watchers[target].until(count)}

    async def unwatch(self, target: str) -> dict[str, Any]:
        """Close the streams of ``target`` and its connections."""
        await self._watchers.pop(target).close()
        for channel in self._channels.pop((target, "reads"), []):
            await channel.close()
        return {}

    async def first_answer(self, target: str, method: str) -> dict[str, Any]:
        """When a server that is just starting answered for the first time."""
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            while True:
                async with _fresh(target) as channel:
                    call: Any = channel.unary_unary(method)
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await call(b"")
                        return {"at": time.monotonic()}
                await asyncio.sleep(_RETRY_SECONDS)

    def _connections(self, target: str, count: int, use: str = "reads") -> list[grpc.aio.Channel]:
        channels = self._channels.setdefault((target, use), [])
        while len(channels) < count:
            channels.append(grpc.aio.insecure_channel(target, options=_OPTIONS))
        return channels[:count]


@asynccontextmanager
async def _fresh(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        yield channel


def _quantiles(durations: array[float]) -> dict[str, float]:
    ordered = sorted(durations)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}


async def _obey() -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load()
    gc.freeze()
    while line := await reader.readline():
        command = json.loads(line)
        act: Callable[..., Any] = getattr(load, command.pop("command"))
        sys.stdout.write(json.dumps(await act(**command)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_obey())
