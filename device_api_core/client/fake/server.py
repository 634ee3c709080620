"""The fake server: a fake node behind a real gRPC socket, for programs in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from device_api_core._proto import admin_pb2, provider_pb2
from device_api_core.client._generated import KINDS
from device_api_core.client.calls import Method, Streaming, method
from device_api_core.client.errors import REASON_METADATA, DeviceApiError
from device_api_core.client.fake.clientset import FakeStream
from device_api_core.client.fake.node import FakeNode
from device_api_core.client.kinds import Resource
from device_api_core.client.stopping import Stop

_THREADS = 64
"""One for each watch that is open at a time."""

_SERVICES = (
    *(kind.service for kind in KINDS),
    provider_pb2.DESCRIPTOR.services_by_name["ProviderService"],
    admin_pb2.DESCRIPTOR.services_by_name["Admin"],
)

_WATCHES = {kind.watch_method.path for kind in KINDS}


class FakeServer(grpc.GenericRpcHandler):
    """Serves a node at ``target`` (``unix:///path``, ``127.0.0.1:0``), everything on one socket.
    Use ``with``; :attr:`target` is then where it listens."""

    def __init__(self, target: str, *objects: Resource, node: FakeNode | None = None) -> None:
        self.target = target
        self.node = node or FakeNode()
        for each in objects:
            self.node.add(each)
        methods = [method(s, m.name) for s in _SERVICES for m in s.methods]
        self._methods = {m.path: m for m in methods}
        self._stop = Stop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-server")
        self._server = grpc.server(
            self._threads, handlers=[self], options=[("grpc.so_reuseport", 0)]
        )

    def __enter__(self) -> Self:
        port = self._server.add_insecure_port(self.target)
        if not self.target.startswith("unix:"):
            self.target = f"{self.target.rpartition(':')[0]}:{port}"
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._server.stop(0).wait()
        self._threads.shutdown()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, for gRPC; ``None`` for one that is not offered."""
        found = self._methods.get(handler_call_details.method)
        if found is None or found.path.endswith("/Update"):
            return None
        watch = found.path in _WATCHES
        make: Callable[..., Any] = (
            grpc.unary_stream_rpc_method_handler if watch else grpc.unary_unary_rpc_method_handler
        )
        return make(
            self._watch(found) if watch else self._answer(found),
            request_deserializer=found.request.FromString,
            response_serializer=found.response.SerializeToString,
        )

    def _answer(self, method: Method) -> Callable[[Any, Any], Any]:
        def handle(request: Any, context: Any) -> Any:
            try:
                return self.node.answer(method.path, request)
            except DeviceApiError as error:
                _abort(context, error)

        return handle

    def _watch(self, method: Method) -> Callable[[Any, Any], Iterator[Any]]:
        def handle(request: Any, context: Any) -> Iterator[Any]:
            streaming = Streaming(method, request, lambda message: message)
            stream = FakeStream(self.node, streaming, self._stop)
            if not context.add_callback(stream.cancel):
                return
            try:
                while (message := next(stream, None)) is not None:
                    yield message
            except DeviceApiError as error:
                _abort(context, error)
            finally:
                stream.cancel()

        return handle


def _abort(context: Any, error: DeviceApiError) -> NoReturn:
    if error.reason:
        context.set_trailing_metadata(((REASON_METADATA, error.reason),))
    context.abort(grpc.StatusCode[error.code], error.message)
    raise AssertionError("abort raises")
