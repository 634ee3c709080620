"""The operator's service ``device_api.admin.v1``: its calls, for threads.

None of the acts is repeated after a failure: each takes back what somebody said, and in between
somebody may have said it anew.
"""

from __future__ import annotations

from device_api_core._proto import admin_pb2 as pb
from device_api_core.client.calls import Unary, method
from device_api_core.client.endpoint import Caller
from device_api_core.client.operations import (
    Event,
    Forgotten,
    ProviderInfo,
    ProviderList,
    ServerInfo,
    event_from_proto,
    event_to_proto,
    provider_from_proto,
    provider_to_proto,
    server_from_proto,
    server_to_proto,
)

__all__ = [
    "Admin",
    "Event",
    "Forgotten",
    "ProviderInfo",
    "ProviderList",
    "ServerInfo",
    "event_from_proto",
    "event_to_proto",
    "provider_from_proto",
    "provider_to_proto",
    "server_from_proto",
    "server_to_proto",
]

_SERVICE = pb.DESCRIPTOR.services_by_name["Admin"]


def list_providers() -> Unary[ProviderList]:
    """See :meth:`Admin.list_providers`; so the functions below."""

    def convert(response: pb.ListProvidersResponse) -> ProviderList:
        providers = sorted(map(provider_from_proto, response.providers), key=lambda p: p.name)
        return ProviderList(tuple(providers), server_from_proto(response.server))

    request = pb.ListProvidersRequest()
    return Unary(method(_SERVICE, "ListProviders"), request, convert, idempotent=True)


def clear_condition(gpu_name: str, type: str) -> Unary[int]:
    request = pb.ClearConditionRequest(gpu_name=gpu_name, type=type)
    return Unary(method(_SERVICE, "ClearCondition"), request, lambda r: r.resource_version)


def forget_provider(provider_id: str) -> Unary[Forgotten]:
    request = pb.ForgetProviderRequest(provider_id=provider_id)
    call = method(_SERVICE, "ForgetProvider")
    return Unary(call, request, lambda r: Forgotten(r.gpus, r.conditions))


def forget_gpu(name: str) -> Unary[bool]:
    return Unary(method(_SERVICE, "ForgetGpu"), pb.ForgetGpuRequest(name=name), lambda r: r.deleted)


def list_events(gpu_name: str, provider_id: str, limit: int) -> Unary[tuple[Event, ...]]:
    return Unary(
        method(_SERVICE, "ListEvents"),
        pb.ListEventsRequest(gpu_name=gpu_name, provider_id=provider_id, limit=limit),
        lambda r: tuple(map(event_from_proto, r.events)),
        idempotent=True,
    )


class Admin:
    """What an operator may ask and do. Served on the providers' socket only."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list_providers(self) -> ProviderList:
        """Every provider that is installed, runs or has reported, and the server's own state."""
        return self._caller.call(list_providers())

    def clear_condition(self, gpu_name: str, type: str) -> int:
        """Take back a condition that is False or Unknown. Returns the GPU's version. Raises
        ``NotFound``, or ``Conflict`` if it is True or the computed Ready."""
        return self._caller.call(clear_condition(gpu_name, type))

    def forget_provider(self, provider_id: str) -> Forgotten:
        """Remove all that a provider left behind. Raises ``NotFound``, or ``Conflict`` if the
        server runs it at present."""
        return self._caller.call(forget_provider(provider_id))

    def forget_gpu(self, name: str) -> bool:
        """Remove a GPU with all that was said of it. Returns whether it existed."""
        return self._caller.call(forget_gpu(name))

    def list_events(
        self, *, gpu_name: str = "", provider_id: str = "", limit: int = 0
    ) -> tuple[Event, ...]:
        """The events that the server keeps, oldest first; at most the ``limit`` newest ones."""
        return self._caller.call(list_events(gpu_name, provider_id, limit))
