"""What a server tells about itself on any transport: grpc.health.v1 and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2

from device_api_core import codec
from device_api_core.errors import DeviceApiError, NotFound, Unavailable
from device_api_core.server.transport import Exchange, Method, ServerStream, Unary

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
# The newer version has the same messages under other names. New clients ask for it first.
_REFLECTIONS = (_REFLECTION, "grpc.reflection.v1.ServerReflection")
_NOT_FOUND = 5


class Health:
    """grpc.health.v1 of one face: what is asked about "" and each of its services has one answer.
    Watches end when the server stops."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = frozenset(("", *services))
        self._serving = False
        self._watches: set[_HealthWatch] = set()
        self.stopping = False

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method table."""
        return (Unary(_HEALTH, "Check", self._check), ServerStream(_HEALTH, "Watch", self._watch))

    def set(self, serving: bool) -> None:
        """Answer this from now on, and tell the watches."""
        self._serving = serving
        self._announce()

    def stop(self) -> None:
        """End every watch once it has sent the last status."""
        self.stopping = True
        self._announce()

    def status(self, service: str) -> int:
        """A ``HealthCheckResponse.ServingStatus``."""
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._serving:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    def forget(self, watch: _HealthWatch) -> None:
        """The client of a watch is gone."""
        self._watches.discard(watch)

    async def _check(self, data: bytes) -> bytes:
        service = codec.decode(health_pb2.HealthCheckRequest, data).service
        if service not in self._services:
            raise NotFound(f"no service {service[:64]!r}")
        return _health_response(self.status(service))

    async def _watch(self, data: bytes) -> _HealthWatch:
        watch = _HealthWatch(self, codec.decode(health_pb2.HealthCheckRequest, data).service)
        self._watches.add(watch)
        return watch

    def _announce(self) -> None:
        for watch in tuple(self._watches):
            watch.wake()


class _HealthWatch:
    """The status now and after every change."""

    def __init__(self, health: Health, service: str) -> None:
        self._health = health
        self._service = service
        self._sent: int | None = None
        self._changed = asyncio.Event()
        self.error: DeviceApiError | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_ready: Callable[[], None] | None = None
        self.on_event: Callable[[bytes], bool] | None = None

    def take(self) -> bytes | None:
        self._changed.clear()
        if (status := self._health.status(self._service)) != self._sent:
            self._sent = status
            return _health_response(status)
        if self._health.stopping:
            self.error = Unavailable("the server is shutting down")
            raise self.error
        return None

    async def next(self) -> bytes:
        while (status := self.take()) is None:
            await self._changed.wait()
        return status

    def close(self) -> None:
        self._health.forget(self)

    def wake(self) -> None:
        self._changed.set()
        if self.on_ready is not None:
            self.on_ready()


def _health_response(status: int) -> bytes:
    return health_pb2.HealthCheckResponse(status=status).SerializeToString()


def reflection(services: tuple[str, ...]) -> tuple[Method, ...]:
    """Server reflection, which describes ``services`` and itself. What it needs is imported when
    somebody asks: few ever do."""
    names = sorted((*services, _HEALTH, _REFLECTION))

    async def run(
        requests: AsyncIterator[bytes], respond: Callable[[bytes], Awaitable[None]]
    ) -> None:
        from grpc_reflection.v1alpha import reflection_pb2

        async for data in requests:
            request = codec.decode(reflection_pb2.ServerReflectionRequest, data)
            response = reflection_pb2.ServerReflectionResponse(original_request=request)
            _describe(request, response, names)
            await respond(response.SerializeToString())

    return tuple(Exchange(name, "ServerReflectionInfo", run) for name in _REFLECTIONS)


def _describe(request: Any, response: Any, names: list[str]) -> None:
    pool = descriptor_pool.Default()
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in names:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _add_files(response, pool.FindFileByName(request.file_by_filename))
        elif kind == "file_containing_symbol":
            _add_files(response, _file_of(request.file_containing_symbol))
        else:
            # No message here has extensions, so that there is none to be found.
            _not_found(response, f"nothing is known of {kind}")
    except KeyError as unknown:
        _not_found(response, str(unknown.args[0]))


def _not_found(response: Any, text: str) -> None:
    response.error_response.error_code = _NOT_FOUND
    response.error_response.error_message = text


def _file_of(symbol: str) -> FileDescriptor:
    """The file that defines a symbol. The pool itself knows no methods, and ``grpcurl describe``
    asks for them."""
    pool = descriptor_pool.Default()
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        if method not in pool.FindServiceByName(service).methods_by_name:
            raise
        return pool.FindFileContainingSymbol(service)


def _add_files(response: Any, file: FileDescriptor) -> None:
    """A file and all that it imports, each once."""
    seen: dict[str, FileDescriptor] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in seen:
            seen[each.name] = each
            waiting.extend(each.dependencies)
    response.file_descriptor_response.file_descriptor_proto.extend(
        each.serialized_pb for each in seen.values()
    )
