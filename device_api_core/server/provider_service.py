"""ProviderService as plain async methods: bytes in, bytes out.

Each handler decodes, checks, asks who may write, calls the intake once, and encodes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from device_api_core import codec
from device_api_core._proto import provider_pb2
from device_api_core.cache import DeviceCache
from device_api_core.conversion import NANOS, gpu_spec_from_proto
from device_api_core.entries import Change, SetCondition, SetStatus
from device_api_core.errors import InvalidArgument
from device_api_core.gate import Hold
from device_api_core.intake import Intake
from device_api_core.life import Life
from device_api_core.reservations import Authority
from device_api_core.server.transport import Exchange, Method, Unary, kept, kept_first
from device_api_core.validation import (
    MAX_SUMMARY_CHARS,
    check_action,
    check_condition,
    check_name,
    check_provider_id,
    check_spec,
    check_status,
)

_SERVICE = provider_pb2.DESCRIPTOR.services_by_name["ProviderService"].full_name
_MAX_INTERVAL_SECONDS = 3_600
_MAX_STAGED = 4_096


class ProviderService:
    """What providers in other processes write. ``authority`` decides who may write what."""

    def __init__(self, cache: DeviceCache, *, intake: Intake, authority: Authority) -> None:
        self._cache = cache
        self._intake = intake
        self._authority = authority

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method table."""
        calls = (
            ("RegisterGpu", self.register_gpu),
            ("UnregisterGpu", self.unregister_gpu),
            ("UpdateGpuStatus", self.update_gpu_status),
            ("UpdateGpuCondition", self.update_gpu_condition),
        )
        saving = self._intake.saving
        unary = tuple(
            Unary(_SERVICE, name, kept_first(call, saving), writes=True) for name, call in calls
        )
        beat = Unary(_SERVICE, "Heartbeat", self.heartbeat, writes=True)
        return (*unary, beat, Exchange(_SERVICE, "Update", self.update, writes=True))

    async def register_gpu(self, data: bytes) -> bytes:
        """Make a GPU known; idempotent."""
        request = codec.decode(provider_pb2.RegisterGpuRequest, data)
        provider_id = request.provider_id
        check_name(request.name)
        check_provider_id(provider_id)
        spec = gpu_spec_from_proto(request.spec)
        check_spec(spec)
        initial = codec.decode_status(request.initial_status, provider_id, "initial_status")
        check_status(initial, "initial_status")
        self._authority.check(provider_id, initial.conditions)
        created, version = self._intake.register(provider_id, request.name, spec, initial)
        return provider_pb2.RegisterGpuResponse(
            created=created, resource_version=version
        ).SerializeToString()

    async def unregister_gpu(self, data: bytes) -> bytes:
        """Withdraw one provider, or remove the GPU whole when none is named."""
        request = codec.decode(provider_pb2.UnregisterGpuRequest, data)
        check_name(request.name)
        check_provider_id(request.provider_id)
        self._authority.check(request.provider_id, ())
        if request.provider_id:
            deleted = self._intake.withdraw(request.provider_id, request.name)
        else:
            deleted = self._cache.unregister(request.name)
        return provider_pb2.UnregisterGpuResponse(deleted=deleted).SerializeToString()

    async def update_gpu_status(self, data: bytes) -> bytes:
        """Replace the caller's conditions and action; a missing status clears them."""
        request = codec.decode(provider_pb2.UpdateGpuStatusRequest, data)
        change = self._status_change(request, request.provider_id)
        version = self._intake.apply(request.provider_id, [change])[request.name]
        return provider_pb2.UpdateGpuStatusResponse(resource_version=version).SerializeToString()

    async def update_gpu_condition(self, data: bytes) -> bytes:
        """Set one condition."""
        request = codec.decode(provider_pb2.UpdateGpuConditionRequest, data)
        change = self._condition_change(request, request.provider_id)
        version = self._intake.apply(request.provider_id, [change])[request.name]
        return provider_pb2.UpdateGpuConditionResponse(resource_version=version).SerializeToString()

    async def heartbeat(self, data: bytes) -> bytes:
        """Renew the caller's lease."""
        request = codec.decode(provider_pb2.HeartbeatRequest, data)
        check_provider_id(request.provider_id)
        if not request.provider_id:
            raise InvalidArgument("provider_id", "must not be empty")
        _check_names(request.gpu_names)
        life = _life(request)
        self._authority.check(request.provider_id, ())
        acknowledged = self._intake.heartbeat(request.provider_id, request.gpu_names, life)
        return provider_pb2.HeartbeatResponse(acknowledged=acknowledged).SerializeToString()

    async def update(
        self, requests: AsyncIterator[bytes], respond: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Hold an update from the first request to the caller's half-close."""
        held: Hold | None = None
        changes: list[Change] = []
        try:
            async for data in requests:
                request = codec.decode(provider_pb2.UpdateRequest, data)
                if held is None:
                    held = self._begin(request)
                    await respond(provider_pb2.UpdateResponse(held=True).SerializeToString())
                elif request.WhichOneof("step") == "abort":
                    self._intake.abort(held, request.abort.reason or "its provider gave it up")
                    await respond(provider_pb2.UpdateResponse().SerializeToString())
                    return
                else:
                    changes.append(self._staged(request, held.provider_id, len(changes)))
            # The end of the requests looks the same for a half-close and for a broken stream. Only
            # on a broken one a response cannot be sent any more.
            await respond(provider_pb2.UpdateResponse(held=True).SerializeToString())
            versions = self._end(held, changes)
            held = None
            await kept(self._intake.saving)
        except BaseException as error:
            # A broken stream arrives here as a cancellation.
            if held is not None:
                self._intake.abort(held, str(error) or "its stream broke")
            raise
        await respond(provider_pb2.UpdateResponse(resource_versions=versions).SerializeToString())

    def _begin(self, request: provider_pb2.UpdateRequest) -> Hold:
        if request.WhichOneof("step") != "begin":
            raise InvalidArgument("begin", "an update starts with it")
        check_provider_id(request.begin.provider_id, "begin.provider_id")
        _check_names(request.begin.gpu_names, "begin.gpu_names")
        self._authority.check(request.begin.provider_id, ())
        return self._intake.hold(request.begin.provider_id, tuple(request.begin.gpu_names))

    def _end(self, held: Hold | None, changes: list[Change]) -> dict[str, int]:
        if held is None:
            raise InvalidArgument("begin", "an update starts with it")
        return self._intake.commit(held, changes)

    def _staged(self, request: provider_pb2.UpdateRequest, provider_id: str, staged: int) -> Change:
        if staged >= _MAX_STAGED:
            raise InvalidArgument("step", f"an update stages at most {_MAX_STAGED} changes")
        step = request.WhichOneof("step")
        if step == "condition":
            _check_same(request.condition.provider_id, provider_id, "condition.provider_id")
            return self._condition_change(request.condition, provider_id)
        if step == "status":
            _check_same(request.status.provider_id, provider_id, "status.provider_id")
            return self._status_change(request.status, provider_id)
        raise InvalidArgument("step", "after begin only condition, status and abort may follow")

    def _condition_change(
        self, request: provider_pb2.UpdateGpuConditionRequest, provider_id: str
    ) -> SetCondition:
        check_name(request.name)
        check_provider_id(provider_id)
        if not request.HasField("condition"):
            raise InvalidArgument("condition", "is required")
        condition = codec.decode_condition(request.condition, provider_id, "condition")
        check_condition(condition)
        action = request.recommended_action if request.HasField("recommended_action") else None
        if action is not None:
            check_action(action)
        self._authority.check(provider_id, (condition,))
        return SetCondition(request.name, condition, action)

    def _status_change(
        self, request: provider_pb2.UpdateGpuStatusRequest, provider_id: str
    ) -> SetStatus:
        check_name(request.name)
        check_provider_id(provider_id)
        status = codec.decode_status(request.status, provider_id, "status")
        check_status(status)
        self._authority.check(provider_id, status.conditions)
        return SetStatus(request.name, status.conditions, status.recommended_action)


def _life(request: provider_pb2.HeartbeatRequest) -> Life:
    if len(request.summary) > MAX_SUMMARY_CHARS:
        raise InvalidArgument("summary", f"must not exceed {MAX_SUMMARY_CHARS} characters")
    interval = None
    if request.HasField("interval"):
        interval = request.interval.seconds + request.interval.nanos / NANOS
        if not 0 < interval <= _MAX_INTERVAL_SECONDS:
            raise InvalidArgument(
                "interval", f"must be up to {_MAX_INTERVAL_SECONDS} s, not {interval}"
            )
    return Life(
        synced=request.synced if request.HasField("synced") else None,
        summary=request.summary,
        interval_seconds=interval,
        numbers=codec.decode_numbers(request.numbers) if request.HasField("numbers") else None,
    )


def _check_same(named: str, provider_id: str, field: str) -> None:
    if named and named != provider_id:
        raise InvalidArgument(field, f"must be {provider_id!r}, who began the update, or empty")


def _check_names(names: Iterable[str], field: str = "gpu_names") -> None:
    for i, name in enumerate(names):
        check_name(name, f"{field}[{i}]")
