"""How grpc.aio calls a method of ours: bytes in, bytes out, errors as statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from device_api_core.errors import DeviceApiError
from device_api_core.metrics import Metrics
from device_api_core.server.guard import Guard, abort
from device_api_core.server.limits import LARGE_BYTES
from device_api_core.server.transport import (
    EventStream,
    Exchange,
    Method,
    ServerStream,
    Unary,
    count_stream,
    internal,
    recorded,
)

_ABORT_SECONDS = 5.0

Context = grpc.aio.ServicerContext[bytes, bytes]


def handler(
    method: Method, metrics: Metrics, guard: Guard, wrap: Callable[[Any], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """What grpc.aio is to call for the method; ``wrap`` goes around it."""
    # Without serializers grpc passes the bytes through as they are.
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(wrap(_unary(method, metrics, guard)))
    if isinstance(method, Exchange):
        return grpc.stream_stream_rpc_method_handler(wrap(_exchange(method, metrics, guard)))
    return grpc.unary_stream_rpc_method_handler(wrap(_stream(method, metrics, guard)))


def _unary(method: Unary, metrics: Metrics, guard: Guard) -> Any:
    calls = metrics.calls(method.service, method.name, method.kind)
    limiter, call, writes = guard.limiter, method.call, method.writes

    async def answer(request: bytes, context: Context) -> bytes:
        response = await limiter.call(guard.peer(context), call, request, writes=writes)
        if len(response) > LARGE_BYTES:
            taken = await limiter.room(len(response))
            context.add_done_callback(lambda _: taken())  # type: ignore[arg-type]
        return response

    async def handle(request: bytes, context: Context) -> bytes:
        try:
            return await recorded(method, answer(request, context), calls)
        except DeviceApiError as error:
            await abort(context, error)
            raise

    return handle


def _exchange(method: Exchange, metrics: Metrics, guard: Guard) -> Any:
    calls = metrics.calls(method.service, method.name, method.kind)

    async def handle(requests: AsyncIterator[bytes], context: Context) -> None:
        def run(each: AsyncIterator[bytes]) -> Awaitable[None]:
            return method.run(each, context.write)

        try:
            exchange = guard.limiter.exchange(
                guard.peer(context), run, requests, writes=method.writes
            )
            await recorded(method, exchange, calls)
        except DeviceApiError as error:
            await abort(context, error)

    return handle


def _stream(method: ServerStream, metrics: Metrics, guard: Guard) -> Any:
    calls = metrics.calls(method.service, method.name, method.kind)

    async def handle(request: bytes, context: Context) -> None:
        calls.started += 1
        error: DeviceApiError | None = None
        try:
            peer = guard.peer(context)
            with guard.limiter.stream(peer):
                stream = await guard.limiter.call(peer, method.open, request, writes=False)
                error = await _pump(stream, context)
        except DeviceApiError as refused:
            error = refused
        except Exception as defect:  # noqa: BLE001
            # The last handler before the wire, as for unary calls.
            error = internal(method)
            error.__cause__ = defect
        finally:
            count_stream(error, calls)
        # Everything is freed by now: the client may take its time to read the status.
        with suppress(TimeoutError):
            await asyncio.wait_for(abort(context, error), _ABORT_SECONDS)

    return handle


async def _pump(stream: EventStream, context: Context) -> DeviceApiError:
    """Write events until the stream ends; returns the error that ended it."""
    task = asyncio.current_task()
    assert task is not None
    # A client that does not read blocks the write, not the end of its stream.

    def interrupt() -> None:
        task.cancel()

    stream.on_end = interrupt
    try:
        while True:
            await context.write(await stream.next())
    except DeviceApiError as ended:
        return ended
    except asyncio.CancelledError:
        if stream.error is None:
            raise
        task.uncancel()
        return stream.error
    finally:
        stream.on_end = None
        stream.close()
