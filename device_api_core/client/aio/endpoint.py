"""One endpoint of a server, for asyncio: makes calls and opens streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.calls import Method, Streaming, Unary
from device_api_core.client.errors import DeviceApiError, Failure, Unreachable, reason_in
from device_api_core.client.options import Options
from device_api_core.client.retry import Attempts
from device_api_core.client.watch import WatchEvent

V = TypeVar("V")
E = TypeVar("E", bound=WatchEvent[Any])


class AsyncCaller(Protocol):
    """Makes calls; see :class:`device_api_core.client.endpoint.Caller`."""

    @property
    def target(self) -> str:
        """Where it leads, for messages."""

    async def call(self, unary: Unary[V], timeout_seconds: float | None = None) -> V:
        """Make one call, with the endpoint's deadline unless another is given."""

    def stream(self, streaming: Streaming[E]) -> AsyncWatch[E]:
        """Open a stream. Errors appear when it is iterated."""

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""


class AsyncEndpoint:
    """A lazily connected channel to ``target``, of the event loop in which it is made."""

    def __init__(
        self,
        target: str,
        options: Options | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        self.target = target
        self.options = options or Options.choose()
        settings = self.options.channel_options()
        credentials = self.options.credentials(target)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(
                target, options=settings, interceptors=interceptors
            )
        else:
            self._channel = grpc.aio.secure_channel(
                target, credentials, options=settings, interceptors=interceptors
            )
        self._callables: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<AsyncEndpoint {self.target}>"

    async def close(self) -> None:
        """See :class:`AsyncCaller`. May be repeated."""
        await self._channel.close()

    async def call(self, unary: Unary[V], timeout_seconds: float | None = None) -> V:
        """See :class:`AsyncCaller`."""
        timeout = self.options.timeout_seconds if timeout_seconds is None else timeout_seconds
        attempts = Attempts(
            self.options.retry,
            idempotent=unary.idempotent,
            timeout_seconds=timeout,
            clock=time.monotonic,
        )
        method = self._callable(self._channel.unary_unary, unary.method)
        while True:
            try:
                response = await method(
                    unary.request,
                    timeout=attempts.remaining_seconds,
                    wait_for_ready=self.options.wait_for_ready,
                )
                return unary.convert(response)
            except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
                failure = self._error(error, timeout)
                pause = attempts.pause_after(failure)
                if pause is None:
                    raise failure from error
            await asyncio.sleep(pause)

    def stream(self, streaming: Streaming[E]) -> AsyncWatch[E]:
        """See :class:`AsyncCaller`."""
        method = self._callable(self._channel.unary_stream, streaming.method)
        try:
            stream = method(streaming.request, wait_for_ready=self.options.wait_for_ready)
        except grpc.aio.UsageError as error:
            raise self._error(error, 0.0) from error
        return AsyncWatch(stream, streaming.convert, lambda error: self._error(error, 0.0))

    def _callable(self, make: Callable[..., Any], method: Method) -> Any:
        found = self._callables.get(method.path)
        if found is None:
            found = self._callables[method.path] = make(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        return found

    def _error(self, error: Exception, timeout_seconds: float) -> DeviceApiError:
        if not isinstance(error, grpc.aio.AioRpcError):
            return Unreachable(str(error), target=self.target)
        failure = Failure(
            error.code().name,
            error.details() or "",
            reason_in(error.trailing_metadata()),
            self._channel.get_state() is grpc.ChannelConnectivity.READY,
        )
        return failure.error(self.target, timeout_seconds)
