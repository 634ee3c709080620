"""The state at one moment, as the daemon shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from device_api_core.conditions import Health
from device_api_core.durations import Durations
from device_api_core.resources import GpuSpec

PROVIDER_STATES = ("starting", "running", "silent", "failed", "lost", "stopped")


class ObservedGpu(Protocol):
    """A GPU: what it is and what is said of its health."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> GpuSpec: ...

    @property
    def health(self) -> Health: ...


class ProviderObservation(NamedTuple):
    """One provider at the moment of a scrape. ``state`` is one of :data:`PROVIDER_STATES`.
    ``last_heard`` is seconds since the Unix epoch and ``silence`` seconds since then on a clock
    that nobody sets; both are ``None`` if it was never heard. ``lease`` is its lease in seconds and
    ``lease_left`` what is left of it, 0 once it ran out; ``None`` for a writer without one."""

    provider_id: str
    state: str
    last_heard: float | None
    silence: float | None
    lease: float | None
    lease_left: float | None
    gpus: int
    restarts: int
    plugin: bool


class StateObservation(NamedTuple):
    """How the keeping of the state does: writes that failed, changes that were acknowledged before
    they were on the disk, and whether writes succeed in time now."""

    failures: int
    late: int
    healthy: bool


class Observation(NamedTuple):
    """The state at the moment of a scrape. ``state`` is ``None`` without a state directory."""

    gpus: Sequence[ObservedGpu]
    resource_version: int
    watches: int
    watches_ended_slow: int
    deepest_watch_queue: int
    deliveries: Durations
    updates_held: int
    holds: Durations
    readers_parked: int
    read_waits: Durations
    state: StateObservation | None
    sockets_lost: int
    sockets_missing: int
    ready: bool
    providers: Sequence[ProviderObservation]
