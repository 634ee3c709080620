"""What a grpc.aio server tells about itself: grpc.health.v1 and reflection."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc

_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 of one face. Unlike the servicer that grpcio brings, its watches end when the
    server stops, and go on when another watch of the same service ends."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = frozenset(("", *services))
        self._serving = False
        self._stopping = False
        self._changed = asyncio.Event()

    def set(self, serving: bool) -> None:
        """Answer this from now on, and tell the watches."""
        self._serving = serving
        self._announce()

    def stop(self) -> None:
        """End every watch once it has sent the last status."""
        self._stopping = True
        self._announce()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The status now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:64]!r}")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """The status now and after every change."""
        sent = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            elif self._stopping:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            else:
                await changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._serving:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING


class Reflection(grpc.GenericRpcHandler):
    """The reflection service, imported when somebody asks for it: few ever do, and it costs 3 MiB
    of memory."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = (*services, "grpc.health.v1.Health", _REFLECTION)
        self._handler: grpc.RpcMethodHandler[Any, Any] | None = None

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method != f"/{_REFLECTION}/ServerReflectionInfo":
            return None
        if self._handler is None:
            from grpc_reflection.v1alpha import reflection, reflection_pb2

            servicer = reflection.aio.ReflectionServicer(self._services, pool=_SymbolPool())
            self._handler = grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                reflection_pb2.ServerReflectionRequest.FromString,
                reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        return self._handler


class _SymbolPool:
    """The default descriptor pool, which also finds methods: the pool itself knows none, and
    ``grpcurl describe`` asks for them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802
        """See :class:`google.protobuf.descriptor_pool.DescriptorPool`."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method not in pool.FindServiceByName(service).methods_by_name:
                raise
            return pool.FindFileContainingSymbol(service)
