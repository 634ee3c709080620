"""A client that wants everything: ``python greedy.py TARGET METHOD CALLS CONNECTIONS`` keeps so
many calls open at full speed until its input ends."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import grpc


async def main(target: str, method: str, calls: int, connections: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(connections)]
    started = asyncio.Event()

    async def caller(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(method)
        while True:
            with suppress(grpc.aio.AioRpcError):
                await call(b"")
            started.set()

    callers = [asyncio.create_task(caller(channels[i % connections])) for i in range(calls)]
    await started.wait()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    assert callers
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
