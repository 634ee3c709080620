"""GpuService and ProviderService as plain async methods: bytes in, bytes out.

Each handler decodes, checks, calls the cache or the intake once, and encodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from device_api_core import codec
from device_api_core._proto import gpu_pb2, provider_pb2
from device_api_core.cache import DeviceCache
from device_api_core.entries import SetCondition, SetStatus
from device_api_core.errors import InvalidArgument
from device_api_core.gate import ReadGate
from device_api_core.intake import Intake
from device_api_core.readiness import Readiness
from device_api_core.reservations import Reservations
from device_api_core.server.transport import Method, ServerStream, Unary
from device_api_core.validation import (
    check_condition,
    check_name,
    check_provider_id,
    check_spec,
    check_status,
)
from device_api_core.watch import Subscription, WatchHub

_GPU_SERVICE = gpu_pb2.DESCRIPTOR.services_by_name["GpuService"].full_name
_PROVIDER_SERVICE = provider_pb2.DESCRIPTOR.services_by_name["ProviderService"].full_name
_DECIMAL = re.compile(r"[0-9]+")
_MAX_VERSION = 2**63 - 1


class GpuService:
    """What consumers read. Every read waits for the updates held when it arrives."""

    def __init__(
        self, cache: DeviceCache, *, hub: WatchHub, gate: ReadGate, readiness: Readiness
    ) -> None:
        self._cache = cache
        self._hub = hub
        self._gate = gate
        self._readiness = readiness

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method table."""
        return (
            Unary(_GPU_SERVICE, "GetGpu", self.get_gpu),
            Unary(_GPU_SERVICE, "ListGpus", self.list_gpus),
            ServerStream(_GPU_SERVICE, "WatchGpus", self.watch_gpus),
        )

    async def get_gpu(self, data: bytes) -> bytes:
        """One GPU by its exact name."""
        request = codec.decode(gpu_pb2.GetGpuRequest, data)
        check_name(request.name)
        self._readiness.require()
        await self._gate.passage()
        return self._cache.get(request.name).get_response

    async def list_gpus(self, data: bytes) -> bytes:
        """All GPUs, as one snapshot."""
        codec.decode(gpu_pb2.ListGpusRequest, data)
        self._readiness.require()
        await self._gate.passage()
        return self._cache.list_response()

    async def watch_gpus(self, data: bytes) -> Subscription:
        """The snapshot and then every change, or every change after a version."""
        options = codec.decode(gpu_pb2.WatchGpusRequest, data).opts
        since = _parse_version(options.resource_version)
        if since is not None and options.send_initial_events:
            raise InvalidArgument(
                "opts.send_initial_events",
                "cannot be combined with a resource_version: initial events are the current state",
            )
        self._readiness.require()
        bookmarks = options.allow_watch_bookmarks
        if since is not None:
            return self._hub.subscribe((), since=since, bookmarks=bookmarks)
        await self._gate.passage()
        return self._hub.subscribe(
            self._cache.snapshot_events(),
            bookmarks=bookmarks,
            bookmark_initial=bookmarks and options.send_initial_events,
        )


class ProviderService:
    """What remote providers write."""

    def __init__(self, cache: DeviceCache, *, intake: Intake, reservations: Reservations) -> None:
        self._cache = cache
        self._intake = intake
        self._reservations = reservations

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method table."""
        return tuple(
            Unary(_PROVIDER_SERVICE, name, call)
            for name, call in (
                ("RegisterGpu", self.register_gpu),
                ("UnregisterGpu", self.unregister_gpu),
                ("UpdateGpuStatus", self.update_gpu_status),
                ("UpdateGpuCondition", self.update_gpu_condition),
                ("Heartbeat", self.heartbeat),
            )
        )

    async def register_gpu(self, data: bytes) -> bytes:
        """Make a GPU known; idempotent."""
        request = codec.decode(provider_pb2.RegisterGpuRequest, data)
        provider_id = request.provider_id
        check_name(request.name)
        check_provider_id(provider_id)
        spec = codec.decode_spec(request.spec)
        check_spec(spec)
        initial = codec.decode_status(request.initial_status, provider_id, "initial_status")
        check_status(initial, "initial_status")
        self._reservations.check(provider_id, initial.conditions)
        created, version = self._intake.register(provider_id, request.name, spec, initial)
        return provider_pb2.RegisterGpuResponse(
            created=created, resource_version=version
        ).SerializeToString()

    async def unregister_gpu(self, data: bytes) -> bytes:
        """Withdraw one provider, or remove the GPU whole when none is named."""
        request = codec.decode(provider_pb2.UnregisterGpuRequest, data)
        check_name(request.name)
        check_provider_id(request.provider_id)
        if request.provider_id:
            self._reservations.check(request.provider_id, ())
            deleted = self._intake.withdraw(request.provider_id, request.name)
        else:
            deleted = self._cache.unregister(request.name)
        return provider_pb2.UnregisterGpuResponse(deleted=deleted).SerializeToString()

    async def update_gpu_status(self, data: bytes) -> bytes:
        """Replace the caller's conditions and action; a missing status clears them."""
        request = codec.decode(provider_pb2.UpdateGpuStatusRequest, data)
        check_name(request.name)
        check_provider_id(request.provider_id)
        status = codec.decode_status(request.status, request.provider_id, "status")
        check_status(status)
        self._reservations.check(request.provider_id, status.conditions)
        change = SetStatus(request.name, status.conditions, status.recommended_action)
        version = self._intake.apply(request.provider_id, [change])[request.name]
        return provider_pb2.UpdateGpuStatusResponse(resource_version=version).SerializeToString()

    async def update_gpu_condition(self, data: bytes) -> bytes:
        """Set one condition."""
        request = codec.decode(provider_pb2.UpdateGpuConditionRequest, data)
        check_name(request.name)
        check_provider_id(request.provider_id)
        if not request.HasField("condition"):
            raise InvalidArgument("condition", "is required")
        condition = codec.decode_condition(request.condition, request.provider_id, "condition")
        check_condition(condition)
        self._reservations.check(request.provider_id, (condition,))
        change = SetCondition(request.name, condition)
        version = self._intake.apply(request.provider_id, [change])[request.name]
        return provider_pb2.UpdateGpuConditionResponse(resource_version=version).SerializeToString()

    async def heartbeat(self, data: bytes) -> bytes:
        """Renew the caller's lease."""
        request = codec.decode(provider_pb2.HeartbeatRequest, data)
        check_provider_id(request.provider_id)
        if not request.provider_id:
            raise InvalidArgument("provider_id", "must not be empty")
        self._reservations.check(request.provider_id, ())
        _check_names(request.gpu_names)
        acknowledged = self._intake.heartbeat(request.provider_id, request.gpu_names)
        return provider_pb2.HeartbeatResponse(acknowledged=acknowledged).SerializeToString()


def _check_names(names: Iterable[str]) -> None:
    for i, name in enumerate(names):
        check_name(name, f"gpu_names[{i}]")


def _parse_version(text: str) -> int | None:
    """``None`` for "from the current state", which is what no version, "" and "0" mean."""
    if text in {"", "0"}:
        return None
    if not _DECIMAL.fullmatch(text) or len(text) > len(str(_MAX_VERSION)):
        raise InvalidArgument(
            "opts.resource_version",
            f"must be a decimal version from a list or event, not {text[:64]!r}",
        )
    version = int(text)
    if version > _MAX_VERSION:
        raise InvalidArgument("opts.resource_version", f"{text} does not fit 63 bits")
    return version
