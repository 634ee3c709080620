"""A stand-in for the kubelet, for tests of device plugins: what a plugin meets of one.

It speaks the real protocol over real sockets: it takes registrations on ``kubelet.sock``, calls the
plugin back at its endpoint, follows its devices and asks it to allocate. As the kubelet does, it
deletes every file in its directory when it starts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from device_api_device_plugin._proto import deviceplugin_pb2 as pb
from device_api_device_plugin._proto.deviceplugin_pb2_grpc import (
    DevicePluginStub,
    RegistrationServicer,
    add_RegistrationServicer_to_server,
)

WAIT_SECONDS = 20.0


class Kubelet(RegistrationServicer):
    """A kubelet whose directory of device plugins is ``directory``. Use ``with``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registrations: list[pb.RegisterRequest] = []
        self.options: pb.DevicePluginOptions | None = None
        self.devices: dict[str, str] = {}
        """Health by device, as told last; empty when no plugin is followed."""
        self.lists = 0
        self.refusal = ""
        """If not empty, why every registration is refused."""
        self.failure = ""
        """What ended the last stream that did not end by itself."""
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None
        self._channel: grpc.Channel | None = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- its life

    def start(self) -> None:
        """Delete what is in the directory, and take registrations."""
        for file in self.directory.iterdir():
            file.unlink()
        self._server = grpc.server(ThreadPoolExecutor(4, thread_name_prefix="kubelet"))
        add_RegistrationServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.directory / 'kubelet.sock'}")
        self._server.start()

    def stop(self) -> None:
        """As when its process ends: no plugin is followed, nobody listens."""
        self.hang_up()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def restart(self) -> None:
        """Stop and start again, with nothing remembered."""
        self.stop()
        with self._changed:
            self.registrations.clear()
        self.start()

    def hang_up(self) -> None:
        """Close the connection to the plugin, and follow it no longer."""
        with self._changed:
            stream, self._stream = self._stream, None
            channel, self._channel = self._channel, None
        if stream is not None:
            stream.cancel()
        if channel is not None:
            channel.close()
            self._told({})

    # --- what it serves

    def Register(self, request: pb.RegisterRequest, context: Any) -> pb.Empty:  # noqa: N802
        """Take a plugin, unless :attr:`refusal` says no, and follow it instead of the last one."""
        if self.refusal:
            context.abort(grpc.StatusCode.UNKNOWN, self.refusal)
        with self._changed:
            self.registrations.append(request)
            self._changed.notify_all()
        threading.Thread(target=self._follow, args=(request.endpoint,), daemon=True).start()
        return pb.Empty()

    def _follow(self, endpoint: str) -> None:
        self.hang_up()
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(f"unix:{self.directory / endpoint}", options=options)
        plugin = DevicePluginStub(channel)
        stream = plugin.ListAndWatch(pb.Empty())
        with self._changed:
            self._channel, self._stream = channel, stream
        try:
            self.options = plugin.GetDevicePluginOptions(pb.Empty(), timeout=WAIT_SECONDS)
            for told in stream:
                self._told({d.ID: d.health for d in told.devices})
        except grpc.RpcError as error:
            # The plugin or this kubelet is gone; either way it has no devices any more.
            self.failure = str(error)
        if self._stream is stream:
            self._told({})

    def _told(self, devices: dict[str, str]) -> None:
        with self._changed:
            self.devices = devices
            self.lists += 1
            self._changed.notify_all()

    # --- what a test does with it

    def wait(self, holds: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until it is true of what the kubelet was told."""
        with self._changed:
            true = self._changed.wait_for(holds, seconds)
            assert true, (
                f"after {seconds:g} s: {self.devices}, {self.registrations}, {self.failure}"
            )

    def news(self, known: dict[str, str], seconds: float) -> dict[str, str]:
        """The devices as soon as they are others than these, at the latest after that time."""
        with self._changed:
            self._changed.wait_for(lambda: self.devices != known, seconds)
            return self.devices

    def allocate(self, *containers: list[str]) -> pb.AllocateResponse:
        """Ask for the devices of a pod's containers. Raises ``grpc.RpcError``."""
        answer: pb.AllocateResponse = self.ask(*containers).result()
        return answer

    def ask(self, *containers: list[str]) -> Any:
        """The same without waiting: returns a ``grpc.Future``."""
        channel = self._channel
        assert channel is not None, "no plugin is followed"
        request = pb.AllocateRequest(
            container_requests=[pb.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
        )
        return DevicePluginStub(channel).Allocate.future(request, timeout=WAIT_SECONDS)
