"""The operator's service ``device_api.admin.v1``: its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from device_api_core._proto import admin_pb2 as pb
from device_api_core.client.convert import as_json
from device_api_core.conversion import NANOS, nanoseconds, timestamp


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One source of health reports. ``state`` is available, error, starting, running, silent,
    failed, stopped or lost; ``home`` is thread, process, remote or empty. Times are nanoseconds
    since the Unix epoch; ``None`` means never, or no lease."""

    name: str
    home: str = ""
    state: str = ""
    state_reason: str = ""
    distribution: str = ""
    version: str = ""
    entry_point: str = ""
    contract_version: int = 0
    restarts: int = 0
    gpus: int = 0
    last_sign_of_life: int | None = None
    lease_seconds: float | None = None
    synced: bool = False
    summary: str = ""
    condition_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server that answered. ``waiting_for`` says what keeps it from being ready."""

    version: str = ""
    node_name: str = ""
    started: int | None = None
    resource_version: int = 0
    ready: bool = False
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class ProviderList:
    """All providers, sorted by name, and the server, ``None`` where no server was asked."""

    providers: tuple[ProviderInfo, ...]
    server: ServerInfo | None = None

    def as_json(self) -> dict[str, Any]:
        """The list in the API's JSON form, zeros and empty texts included."""
        message = pb.ListProvidersResponse(
            providers=[provider_to_proto(provider) for provider in self.providers],
            server=server_to_proto(self.server) if self.server is not None else None,
        )
        return as_json(message, defaults=True)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``severity`` is Normal or Warning, ``time`` in nanoseconds."""

    sequence: int
    time: int | None
    severity: str
    reason: str
    gpu_name: str = ""
    provider_id: str = ""
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """The event in the API's JSON form."""
        return as_json(event_to_proto(self))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What forgetting a provider removed: GPUs touched, and conditions."""

    gpus: int
    conditions: int


def provider_from_proto(message: pb.Provider) -> ProviderInfo:
    """One provider as the server sent it."""
    return ProviderInfo(
        name=message.name,
        home=message.home,
        state=message.state,
        state_reason=message.state_reason,
        distribution=message.distribution,
        version=message.version,
        entry_point=message.entry_point,
        contract_version=message.contract_version,
        restarts=message.restarts,
        gpus=message.gpus,
        last_sign_of_life=nanoseconds(message.last_sign_of_life)
        if message.HasField("last_sign_of_life")
        else None,
        lease_seconds=message.lease.ToNanoseconds() / NANOS if message.HasField("lease") else None,
        synced=message.synced,
        summary=message.summary,
        condition_types=tuple(message.condition_types),
    )


def provider_to_proto(provider: ProviderInfo) -> pb.Provider:
    """The message of one provider."""
    return pb.Provider(
        name=provider.name,
        home=provider.home,
        state=provider.state,
        state_reason=provider.state_reason,
        distribution=provider.distribution,
        version=provider.version,
        entry_point=provider.entry_point,
        contract_version=provider.contract_version,
        restarts=provider.restarts,
        gpus=provider.gpus,
        last_sign_of_life=_timestamp(provider.last_sign_of_life),
        lease=_duration(provider.lease_seconds),
        synced=provider.synced,
        summary=provider.summary,
        condition_types=provider.condition_types,
    )


def server_from_proto(message: pb.ServerInfo) -> ServerInfo:
    """The server's state as it sent it."""
    return ServerInfo(
        version=message.version,
        node_name=message.node_name,
        started=nanoseconds(message.started) if message.HasField("started") else None,
        resource_version=message.resource_version,
        ready=message.ready,
        waiting_for=message.waiting_for,
    )


def server_to_proto(server: ServerInfo) -> pb.ServerInfo:
    """The message of the server's state."""
    return pb.ServerInfo(
        version=server.version,
        node_name=server.node_name,
        started=_timestamp(server.started),
        resource_version=server.resource_version,
        ready=server.ready,
        waiting_for=server.waiting_for,
    )


def event_from_proto(message: pb.Event) -> Event:
    """One event as the server sent it."""
    return Event(
        sequence=message.sequence,
        time=nanoseconds(message.time) if message.HasField("time") else None,
        severity=message.severity,
        reason=message.reason,
        gpu_name=message.gpu_name,
        provider_id=message.provider_id,
        message=message.message,
    )


def event_to_proto(event: Event) -> pb.Event:
    """The message of one event."""
    return pb.Event(
        sequence=event.sequence,
        time=_timestamp(event.time),
        severity=event.severity,
        reason=event.reason,
        gpu_name=event.gpu_name,
        provider_id=event.provider_id,
        message=event.message,
    )


def _timestamp(time: int | None) -> Timestamp | None:
    return None if time is None else timestamp(time)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * NANOS))
    return duration
