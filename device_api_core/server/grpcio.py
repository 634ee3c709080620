"""The built-in transport: grpc.aio with bytes handlers, health and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import grpc

from device_api_core.errors import SettingsError
from device_api_core.metrics import Metrics
from device_api_core.server.connections import Patrol, connections
from device_api_core.server.credentials import named, server_credentials
from device_api_core.server.guard import Guard, Unknown
from device_api_core.server.handlers import handler
from device_api_core.server.introspection import Health, reflection
from device_api_core.server.sockets import SocketClaim
from device_api_core.server.transport import Face
from device_api_core.validation import MAX_MESSAGE_BYTES
from device_api_core.watch import MAX_WATCHES

logger = logging.getLogger(__name__)

_LONGEST_LOOK_SECONDS = 60.0
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
        guard = Guard(face.limiter)
        credentials = None if face.tls is None else server_credentials(face.tls)
        wrap = named if face.tls is not None and face.tls.client_ca_file else _as_it_is
        health = Health(face.services)
        methods = (*face.methods, *health.methods, *reflection(face.services))
        handlers: list[grpc.GenericRpcHandler] = []
        for service in dict.fromkeys(m.service for m in methods):
            table = {
                m.name: handler(m, metrics, guard, wrap) for m in methods if m.service == service
            }
            handlers.append(grpc.method_handlers_generic_handler(service, table))
        handlers.append(Unknown(guard))

        def make() -> grpc.aio.Server:
            return grpc.aio.server(
                handlers=handlers,
                options=(*_OPTIONS, *limits),
                maximum_concurrent_rpcs=_MAX_OPEN_CALLS,
            )

        server = make()
        claim: SocketClaim | None = None
        try:
            if face.unix_socket:
                claim = SocketClaim(face.unix_socket, face.unix_mode)
                _bind_unix(server, claim)
            tcp_port = _bind_tcp(server, face, credentials) if face.tcp_address else 0
            addresses = _addresses(claim, tcp_port)
            patrol = Patrol(addresses, face.limiter, face.max_connections)
            listening = GrpcioListening(make, server, health, claim, tcp_port, patrol, addresses)
            await server.start()
        except BaseException:
            await server.stop(None)
            if claim is not None:
                claim.release()
            raise
        return listening


class GrpcioListening:
    """A running grpc.aio server; after :meth:`rebind` one more, for the unix socket alone."""

    def __init__(
        self,
        make: Callable[[], grpc.aio.Server],
        server: grpc.aio.Server,
        health: Health,
        claim: SocketClaim | None,
        tcp_port: int,
        patrol: Patrol,
        addresses: set[str],
    ) -> None:
        self._patrol = asyncio.create_task(patrol.walk())
        self._addresses = addresses
        self._make = make
        self._servers = [server]
        self._leaving: set[asyncio.Task[None]] = set()
        self._health = health
        self.claim = claim
        self._bound = "" if claim is None else str(claim.bound)
        self.tcp_port = tcp_port

    async def rebind(self) -> None:
        """Bind the unix socket with one more server, for a port that is added to one that runs is
        never served. The one before answers as long as somebody is connected to it."""
        assert self.claim is not None
        self.claim.renew()
        server = self._make()
        try:
            _bind_unix(server, self.claim)
            await server.start()
        except BaseException:
            await server.stop(None)
            raise
        former, self._bound = self._bound, str(self.claim.bound)
        self._addresses.add(self._bound)
        task = asyncio.create_task(self._leave(self._servers[-1], former))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        self._servers.append(server)

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers for "" and each service."""
        self._health.set(serving)

    async def stop(self, grace_seconds: float) -> None:
        """Drain, then remove the socket."""
        for task in (self._patrol, *self._leaving):
            task.cancel()
        self._health.stop()
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))
        if self.claim is not None:
            self.claim.release()

    async def _leave(self, server: grpc.aio.Server, address: str) -> None:
        """Stop a server that nobody finds any longer, once nobody is there: gRPC cancels calls that
        reach one which is stopping. Its idle connections end by themselves."""
        pause = 1.0
        while True:
            await asyncio.sleep(pause)
            if not await asyncio.to_thread(_connected, address):
                break
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        self._addresses.discard(address)
        # The first one may serve TCP, too, and then has to stay.
        if server is not self._servers[0] or not self.tcp_port:
            self._servers.remove(server)
            await server.stop(None)


def _tells_of_a_defect(record: logging.LogRecord) -> bool:
    # A client that goes while it is answered is none, and could fill the log with tracebacks.
    return record.exc_info is None or not str(record.exc_info[0]).endswith("ExecuteBatchError'>")


def _addresses(claim: SocketClaim | None, tcp_port: int) -> set[str]:
    paths = {str(claim.bound)} if claim is not None else set()
    return paths | ({f":{tcp_port}"} if tcp_port else set())


def _connected(address: str) -> bool:
    return next(connections({address}), None) is not None


def _bind_unix(server: grpc.aio.Server, claim: SocketClaim) -> None:
    try:
        with claim.binding() as path:
            # The address is a URI: a path is not always one as it is.
            server.add_insecure_port(f"unix:{quote(path)}")
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"cannot listen on unix socket {claim.path}: {error}") from error


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


def _as_it_is(handle: Any) -> Any:
    return handle
