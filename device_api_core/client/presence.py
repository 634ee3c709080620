"""Noticing that a server went away or came back, without asking it again and again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from device_api_core.client.endpoint import Endpoint

_PAUSE_SECONDS = 0.2


class Presence:
    """Holds a watch of ``grpc.health.v1`` open, which breaks when the server goes and is answered
    when it is back.

    ``changed`` is called with ``True`` and ``False`` from a thread of this object. A server that
    does not offer the health service is never noticed.
    """

    def __init__(self, endpoint: Endpoint, changed: Callable[[bool], None]) -> None:
        # The published types of this stub know only Check.
        self._stub: Any = health_pb2_grpc.HealthStub(endpoint.channel)
        self._changed = changed
        self._closed = threading.Event()
        name = f"presence of {endpoint.target}"
        threading.Thread(target=self._watch, name=name, daemon=True).start()

    def close(self) -> None:
        """Notice nothing more. The watch ends when its channel is closed."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                # Waits for the connection, which the channel tries with pauses of its own.
                stream = self._stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                self._follow(stream)
            except ValueError:
                return  # the channel is closed
            except grpc.RpcError as error:
                if _code(error) is grpc.StatusCode.UNIMPLEMENTED:
                    return
            if not self._closed.wait(_PAUSE_SECONDS * random.random()):
                self._changed(False)

    def _follow(self, stream: Iterable[health_pb2.HealthCheckResponse]) -> None:
        for _ in stream:
            if self._closed.is_set():
                return
            self._changed(True)


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.Call) else None
