"""The transport: listens for a face on a unix socket, on loopback TCP or on both."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Mapping

from device_api_core.errors import SettingsError
from device_api_core.metrics import Metrics
from device_api_core.server.introspection import Health, reflection
from device_api_core.server.sockets import BURST, SocketClaim
from device_api_core.server.transport import Face
from device_api_transport_h2.connection import Connection
from device_api_transport_h2.routes import Route, routes
from device_api_transport_h2.turn import Turn

logger = logging.getLogger(__name__)

_BACKLOG = 1_024
_MAX_PORT = 65_535
MAX_CONNECTIONS = 1_024
"""Of one face; each costs some 40 KiB and a file descriptor."""
_CUT_SECONDS = 1.0
_GOODBYE_SECONDS = 0.05
"""Between the warning and the last word; a client on this node needs less to hear it."""


class H2Transport:
    """Serves faces over libnghttp2 on the running event loop."""

    async def listen(self, face: Face, metrics: Metrics) -> H2Listening:
        """Bind the face's addresses and start answering, NOT_SERVING at first.

        Raises:
            SettingsError: an address cannot be had or is not this node's own, or TLS is asked for.
        """
        if face.tls is not None:
            raise SettingsError(
                "--tls-cert-file: transport h2 speaks no TLS; use --transport grpcio, or no TCP"
            )
        health = Health(face.services)
        methods = (*face.methods, *health.methods, *reflection(face.services))
        listening = H2Listening(routes(methods, metrics), health)
        try:
            if face.unix_socket:
                await listening.bind_unix(face.unix_socket, face.unix_mode)
            if face.tcp_address:
                await listening.bind_tcp(face.tcp_address)
        except BaseException:
            await listening.stop(0)
            raise
        return listening


class H2Listening:
    """A face that is being served."""

    def __init__(self, table: Mapping[bytes, Route], health: Health) -> None:
        self._routes = table
        self._health = health
        self.claim: SocketClaim | None = None
        self._unix: asyncio.Server | None = None
        self._tcp: asyncio.Server | None = None
        # In the order of their coming.
        self._connections: dict[Connection, None] = {}
        self._turn = Turn()
        self._stopping = False
        self._quiet = asyncio.Event()
        self.tcp_port = 0

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._connections)

    async def bind_unix(self, path: str, mode: int) -> None:
        """Listen at a path."""
        self.claim = SocketClaim(path, mode)
        self._unix = await self._serve_unix(self.claim)

    async def rebind(self) -> None:
        """Bind the unix socket once more. Connections stay as they are."""
        assert self.claim is not None
        assert self._unix is not None
        self.claim.renew()
        former, self._unix = self._unix, await self._serve_unix(self.claim)
        former.close()

    async def bind_tcp(self, address: str) -> None:
        """Listen at HOST:PORT."""
        host, port = _loopback(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Not shared with a living server: this lets a port be had again that has just been
            # given up.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
            self._tcp = await self._serve(listener)
        except OSError as error:
            listener.close()
            raise SettingsError(
                f"cannot listen on {address}: is the port in use or the address not this host's? "
                "Choose another --grpc-address, or an empty one for no TCP"
            ) from error
        self.tcp_port = listener.getsockname()[1]

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers for "" and each service."""
        self._health.set(serving)

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those that run finish, remove the socket."""
        self._stopping = True
        for server in (self._unix, self._tcp):
            if server is not None:
                server.close()
        self._health.stop()
        if self._connections:
            await self._drain(grace_seconds)
        if self.claim is not None:
            self.claim.release()
            self.claim = None

    async def _drain(self, grace_seconds: float) -> None:
        ends = asyncio.get_running_loop().time() + grace_seconds
        for last in (False, True):
            for connection in tuple(self._connections):
                connection.go_away(last=last)
            await asyncio.sleep(0 if last else min(_GOODBYE_SECONDS, grace_seconds))
        try:
            async with asyncio.timeout_at(ends):
                while self._connections:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            running = [task for c in self._connections for task in c.tasks]
            for connection in tuple(self._connections):
                connection.cut()
            if running:
                await asyncio.wait(running, timeout=_CUT_SECONDS)

    async def _serve_unix(self, claim: SocketClaim) -> asyncio.Server:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with claim.binding() as path:
                listener.bind(path)
                listener.listen(_BACKLOG)
            return await self._serve(listener)
        except OSError as error:
            listener.close()
            raise SettingsError(
                f"cannot listen on unix socket {claim.path}: {error.strerror}"
            ) from error

    async def _serve(self, listener: socket.socket) -> asyncio.Server:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        unix = listener.family == socket.AF_UNIX
        create = loop.create_unix_server if unix else loop.create_server
        server = await create(self._connection, sock=listener, backlog=BURST)
        listener.listen(_BACKLOG)
        return server

    def _connection(self) -> asyncio.BaseProtocol:
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            return _Turned()
        connection = Connection(self._routes, self._turn, self._ended)
        self._connections[connection] = None
        return connection

    def _make_room(self) -> bool:
        """End the oldest connection that has no calls. Its client connects again when it has one,
        while idle ones could keep everybody out."""
        for connection in self._connections:
            if connection.idle:
                del self._connections[connection]
                connection.go_away(last=True)
                connection.cut()
                return True
        return False

    def _ended(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._quiet.set()


class _Turned(asyncio.Protocol):
    """A client for whom there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        logger.warning("a connection was refused: all %d are in use", MAX_CONNECTIONS)
        transport.abort()


def _loopback(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise SettingsError(f"--grpc-address must be HOST:PORT, not {address!r}; empty for no TCP")
    name = host.strip("[]")
    if name == "localhost":
        name = "127.0.0.1"
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        raise SettingsError(
            f"--grpc-address: the h2 transport serves this node only, and {host or 'no host'} is "
            "more than loopback: use --transport grpcio for other addresses"
        )
    return name, int(port)
