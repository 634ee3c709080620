"""The services of ``nvidia.device.v1alpha1``: reading GPUs, and reporting on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from device_api_core._proto import gpu_pb2 as pb
from device_api_core._proto import provider_pb2 as provider_pb
from device_api_core._proto.gpu_pb2_grpc import GpuServiceStub
from device_api_core._proto.provider_pb2_grpc import ProviderServiceStub
from device_api_core.client.convert import (
    as_json,
    condition_to_proto,
    gpu_from_proto,
    gpu_to_proto,
    parse_version,
    spec_to_proto,
    status_to_proto,
)
from device_api_core.client.endpoint import Endpoint
from device_api_core.client.watch import Watch
from device_api_core.resources import Condition, Gpu, GpuSpec, GpuStatus


@dataclass(frozen=True, slots=True)
class GpuList:
    """A snapshot of all GPUs. A watch from ``resource_version`` continues it without a gap."""

    items: tuple[Gpu, ...]
    resource_version: int

    def as_json(self) -> dict[str, Any]:
        """The list in the API's JSON form; ``items`` is there even if it is empty."""
        message = pb.GpuList(
            metadata=pb.ListMeta(resource_version=str(self.resource_version)),
            items=[gpu_to_proto(gpu) for gpu in self.items],
        )
        return {"metadata": {}, "items": [], **as_json(message)}


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of a registration: whether the GPU is new, and its version."""

    created: bool
    resource_version: int


class Gpus:
    """Reads. Every method raises ``Unavailable`` while the server does not know its GPUs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stub = GpuServiceStub(endpoint.channel)

    def get(self, name: str) -> Gpu:
        """One GPU by its exact name. Raises ``NotFound``."""
        response = self._endpoint.call(self._stub.GetGpu, pb.GetGpuRequest(name=name))
        return gpu_from_proto(response.gpu)

    def list(self) -> GpuList:
        """All GPUs, sorted by name."""
        response = self._endpoint.call(self._stub.ListGpus, pb.ListGpusRequest())
        gpus = sorted(map(gpu_from_proto, response.gpu_list.items), key=lambda gpu: gpu.name)
        return GpuList(tuple(gpus), parse_version(response.gpu_list.metadata.resource_version))

    def watch(
        self,
        resource_version: int | None = None,
        *,
        allow_bookmarks: bool = False,
        send_initial_events: bool = False,
    ) -> Watch:
        """Changes from now on, preceded by the present GPUs as ``ADDED``; or, with a version of
        this server, exactly the changes after it.

        The stream has no deadline. Errors appear when it is iterated.
        """
        options = pb.ListOptions(
            resource_version=str(resource_version) if resource_version else "",
            allow_watch_bookmarks=allow_bookmarks,
            send_initial_events=send_initial_events,
        )
        stream = self._stub.WatchGpus(pb.WatchGpusRequest(opts=options), wait_for_ready=False)
        return Watch(stream, self._endpoint)


class Providers:
    """Writes, as one provider or several. ``provider_id`` ``""`` is the anonymous one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stub = ProviderServiceStub(endpoint.channel)

    def register(
        self,
        name: str,
        spec: GpuSpec | None = None,
        *,
        provider_id: str = "",
        initial_status: GpuStatus | None = None,
    ) -> Registration:
        """Make a GPU known, or merge the set fields of ``spec`` into a known one.

        ``initial_status`` counts only if the GPU is new. Raises ``AlreadyExists`` if the uuid
        belongs to another name.
        """
        request = provider_pb.RegisterGpuRequest(
            name=name,
            spec=spec_to_proto(spec) if spec is not None else None,
            provider_id=provider_id,
            initial_status=status_to_proto(initial_status) if initial_status is not None else None,
        )
        response = self._endpoint.call(self._stub.RegisterGpu, request)
        return Registration(response.created, response.resource_version)

    def unregister(self, name: str, *, provider_id: str = "") -> bool:
        """Withdraw this provider from a GPU; without a provider id, remove the GPU whole. Returns
        whether the GPU is gone by this call."""
        request = provider_pb.UnregisterGpuRequest(name=name, provider_id=provider_id)
        return self._endpoint.call(self._stub.UnregisterGpu, request).deleted

    def update_status(self, name: str, status: GpuStatus, *, provider_id: str = "") -> int:
        """Replace all conditions and the action of this provider. Returns the GPU's version."""
        request = provider_pb.UpdateGpuStatusRequest(
            name=name, status=status_to_proto(status), provider_id=provider_id
        )
        return self._endpoint.call(self._stub.UpdateGpuStatus, request).resource_version

    def update_condition(self, name: str, condition: Condition, *, provider_id: str = "") -> int:
        """Set one condition. Returns the GPU's version. Raises ``Conflict`` if its type belongs
        to another provider."""
        request = provider_pb.UpdateGpuConditionRequest(
            name=name, condition=condition_to_proto(condition), provider_id=provider_id
        )
        return self._endpoint.call(self._stub.UpdateGpuCondition, request).resource_version

    def heartbeat(self, provider_id: str, gpu_names: Iterable[str] = ()) -> bool:
        """Say that the provider lives. ``False`` means: register and report again."""
        request = provider_pb.HeartbeatRequest(provider_id=provider_id, gpu_names=gpu_names)
        return self._endpoint.call(self._stub.Heartbeat, request).acknowledged


class V1Alpha1:
    """The group ``v1alpha1``: ``gpus`` on the consumers' endpoint, ``providers`` on the
    providers' one."""

    def __init__(self, consumers: Endpoint, providers: Endpoint) -> None:
        self.gpus = Gpus(consumers)
        self.providers = Providers(providers)
