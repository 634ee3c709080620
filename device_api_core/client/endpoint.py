"""One endpoint of a server, for threads: makes calls and opens streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import grpc

from device_api_core.client.calls import Method, Streaming, Unary
from device_api_core.client.errors import DeviceApiError, Failure, Unreachable, reason_in
from device_api_core.client.options import DEFAULT_TIMEOUT_SECONDS, Options
from device_api_core.client.retry import Attempts
from device_api_core.client.stopping import Stop
from device_api_core.client.watch import Watch, WatchEvent

__all__ = ["DEFAULT_TIMEOUT_SECONDS", "Caller", "Endpoint"]

_STATE_SECONDS = 1.0

V = TypeVar("V")
E = TypeVar("E", bound=WatchEvent[Any])


class Caller(Protocol):
    """Makes calls: an :class:`Endpoint` speaks gRPC, a fake asks an object in this process."""

    @property
    def target(self) -> str:
        """Where it leads, for messages."""

    def call(
        self, unary: Unary[V], timeout_seconds: float | None = None, stop: Stop | None = None
    ) -> V:
        """Make one call, with the endpoint's deadline unless another is given. Setting ``stop``
        makes it fail. Raises the errors of :mod:`device_api_core.client.errors`."""

    def stream(self, streaming: Streaming[E]) -> Watch[E]:
        """Open a stream. Errors appear when it is iterated."""

    def close(self) -> None:
        """Close the connection; calls in flight fail."""


class Endpoint:
    """A lazily connected channel to ``target``. Thread-safe, like the channel. ``options`` come
    from the environment by default."""

    def __init__(
        self,
        target: str,
        options: Options | None = None,
        interceptors: Sequence[Any] = (),
    ) -> None:
        self.target = target
        self.options = options or Options.choose()
        self._closed = Stop()
        channel_options = self.options.channel_options()
        credentials = self.options.credentials(target)
        self.channel: grpc.Channel
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=channel_options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options=channel_options)
        self._intercepted: grpc.Channel = grpc.intercept_channel(self.channel, *interceptors)
        self._callables: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Endpoint {self.target}>"

    @property
    def timeout_seconds(self) -> float:
        """The deadline of calls for which no other is given."""
        return self.options.timeout_seconds

    def close(self) -> None:
        """See :class:`Caller`. May be repeated."""
        self._closed.set()
        self.channel.close()

    def call(
        self, unary: Unary[V], timeout_seconds: float | None = None, stop: Stop | None = None
    ) -> V:
        """See :class:`Caller`."""
        timeout = self.options.timeout_seconds if timeout_seconds is None else timeout_seconds
        attempts = Attempts(
            self.options.retry,
            idempotent=unary.idempotent,
            timeout_seconds=timeout,
            clock=time.monotonic,
        )
        while True:
            try:
                return unary.convert(self._attempt(unary, attempts.remaining_seconds, stop))
            except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
                failure = self._error(error, timeout)
                pause = attempts.pause_after(failure)
                if pause is None or (stop or self._closed).wait(pause):
                    raise failure from error

    def stream(self, streaming: Streaming[E]) -> Watch[E]:
        """See :class:`Caller`."""
        method = self._callable(self._intercepted.unary_stream, streaming.method)
        try:
            stream = method(streaming.request, wait_for_ready=self.options.wait_for_ready)
        except ValueError as error:
            raise self._error(error, 0.0) from error
        return Watch(stream, streaming.convert, lambda error: self._error(error, 0.0))

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Raise the error that a failed call on :attr:`channel` stands for."""
        raise self._error(error, self.timeout_seconds) from error

    def _attempt(self, unary: Unary[V], seconds: float, stop: Stop | None) -> Any:
        method = self._callable(self._intercepted.unary_unary, unary.method)
        ready = self.options.wait_for_ready
        if stop is None:
            return method(unary.request, timeout=seconds, wait_for_ready=ready)
        future = method.future(unary.request, timeout=seconds, wait_for_ready=ready)
        with stop.bound(future.cancel):
            return future.result()

    def _callable(self, make: Callable[..., Any], method: Method) -> Any:
        # Two threads that come here first make two, one of which is dropped.
        found = self._callables.get(method.path)
        if found is None:
            found = self._callables[method.path] = make(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        return found

    def _error(self, error: Exception, timeout_seconds: float) -> DeviceApiError:
        if not isinstance(error, grpc.Call):
            # A closed channel raises ValueError, a cancelled future an error of its own.
            return Unreachable(str(error) or "the call was cancelled", target=self.target)
        status = error.code().name
        failure = Failure(
            status,
            error.details() or "",
            reason_in(error.trailing_metadata()),
            status != "UNAVAILABLE" or self._connected(),
        )
        return failure.error(self.target, timeout_seconds)

    def _connected(self) -> bool:
        states: list[grpc.ChannelConnectivity] = []
        known = threading.Event()

        def note(state: grpc.ChannelConnectivity) -> None:
            states.append(state)
            known.set()

        self.channel.subscribe(note)
        try:
            known.wait(_STATE_SECONDS)
        finally:
            self.channel.unsubscribe(note)
        return states[:1] == [grpc.ChannelConnectivity.READY]
