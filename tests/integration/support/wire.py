"""Short names for calling the three services through the generated stubs."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from device_api_core._proto import (
    admin_pb2,
    admin_pb2_grpc,
    gpu_pb2,
    gpu_pb2_grpc,
    provider_pb2_grpc,
)
from device_api_core._proto import provider_pb2 as provider_pb2

DEADLINE = 10.0
"""Seconds that a call may take before a test fails; none comes near it."""

GPU_SERVICE = "nvidia.device.v1alpha1.GpuService"
PROVIDER_SERVICE = "nvidia.device.v1alpha1.ProviderService"
ADMIN_SERVICE = "device_api.admin.v1.Admin"

METHODS = {
    method.name: f"/{service.full_name}/{method.name}"
    for file in (gpu_pb2, provider_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every method's path, by its name."""


def condition(type_: str, status: str = "True", **fields: Any) -> gpu_pb2.Condition:
    return gpu_pb2.Condition(type=type_, status=status, **fields)


def status_of(gpu: gpu_pb2.Gpu, type_: str = "Ready") -> gpu_pb2.Condition:
    """The condition of that type; fails if there is none."""
    return next(c for c in gpu.status.conditions if c.type == type_)


class Api:
    """All stubs on one channel, with the calls tests make most."""

    def __init__(self, target: str) -> None:
        # Each test client has a connection of its own, as separate programs have.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(target, options=options)
        self.gpus = gpu_pb2_grpc.GpuServiceStub(self.channel)
        self.providers = provider_pb2_grpc.ProviderServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def raw(self, method: str, data: bytes, *, stream: bool = False) -> Any:
        """Call a method by name with bytes; returns bytes, or all messages of a stream."""
        path = METHODS.get(method, method)
        if stream:
            return list(self.channel.unary_stream(path)(data, timeout=DEADLINE))
        return self.channel.unary_unary(path)(data, timeout=DEADLINE)

    def register(
        self, name: str, provider_id: str = "", **fields: Any
    ) -> provider_pb2.RegisterGpuResponse:
        request = provider_pb2.RegisterGpuRequest(name=name, provider_id=provider_id, **fields)
        return self.providers.RegisterGpu(request, timeout=DEADLINE)

    def unregister(self, name: str, provider_id: str = "") -> bool:
        request = provider_pb2.UnregisterGpuRequest(name=name, provider_id=provider_id)
        return bool(self.providers.UnregisterGpu(request, timeout=DEADLINE).deleted)

    def set(
        self, name: str, type_: str, status: str = "True", provider_id: str = "", **fields: Any
    ) -> int:
        request = provider_pb2.UpdateGpuConditionRequest(
            name=name, provider_id=provider_id, condition=condition(type_, status, **fields)
        )
        response = self.providers.UpdateGpuCondition(request, timeout=DEADLINE)
        return int(response.resource_version)

    def set_status(
        self,
        name: str,
        *conditions: gpu_pb2.Condition,
        provider_id: str = "",
        recommended_action: str = "",
    ) -> int:
        status = gpu_pb2.GpuStatus(conditions=conditions, recommended_action=recommended_action)
        request = provider_pb2.UpdateGpuStatusRequest(
            name=name, provider_id=provider_id, status=status
        )
        response = self.providers.UpdateGpuStatus(request, timeout=DEADLINE)
        return int(response.resource_version)

    def heartbeat(self, provider_id: str, *names: str) -> bool:
        request = provider_pb2.HeartbeatRequest(provider_id=provider_id, gpu_names=names)
        return bool(self.providers.Heartbeat(request, timeout=DEADLINE).acknowledged)

    def get(self, name: str, timeout: float = DEADLINE) -> gpu_pb2.Gpu:
        return self.gpus.GetGpu(gpu_pb2.GetGpuRequest(name=name), timeout=timeout).gpu

    def list(self, timeout: float = DEADLINE) -> gpu_pb2.GpuList:
        return self.gpus.ListGpus(gpu_pb2.ListGpusRequest(), timeout=timeout).gpu_list

    def watch(self, version: str = "", timeout: float = 30.0, **options: Any) -> Watching:
        request = gpu_pb2.WatchGpusRequest(
            opts=gpu_pb2.ListOptions(resource_version=version, **options)
        )
        return Watching(self.gpus.WatchGpus(request, timeout=timeout))

    def hold(self, provider_id: str, *gpus: str) -> Any:
        """Hold an update through the stream for providers elsewhere; reads wait when it returns.
        Cancelling it aborts the update."""
        begin = provider_pb2.BeginUpdate(provider_id=provider_id, gpu_names=gpus)
        requests: queue.SimpleQueue[provider_pb2.UpdateRequest | None] = queue.SimpleQueue()
        requests.put(provider_pb2.UpdateRequest(begin=begin))
        call = self.providers.Update(iter(requests.get, None), timeout=30)
        call.add_callback(lambda: requests.put(None))
        assert next(call).held
        return call

    def clear(self, gpu: str, type_: str) -> int:
        request = admin_pb2.ClearConditionRequest(gpu_name=gpu, type=type_)
        return int(self.admin.ClearCondition(request, timeout=DEADLINE).resource_version)

    def list_providers(self) -> admin_pb2.ListProvidersResponse:
        return self.admin.ListProviders(admin_pb2.ListProvidersRequest(), timeout=DEADLINE)

    def provider(self, name: str) -> admin_pb2.Provider:
        """One provider's row; fails if there is none."""
        return next(p for p in self.list_providers().providers if p.name == name)

    def events(self, **filters: Any) -> list[admin_pb2.Event]:
        request = admin_pb2.ListEventsRequest(**filters)
        return list(self.admin.ListEvents(request, timeout=DEADLINE).events)


class Watching:
    """An open watch: take events one by one."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __iter__(self) -> Iterator[gpu_pb2.WatchGpusResponse]:
        return iter(self.call)

    def next(self) -> gpu_pb2.WatchGpusResponse:
        return next(self.call)

    def take(self, count: int) -> list[gpu_pb2.WatchGpusResponse]:
        return [self.next() for _ in range(count)]

    def until(self, version: int) -> list[gpu_pb2.WatchGpusResponse]:
        """Every event up to and including the one with that version."""
        events = [self.next()]
        while events[-1].object.resource_version < version:
            events.append(self.next())
        return events

    def ended(self) -> grpc.RpcError:
        """Read to the end; returns the error that ended the stream."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return error
        raise AssertionError("the watch ended without an error")

    def cancel(self) -> None:
        self.call.cancel()


def reason_of(error: grpc.RpcError) -> str:
    """The ``device-api-reason`` in the trailing metadata, or ''."""
    return dict(error.trailing_metadata() or ()).get("device-api-reason", "")
