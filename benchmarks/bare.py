"""The yardstick: the least that a grpc.aio server can do. A process of its own.

It answers each unary method with a constant and pushes a constant to every open stream when
``Push`` is called. The sizes of the constants are given, so that they are those of the real server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

SERVICE = "bare.Bare"


class Pushes:
    """Tells every open stream that there is something to send."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def push(self) -> None:
        self.count += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def after(self, seen: int) -> None:
        """Wait until there were more than ``seen``."""
        while self.count <= seen:
            await self._changed.wait()


def _unary(body: bytes) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(_request: bytes, _context: Any) -> bytes:
        return body

    return handle


async def serve(socket: str, sizes: dict[str, int]) -> None:
    """Serve until killed. ``sizes`` are the responses' by method; ``Watch`` streams."""
    pushes = Pushes()
    event = bytes(sizes.pop("Watch"))
    acknowledgement = bytes(sizes.pop("Push"))

    async def watch(_request: bytes, context: Any) -> None:
        seen = pushes.count
        await context.write(event)
        while True:
            await pushes.after(seen)
            seen += 1
            await context.write(event)

    async def push(_request: bytes, _context: Any) -> bytes:
        pushes.push()
        return acknowledgement

    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_unary(bytes(size)))
        for name, size in sizes.items()
    }
    handlers["Push"] = grpc.unary_unary_rpc_method_handler(push)
    handlers["Watch"] = grpc.unary_stream_rpc_method_handler(watch)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], json.loads(sys.argv[2])))
