"""What providers write, and its calls for threads.

Which writes are repeated when the connection breaks, so that nobody knows whether they happened:

======================= === =======================================================================
``register``            yes a known GPU is merged with what it was registered with; only
                            ``created`` may then be ``False`` for a GPU that this call made known
``update_status``       yes it replaces what this provider said with the same; versions and
``update_condition``    yes transition times move only with a change, so the second one is none
``heartbeat``           yes it says "alive" once more
``unregister``          no  its answer is whether *this* call removed the GPU, and in between the
                            GPU may have been registered anew, which a repeat would undo
``update`` (held)       no  a broken stream has aborted it, which is its meaning
======================= === =======================================================================

They suppose what the server supposes too: that one provider id is one writer at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from device_api_core._proto import provider_pb2 as pb
from device_api_core._proto.provider_pb2_grpc import ProviderServiceStub
from device_api_core.client.calls import Unary, method
from device_api_core.client.endpoint import Caller, Endpoint
from device_api_core.client.errors import NotServed
from device_api_core.client.update import HeldUpdate
from device_api_core.conversion import (
    condition_to_proto,
    gpu_spec_to_proto,
    gpu_status_to_proto,
    numbers_to_proto,
)
from device_api_core.resources import Condition, GpuSpec, GpuStatus
from device_api_core.series import Numbers

_SERVICE = pb.DESCRIPTOR.services_by_name["ProviderService"]


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of a registration: whether the GPU is new, and its version."""

    created: bool
    resource_version: int


def register(
    name: str, spec: GpuSpec | None, provider_id: str, initial_status: GpuStatus | None
) -> Unary[Registration]:
    """See :meth:`Providers.register`; so the functions below."""
    request = pb.RegisterGpuRequest(
        name=name,
        spec=gpu_spec_to_proto(spec) if spec is not None else None,
        provider_id=provider_id,
        initial_status=gpu_status_to_proto(initial_status) if initial_status is not None else None,
    )
    return Unary(
        method(_SERVICE, "RegisterGpu"),
        request,
        lambda r: Registration(r.created, r.resource_version),
        idempotent=True,
    )


def unregister(name: str, provider_id: str) -> Unary[bool]:
    request = pb.UnregisterGpuRequest(name=name, provider_id=provider_id)
    return Unary(method(_SERVICE, "UnregisterGpu"), request, lambda r: r.deleted)


def update_status(name: str, status: GpuStatus, provider_id: str) -> Unary[int]:
    request = pb.UpdateGpuStatusRequest(
        name=name, status=gpu_status_to_proto(status), provider_id=provider_id
    )
    call = method(_SERVICE, "UpdateGpuStatus")
    return Unary(call, request, lambda r: r.resource_version, idempotent=True)


def update_condition(
    name: str, condition: Condition, provider_id: str, recommended_action: str | None
) -> Unary[int]:
    request = pb.UpdateGpuConditionRequest(
        name=name,
        condition=condition_to_proto(condition),
        provider_id=provider_id,
        recommended_action=recommended_action,
    )
    call = method(_SERVICE, "UpdateGpuCondition")
    return Unary(call, request, lambda r: r.resource_version, idempotent=True)


@dataclass(frozen=True, slots=True)
class Life:
    """What a heartbeat says besides being one; see :meth:`Providers.heartbeat`."""

    synced: bool | None = None
    summary: str = ""
    interval_seconds: float | None = None
    numbers: Numbers | None = None


def heartbeat(provider_id: str, gpu_names: Iterable[str], life: Life) -> Unary[bool]:
    interval = None
    if life.interval_seconds is not None:
        interval = Duration()
        interval.FromNanoseconds(round(life.interval_seconds * 1e9))
    request = pb.HeartbeatRequest(
        provider_id=provider_id,
        gpu_names=gpu_names,
        synced=life.synced,
        summary=life.summary,
        interval=interval,
        numbers=numbers_to_proto(life.numbers) if life.numbers is not None else None,
    )
    return Unary(method(_SERVICE, "Heartbeat"), request, lambda r: r.acknowledged, idempotent=True)


class Providers:
    """Writes, as one provider or several. ``provider_id`` ``""`` is the anonymous one.

    Every method takes a deadline in seconds instead of the clientset's.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def register(
        self,
        name: str,
        spec: GpuSpec | None = None,
        *,
        provider_id: str = "",
        initial_status: GpuStatus | None = None,
        timeout_seconds: float | None = None,
    ) -> Registration:
        """Make a GPU known, or merge the set fields of ``spec`` into a known one.

        ``initial_status`` counts only if the GPU is new. Raises ``AlreadyExists`` if the uuid
        belongs to another name.
        """
        call = register(name, spec, provider_id, initial_status)
        return self._caller.call(call, timeout_seconds)

    def unregister(
        self, name: str, *, provider_id: str = "", timeout_seconds: float | None = None
    ) -> bool:
        """Withdraw this provider from a GPU; without a provider id, remove the GPU whole. Returns
        whether the GPU is gone by this call."""
        return self._caller.call(unregister(name, provider_id), timeout_seconds)

    def update_status(
        self,
        name: str,
        status: GpuStatus,
        *,
        provider_id: str = "",
        timeout_seconds: float | None = None,
    ) -> int:
        """Replace all conditions and the action of this provider. Returns the GPU's version."""
        return self._caller.call(update_status(name, status, provider_id), timeout_seconds)

    def update_condition(
        self,
        name: str,
        condition: Condition,
        *,
        provider_id: str = "",
        recommended_action: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Set one condition, and unless it is ``None`` the action. Returns the GPU's version.
        Raises ``Conflict`` if the condition's type belongs to another provider."""
        call = update_condition(name, condition, provider_id, recommended_action)
        return self._caller.call(call, timeout_seconds)

    def update(self, provider_id: str, gpu_names: Iterable[str] = ()) -> HeldUpdate:
        """Hold an update: reads wait from when this returns until it is committed or aborted.
        ``gpu_names`` are the GPUs in doubt, none for all of this provider's. Raises
        ``LimitExceeded`` if it may hold none now."""
        if not isinstance(self._caller, Endpoint):
            raise NotServed(f"updates cannot be held at {self._caller.target}")
        stub = ProviderServiceStub(self._caller.channel)
        return HeldUpdate(stub, self._caller, provider_id, gpu_names)

    def heartbeat(
        self,
        provider_id: str,
        gpu_names: Iterable[str] = (),
        *,
        synced: bool | None = None,
        summary: str = "",
        interval_seconds: float | None = None,
        numbers: Numbers | None = None,
        timeout_seconds: float | None = None,
    ) -> bool:
        """Say that the provider lives. ``False`` means: register and report again.

        ``synced`` is whether everything was reported, ``None`` to leave that to the server;
        ``summary`` one line on what it does; ``interval_seconds`` the longest time that it means
        to be silent; ``numbers`` what it has counted and shows, ``None`` for no change.
        """
        life = Life(synced, summary, interval_seconds, numbers)
        call = heartbeat(provider_id, gpu_names, life)
        return self._caller.call(call, timeout_seconds)
