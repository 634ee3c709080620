"""The built-in transport: grpc.aio with bytes handlers, health and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import grpc

from device_api_core.errors import DeviceApiError, SettingsError
from device_api_core.metrics import Metrics
from device_api_core.server.connections import Patrol
from device_api_core.server.credentials import named, server_credentials
from device_api_core.server.guard import Guard, Unknown, abort
from device_api_core.server.introspection import Health, reflection
from device_api_core.server.limits import LARGE_BYTES
from device_api_core.server.sockets import SocketClaim
from device_api_core.server.transport import (
    EventStream,
    Exchange,
    Face,
    Method,
    ServerStream,
    Unary,
    count_stream,
    internal,
    recorded,
)
from device_api_core.validation import MAX_MESSAGE_BYTES
from device_api_core.watch import MAX_WATCHES

logger = logging.getLogger(__name__)

_ABORT_SECONDS = 5.0
_MAX_PORT = 65_535
_MAX_OPEN_CALLS = 8_192
"""Of one face, watches included. The last wall: it also counts a call whose request never comes,
which no handler sees."""
_OPTIONS = (
    # Two servers must not share one TCP port by accident.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # As many streams as there may be watches: a client waits silently for one beyond this.
    ("grpc.max_concurrent_streams", MAX_WATCHES),
    # Clients ping every 30 s while a watch is silent; who pings far more often is cut off.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Who connects has to speak, and one who no longer calls gives the connection back.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcioTransport:
    """Serves faces with grpc.aio on the running event loop."""

    async def listen(self, face: Face, metrics: Metrics) -> GrpcioListening:
        """Bind the face's addresses and start answering, NOT_SERVING at first.

        Raises:
            SettingsError: an address cannot be had.
        """
        logging.getLogger("grpc._cython.cygrpc").addFilter(_tells_of_a_defect)
        limits = (
            ("grpc.max_receive_message_length", face.max_request_bytes),
            ("grpc.max_allowed_incoming_connections", face.max_connections),
        )
        server = grpc.aio.server(
            options=(*_OPTIONS, *limits), maximum_concurrent_rpcs=_MAX_OPEN_CALLS
        )
        guard = Guard(face.limiter)
        credentials = None if face.tls is None else server_credentials(face.tls)
        wrap = named if face.tls is not None and face.tls.client_ca_file else _as_it_is
        health = Health(face.services)
        methods = (*face.methods, *health.methods, *reflection(face.services))
        for service in dict.fromkeys(m.service for m in methods):
            handlers = {
                m.name: _handler(m, metrics, guard, wrap) for m in methods if m.service == service
            }
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        server.add_generic_rpc_handlers((Unknown(guard),))
        claim: SocketClaim | None = None
        try:
            claim = _bind_unix(server, face) if face.unix_socket else None
            tcp_port = _bind_tcp(server, face, credentials) if face.tcp_address else 0
            patrol = Patrol(_addresses(claim, tcp_port), face.limiter, face.max_connections)
            listening = GrpcioListening(server, health, claim, tcp_port, patrol)
            await server.start()
        except BaseException:
            await server.stop(None)
            if claim is not None:
                claim.release()
            raise
        return listening


class GrpcioListening:
    """A running grpc.aio server."""

    def __init__(
        self,
        server: grpc.aio.Server,
        health: Health,
        claim: SocketClaim | None,
        tcp_port: int,
        patrol: Patrol,
    ) -> None:
        self._patrol = asyncio.create_task(patrol.walk())
        self._server = server
        self._health = health
        self._claim = claim
        self.tcp_port = tcp_port

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers for "" and each service."""
        self._health.set(serving)

    async def stop(self, grace_seconds: float) -> None:
        """Drain, then remove the socket."""
        self._patrol.cancel()
        self._health.stop()
        await self._server.stop(grace_seconds)
        if self._claim is not None:
            self._claim.release()


def _tells_of_a_defect(record: logging.LogRecord) -> bool:
    # A client that goes while it is answered is none, and could fill the log with tracebacks.
    return record.exc_info is None or not str(record.exc_info[0]).endswith("ExecuteBatchError'>")


def _addresses(claim: SocketClaim | None, tcp_port: int) -> frozenset[str]:
    paths = {str(claim.path)} if claim is not None else set()
    return frozenset(paths | ({f":{tcp_port}"} if tcp_port else set()))


def _bind_unix(server: grpc.aio.Server, face: Face) -> SocketClaim:
    claim = SocketClaim(face.unix_socket, face.unix_mode)
    try:
        with claim.binding():
            # The address is a URI: a path is not always one as it is.
            server.add_insecure_port(f"unix:{quote(str(claim.path))}")
    except (RuntimeError, OSError) as error:
        claim.release()
        raise SettingsError(f"cannot listen on unix socket {claim.path}: {error}") from error
    return claim


def _bind_tcp(
    server: grpc.aio.Server, face: Face, credentials: grpc.ServerCredentials | None
) -> int:
    host, _, port = face.tcp_address.rpartition(":")
    # grpc takes the port modulo 65,536.
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise SettingsError(
            f"{face.tcp_flag} must be HOST:PORT or :PORT, not {face.tcp_address!r}; empty for no "
            "TCP"
        )
    # No host means every address of this one, which grpc spells otherwise.
    address = f"{host or '[::]'}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SettingsError(
            f"cannot listen on {face.tcp_address}: is the port in use or the address not this "
            f"host's? Choose another {face.tcp_flag}, or an empty one for no TCP"
        ) from error


def _handler(
    method: Method, metrics: Metrics, guard: Guard, wrap: Callable[[Any], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    # Without serializers grpc passes the bytes through as they are.
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(wrap(_unary(method, metrics, guard)))
    if isinstance(method, Exchange):
        return grpc.stream_stream_rpc_method_handler(wrap(_exchange(method, metrics, guard)))
    return grpc.unary_stream_rpc_method_handler(wrap(_stream(method, metrics, guard)))


def _as_it_is(handle: Any) -> Any:
    return handle


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
        peer = guard.peer(context)

        async def run(_: bytes) -> None:
            with guard.limiter.stream(peer):
                # Each request is a read. What writes is bounded by itself, and others wait for it.
                each = requests if method.writes else guard.paced(peer, requests)
                await method.run(each, context.write)

        try:
            turn = guard.limiter.call(peer, run, b"", writes=method.writes)
            await recorded(method, turn, calls)
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
