"""One endpoint of a server: its channel, deadlines, and what its failures become."""

from __future__ import annotations

import threading
from typing import NoReturn, TypeVar

import grpc

from device_api_core.client.errors import (
    REASON_METADATA,
    DeadlineExceeded,
    DeviceApiError,
    NotServed,
    Unreachable,
    from_status,
)

DEFAULT_TIMEOUT_SECONDS = 10.0
"""Twice the time that a provider may hold reads back, so a healthy server always answers."""

_STATE_SECONDS = 1.0

_OPTIONS = (
    # A node-local server is never behind a proxy, whatever the environment of a shell says.
    ("grpc.enable_http_proxy", 0),
    # A restarted server should be found within seconds; the default pause grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Otherwise two clients of one process share a connection and its backoff.
    ("grpc.use_local_subchannel_pool", 1),
)

Request = TypeVar("Request")
Response = TypeVar("Response")


class Endpoint:
    """A lazily connected channel to ``target``. Thread-safe, like the channel."""

    def __init__(self, target: str, timeout_seconds: float) -> None:
        self.target = target
        self.timeout_seconds = timeout_seconds
        self.channel: grpc.Channel = grpc.insecure_channel(target, options=_OPTIONS)

    def __repr__(self) -> str:
        return f"<Endpoint {self.target}>"

    def close(self) -> None:
        """Close the channel; calls in flight fail."""
        self.channel.close()

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """One unary call with the deadline, failing at once if nothing listens."""
        try:
            return method(request, timeout=self.timeout_seconds, wait_for_ready=False)
        except grpc.RpcError as error:
            self.fail(error)

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Raise the error that a failed call stands for."""
        raise self._translate(error) from error

    def _translate(self, error: grpc.RpcError) -> DeviceApiError:
        if not isinstance(error, grpc.Call):
            return Unreachable(str(error), target=self.target)
        status, message = error.code().name, error.details() or ""
        if status == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(
                f"no answer from {self.target} within {self.timeout_seconds:g} s",
                target=self.target,
            )
        if status == NotServed.code:
            return NotServed(f"{self.target} does not offer this service ({message})")
        reason = _reason(error)
        if status == "UNAVAILABLE" and not reason and not self._connected():
            return Unreachable(message, target=self.target)
        return from_status(status, message, reason)

    def _connected(self) -> bool:
        # gRPC gives one status to "cannot connect" and to a server that says it is unavailable;
        # only the channel's state tells them apart.
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


def _reason(error: grpc.Call) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == REASON_METADATA:
            return value if isinstance(value, str) else value.decode()
    return ""
