"""The transport: listens for a face on a unix socket, on loopback TCP or on both."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping

from device_api_core.errors import SettingsError
from device_api_core.metrics import Metrics
from device_api_core.server.introspection import Health, reflection
from device_api_core.server.sockets import Credentials, SocketClaim
from device_api_core.server.transport import Face
from device_api_transport_h2.accounts import Accounts
from device_api_transport_h2.arrivals import BACKLOG, Arrivals, Connections
from device_api_transport_h2.connection import Connection, Served
from device_api_transport_h2.lookout import Lookout
from device_api_transport_h2.routes import Route, known_answers, routes
from device_api_transport_h2.turn import Turn

logger = logging.getLogger(__name__)

_MAX_PORT = 65_535
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
        listening = H2Listening(face, routes(methods, metrics, face.limiter), health)
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

    def __init__(self, face: Face, table: Mapping[bytes, Route], health: Health) -> None:
        self._lookout = Lookout()
        self._served = Served(
            table,
            known_answers(table),
            face.limiter,
            face.max_request_bytes,
            Turn(),
            self._lookout,
            Accounts(),
        )
        self._health = health
        self.claim: SocketClaim | None = None
        self._unix: Arrivals | None = None
        self._tcp: Arrivals | None = None
        self._connections = Connections(face.max_connections)
        self._quiet = asyncio.Event()
        self.tcp_port = 0

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._connections)

    async def bind_unix(self, path: str, mode: int) -> None:
        """Listen at a path."""
        self.claim = SocketClaim(path, mode)
        self._unix = self._serve_unix(self.claim)

    async def rebind(self) -> None:
        """Bind the unix socket once more. Connections stay as they are."""
        assert self.claim is not None
        assert self._unix is not None
        self.claim.renew()
        former, self._unix = self._unix, self._serve_unix(self.claim)
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
            listener.listen(BACKLOG)
            self._tcp = self._serve(listener)
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
        for arrivals in (self._unix, self._tcp):
            if arrivals is not None:
                arrivals.close()
        self._health.stop()
        if self._connections:
            await self._drain(grace_seconds)
        self._lookout.close()
        if self.claim is not None:
            self.claim.release()
            self.claim = None

    async def _drain(self, grace_seconds: float) -> None:
        ends = asyncio.get_running_loop().time() + grace_seconds
        for last in (False, True):
            for connection in self._connections:
                connection.go_away(last=last)
            await asyncio.sleep(0 if last else min(_GOODBYE_SECONDS, grace_seconds))
        try:
            async with asyncio.timeout_at(ends):
                while self._connections:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            running = [task for c in self._connections for task in c.tasks]
            for connection in self._connections:
                connection.cut()
            if running:
                await asyncio.wait(running, timeout=_CUT_SECONDS)

    def _serve_unix(self, claim: SocketClaim) -> Arrivals:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with claim.binding() as path:
                listener.bind(path)
                listener.listen(BACKLOG)
            return self._serve(listener)
        except OSError as error:
            listener.close()
            raise SettingsError(
                f"cannot listen on unix socket {claim.path}: {error.strerror}"
            ) from error

    def _serve(self, listener: socket.socket) -> Arrivals:
        return Arrivals(listener, self._connections, self._connection)

    def _connection(self, accepted: socket.socket, who: Credentials) -> Connection:
        return Connection(accepted, who, self._served, self._ended)

    def _ended(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._quiet.set()


def _loopback(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise SettingsError(f"--grpc-address must be HOST:PORT, not {address!r}; empty for no TCP")
    name = host.strip("[]")
    if name == "localhost":
        name = "127.0.0.1"
    import ipaddress  # only who serves TCP pays for it

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
