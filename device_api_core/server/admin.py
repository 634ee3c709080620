"""The admin service: what `device-api providers`, `clear`, `forget` and `events` use.

Served on the provider socket only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from device_api_core import codec
from device_api_core._proto import admin_pb2
from device_api_core.cache import DeviceCache
from device_api_core.conversion import NANOS, timestamp
from device_api_core.errors import Conflict, NotFound
from device_api_core.events import Event, EventLog, Kind
from device_api_core.intake import Intake
from device_api_core.readiness import Readiness
from device_api_core.roster import ProviderStatus, Roster
from device_api_core.server.transport import Unary, kept_first
from device_api_core.validation import check_name, check_provider_id, check_type

_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name


class ServerFacts(NamedTuple):
    """Who answers: version, node name, start time in nanoseconds since the Unix epoch."""

    version: str
    node_name: str
    started: int


class Admin:
    """Operator's acts. ``tell_cleared`` passes an act on to the plugin that owns the condition."""

    def __init__(
        self,
        cache: DeviceCache,
        *,
        intake: Intake,
        roster: Roster,
        events: EventLog,
        readiness: Readiness,
        facts: ServerFacts,
        tell_cleared: Callable[[str, str, str], None],
    ) -> None:
        self._cache = cache
        self._intake = intake
        self._roster = roster
        self._events = events
        self._readiness = readiness
        self._facts = facts
        self._tell_cleared = tell_cleared

    @property
    def methods(self) -> tuple[Unary, ...]:
        """The method table."""
        acts = (
            ("ClearCondition", self.clear_condition),
            ("ForgetProvider", self.forget_provider),
            ("ForgetGpu", self.forget_gpu),
        )
        saving = self._intake.saving
        return (
            Unary(_SERVICE, "ListProviders", self.list_providers),
            *(Unary(_SERVICE, name, kept_first(call, saving), writes=True) for name, call in acts),
            Unary(_SERVICE, "ListEvents", self.list_events),
        )

    async def list_providers(self, data: bytes) -> bytes:
        """Every provider, and the server itself."""
        codec.decode(admin_pb2.ListProvidersRequest, data)
        response = admin_pb2.ListProvidersResponse(
            providers=[_provider(p) for p in await self._roster.statuses()],
            server=admin_pb2.ServerInfo(
                version=self._facts.version,
                node_name=self._facts.node_name,
                started=timestamp(self._facts.started),
                resource_version=self._cache.version,
                ready=self._readiness.ready,
                waiting_for=self._readiness.waiting_for,
            ),
        )
        return response.SerializeToString()

    async def clear_condition(self, data: bytes) -> bytes:
        """Turn a fault into Unknown and have its provider look again."""
        request = codec.decode(admin_pb2.ClearConditionRequest, data)
        check_name(request.gpu_name, "gpu_name")
        check_type(request.type, "type")
        version, owner = self._cache.clear(request.gpu_name, request.type)
        self._events.record(
            Kind.OPERATOR,
            "ConditionCleared",
            f"an operator cleared {request.type}",
            gpu=request.gpu_name,
            provider_id=owner,
            warning=True,
        )
        self._tell_cleared(owner, request.gpu_name, request.type)
        return admin_pb2.ClearConditionResponse(resource_version=version).SerializeToString()

    async def forget_provider(self, data: bytes) -> bytes:
        """Drop everything a provider said, its faults included."""
        request = codec.decode(admin_pb2.ForgetProviderRequest, data)
        check_provider_id(request.provider_id)
        if self._roster.runs(request.provider_id):
            raise Conflict(
                f"provider {request.provider_id} is a plugin that this server runs: start the "
                "server without it first"
            )
        if not self._intake.knows(request.provider_id):
            raise NotFound(f"provider {request.provider_id or '(anonymous)'} is not known")
        gpus, conditions = self._intake.forget(request.provider_id)
        return admin_pb2.ForgetProviderResponse(
            gpus=gpus, conditions=conditions
        ).SerializeToString()

    async def forget_gpu(self, data: bytes) -> bytes:
        """Remove a GPU whole."""
        request = codec.decode(admin_pb2.ForgetGpuRequest, data)
        check_name(request.name)
        deleted = self._cache.unregister(request.name)
        return admin_pb2.ForgetGpuResponse(deleted=deleted).SerializeToString()

    async def list_events(self, data: bytes) -> bytes:
        """The newest events, oldest first."""
        request = codec.decode(admin_pb2.ListEventsRequest, data)
        found = self._events.newest(
            gpu=request.gpu_name, provider_id=request.provider_id, limit=request.limit
        )
        return admin_pb2.ListEventsResponse(events=[_event(e) for e in found]).SerializeToString()


def _provider(status: ProviderStatus) -> admin_pb2.Provider:
    message = admin_pb2.Provider(
        name=status.name,
        home=status.home,
        state=status.state,
        state_reason=status.state_reason,
        distribution=status.distribution,
        version=status.version,
        entry_point=status.entry_point,
        contract_version=status.contract_version,
        restarts=status.restarts,
        gpus=status.gpus,
        synced=status.synced,
        summary=status.summary,
        condition_types=status.types,
    )
    if status.last_heard is not None:
        message.last_sign_of_life.CopyFrom(timestamp(status.last_heard))
    if status.lease_seconds is not None:
        message.lease.FromNanoseconds(int(status.lease_seconds * NANOS))
    return message


def _event(event: Event) -> admin_pb2.Event:
    return admin_pb2.Event(
        sequence=event.sequence,
        time=timestamp(event.time),
        severity="Warning" if event.warning else "Normal",
        reason=event.reason,
        gpu_name=event.gpu,
        provider_id=event.provider_id,
        message=event.message,
    )
