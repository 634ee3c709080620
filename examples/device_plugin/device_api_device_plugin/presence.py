"""Being known to the kubelet: the plugin's socket, and its registration."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import NamedTuple

import grpc

from device_api_device_plugin._proto import deviceplugin_pb2 as pb
from device_api_device_plugin._proto.deviceplugin_pb2_grpc import (
    RegistrationStub,
    add_DevicePluginServicer_to_server,
)
from device_api_device_plugin.service import Service
from device_api_device_plugin.settings import Settings

logger = logging.getLogger(__name__)

VERSION = "v1beta1"
REGISTER_SECONDS = 5.0
GRACE_SECONDS = 2.0
"""For so long allocations in progress may end when the plugin stops."""
UNWATCHED_POLLS = 5
"""After so many looks without a stream the kubelet has hung up."""

_PRIVATE_UMASK = 0o177


class SocketFile(NamedTuple):
    """Tells one file from the next one of the same path; an inode alone may be used again."""

    device: int
    inode: int
    changed: int

    @classmethod
    def at(cls, path: Path) -> SocketFile | None:
        """What is there now, ``None`` if nothing is."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        return cls(stat.st_dev, stat.st_ino, stat.st_ctime_ns)


def is_dead(path: Path) -> bool:
    """Whether nobody listens on the socket any more: what a killed plugin leaves behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


class Presence:
    """Serves the plugin's socket and registers it, again whenever that is needed.

    A kubelet that starts deletes every socket in the directory and makes its own anew; one whose
    stream broke forgets the plugin. Neither says so, so both are looked for.
    """

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service
        self._server: grpc.aio.Server | None = None
        self._path = settings.new_socket()
        self._own: SocketFile | None = None
        self._registered: SocketFile | None = None
        self._unwatched = 0
        self._complaint = ""

    async def keep(self) -> None:
        """Keep the plugin known until cancelled; then end its streams and remove its socket."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._settings.poll_seconds)
        finally:
            self._service.end_streams()
            await self._close(GRACE_SECONDS)

    async def _look(self) -> None:
        kubelet = SocketFile.at(self._settings.kubelet_socket)
        if kubelet is None:
            self._registered = None
            self._complain(f"no kubelet at {self._settings.kubelet_socket}")
            return
        if self._own is None or SocketFile.at(self._path) != self._own:
            try:
                await self._serve()
            except (OSError, RuntimeError) as error:
                # gRPC raises the latter when it cannot bind.
                self._complain(f"cannot listen in {self._settings.plugin_dir}: {error}")
                return
        self._unwatched = 0 if self._service.watchers else self._unwatched + 1
        if self._registered != kubelet or self._unwatched > UNWATCHED_POLLS:
            await self._register(kubelet)

    async def _serve(self) -> None:
        """Listen on a new socket. Its name is new, too: a server of gRPC that was stopped deletes
        its path some time later, whoever listens there by then."""
        await self._close(0)
        for left in self._settings.plugin_dir.glob(self._settings.socket("*").name):
            if is_dead(left):
                left.unlink(missing_ok=True)
        self._path = path = self._settings.new_socket()
        server = grpc.aio.server()
        add_DevicePluginServicer_to_server(self._service, server)
        # The socket can be connected to from its bind on, so its mode has to be right by then.
        before = os.umask(_PRIVATE_UMASK)
        try:
            server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)
        await server.start()
        self._server, self._own, self._registered = server, SocketFile.at(path), None
        logger.info("serving", extra={"socket": str(path)})

    async def _register(self, kubelet: SocketFile) -> None:
        """Register with the kubelet whose socket that is. A failure is tried again at the next
        look: a kubelet that starts does not answer at once."""
        self._registered = None
        self._unwatched = 0
        request = pb.RegisterRequest(
            version=VERSION,
            endpoint=self._path.name,
            resource_name=self._settings.resource_name,
            options=pb.DevicePluginOptions(),
        )
        # A connection of its own: a shared one to the same path may wait to try again.
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = f"unix:{self._settings.kubelet_socket}"
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            try:
                await RegistrationStub(channel).Register(request, timeout=REGISTER_SECONDS)
            except grpc.aio.AioRpcError as error:
                said = f"{error.code().name}: {error.details()}"
                self._complain(f"the kubelet did not register the plugin: {said}")
                return
        self._registered, self._complaint = kubelet, ""
        logger.info("registered", extra={"resource": self._settings.resource_name})

    def _complain(self, text: str) -> None:
        """Log what is wrong once, not at every look."""
        if text != self._complaint:
            logger.warning("%s; trying again", text)
            self._complaint = text

    async def _close(self, grace_seconds: float) -> None:
        if self._server is not None:
            await self._server.stop(grace_seconds)
            self._server = self._own = None
