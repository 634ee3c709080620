"""GpuService as plain async methods: bytes in, bytes out."""

from __future__ import annotations

import re

from device_api_core import codec
from device_api_core._proto import gpu_pb2
from device_api_core.cache import DeviceCache
from device_api_core.errors import InvalidArgument
from device_api_core.gate import ReadGate
from device_api_core.readiness import Readiness
from device_api_core.server.transport import Method, ServerStream, Unary
from device_api_core.validation import check_name
from device_api_core.watch import Subscription, WatchHub

_GPU_SERVICE = gpu_pb2.DESCRIPTOR.services_by_name["GpuService"].full_name
_DECIMAL = re.compile(r"[0-9]+")
_MAX_VERSION = 2**63 - 1


class GpuService:
    """What consumers read. Every read waits for the updates held when it arrives.

    Without ``readiness`` reads are answered from the start. That is for providers, which must read
    back what they once said before they can report and so make the server ready. Where providers
    share a socket with consumers (``shared``) only a list that names its provider is answered so.
    """

    def __init__(
        self,
        cache: DeviceCache,
        *,
        hub: WatchHub,
        gate: ReadGate,
        readiness: Readiness | None,
        shared: bool = False,
    ) -> None:
        self._cache = cache
        self._hub = hub
        self._gate = gate
        self._readiness = readiness
        self._knows_providers = shared or readiness is None
        self._known = cache.answers.table()
        self._known_lists = cache.answers.table()

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method table."""
        return (
            Unary(_GPU_SERVICE, "GetGpu", self.get_gpu, known=self._known),
            Unary(_GPU_SERVICE, "ListGpus", self.list_gpus, known=self._known_lists),
            ServerStream(_GPU_SERVICE, "WatchGpus", self.watch_gpus),
        )

    async def get_gpu(self, data: bytes) -> bytes:
        """One GPU by its exact name."""
        request = codec.decode(gpu_pb2.GetGpuRequest, data)
        check_name(request.name)
        self._require_ready()
        await self._gate.passage()
        return self._noted(self._known, data, self._cache.get(request.name).get_response)

    async def list_gpus(self, data: bytes) -> bytes:
        """All GPUs, as one snapshot."""
        request = codec.decode(gpu_pb2.ListGpusRequest, data)
        asker = request.provider_id if self._knows_providers and request.provider_id else None
        if asker is None:
            self._require_ready()
        await self._gate.passage(but_for=asker)
        response = self._cache.list_response()
        # Who reads past a held update has an answer of its own.
        return response if asker else self._noted(self._known_lists, data, response)

    async def watch_gpus(self, data: bytes) -> Subscription:
        """The snapshot and then every change, or every change after a version."""
        options = codec.decode(gpu_pb2.WatchGpusRequest, data).opts
        since = _parse_version(options.resource_version)
        if since is not None and options.send_initial_events:
            raise InvalidArgument(
                "opts.send_initial_events",
                "cannot be combined with a resource_version: initial events are the current state",
            )
        self._require_ready()
        bookmarks = options.allow_watch_bookmarks
        if since is not None:
            return self._hub.subscribe((), since=since, bookmarks=bookmarks)
        await self._gate.passage()
        return self._hub.subscribe(
            self._cache.snapshot_events(),
            bookmarks=bookmarks,
            bookmark_initial=bookmarks and options.send_initial_events,
        )

    def _noted(self, table: dict[bytes, bytes], request: bytes, response: bytes) -> bytes:
        # A later update may be held, for which this reader did not have to wait.
        if not self._gate.held:
            self._cache.answers.note(table, request, response)
        return response

    def _require_ready(self) -> None:
        if self._readiness is not None:
            self._readiness.require()


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
