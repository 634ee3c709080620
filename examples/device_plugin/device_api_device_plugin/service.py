"""What the kubelet calls: the service ``v1beta1.DevicePlugin``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from device_api_core.client import AsyncClientset
from device_api_core.client.errors import DeviceApiError
from device_api_device_plugin._proto import deviceplugin_pb2 as pb
from device_api_device_plugin._proto.deviceplugin_pb2_grpc import DevicePluginServicer
from device_api_device_plugin.devices import Device, Inventory, devices_of
from device_api_device_plugin.settings import DeviceList, Settings

logger = logging.getLogger(__name__)

HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"


class Service(DevicePluginServicer):
    """Advertises the inventory and hands out healthy devices. Preferred allocations and a call
    before each start of a container are not offered, as the options say."""

    def __init__(self, settings: Settings, clients: AsyncClientset, inventory: Inventory) -> None:
        self._settings = settings
        self._gpus = clients.v1alpha1.gpus
        self._inventory = inventory
        self.watchers = 0
        """Streams of ListAndWatch that are open."""

    async def GetDevicePluginOptions(  # noqa: N802
        self, request: pb.Empty, context: Any
    ) -> pb.DevicePluginOptions:
        """Nothing optional is offered."""
        return pb.DevicePluginOptions()

    async def ListAndWatch(  # noqa: N802
        self, request: pb.Empty, context: Any
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        """Every device, at once and after every change."""
        self.watchers += 1
        logger.info("the kubelet watches the devices")
        try:
            async for devices in self._inventory.changes():
                yield pb.ListAndWatchResponse(devices=map(_message, devices))
        finally:
            self.watchers -= 1
            logger.info("the kubelet no longer watches the devices")

    async def Allocate(  # noqa: N802
        self, request: pb.AllocateRequest, context: Any
    ) -> pb.AllocateResponse:
        """How the containers get at their devices, if each is healthy at this moment.

        The Device API is asked, not the inventory: while a provider finds out what a fault means,
        that call waits, and the store would still say what was true before.
        """
        asked = [tuple(container.devices_ids) for container in request.container_requests]
        try:
            listed = await self._gpus.list()
        except DeviceApiError as error:
            message = f"the Device API does not say how the devices are: {error}"
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, message)
            raise AssertionError("refusing raises") from error
        known = {device.id: device for device in devices_of(listed.items)}
        for id_ in (id_ for ids in asked for id_ in ids):
            await self._require_healthy(context, id_, known.get(id_))
        logger.info("devices allocated", extra={"devices": [list(ids) for ids in asked]})
        return pb.AllocateResponse(container_responses=map(self._access, asked))

    async def GetPreferredAllocation(  # noqa: N802
        self, request: pb.PreferredAllocationRequest, context: Any
    ) -> pb.PreferredAllocationResponse:
        """Not offered."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no allocation is preferred")
        raise AssertionError("aborting raises")

    async def PreStartContainer(  # noqa: N802
        self, request: pb.PreStartContainerRequest, context: Any
    ) -> pb.PreStartContainerResponse:
        """Nothing has to be prepared."""
        return pb.PreStartContainerResponse()

    def end_streams(self) -> None:
        """End every ListAndWatch, in good order."""
        self._inventory.close()

    async def _require_healthy(self, context: Any, id_: str, device: Device | None) -> None:
        if device is None:
            message = f'the Device API knows no device "{id_}"'
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, message)
        elif not device.healthy:
            message = f'device "{id_}" is unhealthy: {device.reason}'
            await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, message)

    async def _refuse(self, context: Any, code: grpc.StatusCode, message: str) -> None:
        logger.warning("allocation refused", extra={"why": message})
        await context.abort(code, message)

    def _access(self, ids: Sequence[str]) -> pb.ContainerAllocateResponse:
        if self._settings.device_list is DeviceList.CDI:
            names = (f"{self._settings.cdi_kind}={id_}" for id_ in ids)
            return pb.ContainerAllocateResponse(
                cdi_devices=[pb.CDIDevice(name=name) for name in names]
            )
        return pb.ContainerAllocateResponse(envs={VISIBLE_DEVICES: ",".join(ids)})


def _message(device: Device) -> pb.Device:
    return pb.Device(ID=device.id, health=HEALTHY if device.healthy else UNHEALTHY)
