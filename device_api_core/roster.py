"""The roster: every provider as it is now, plugins of this server and remote writers alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from device_api_core.cache import DeviceCache
from device_api_core.intake import Intake
from device_api_core.leases import Sign
from device_api_core.observation import ProviderObservation

RUNNING = frozenset({"starting", "running", "silent", "failed"})
"""States of a plugin that this server runs, well or badly."""


class ProviderStatus(NamedTuple):
    """One provider. ``home`` is ``thread``, ``process``, ``remote``, or empty if it does not run;
    ``last_heard`` is nanoseconds since the Unix epoch; the length of the lease and what
    is left of it, 0 once it ran out, are ``None`` without a lease."""

    name: str
    home: str
    state: str
    state_reason: str = ""
    distribution: str = ""
    version: str = ""
    entry_point: str = ""
    contract_version: int = 0
    restarts: int = 0
    gpus: int = 0
    last_heard: int | None = None
    lease_seconds: float | None = None
    lease_left_seconds: float | None = None
    synced: bool = False
    summary: str = ""
    types: tuple[str, ...] = ()


@dataclass(slots=True)
class _Holdings:
    """The GPUs that a provider registered or reports on, and the types of what it says."""

    gpus: int = 0
    types: set[str] = field(default_factory=set)


class Roster:
    """Joins what the supervisor knows of plugins with what the intake knows of everybody."""

    def __init__(
        self,
        cache: DeviceCache,
        intake: Intake,
        plugins: Callable[[], Awaitable[Sequence[ProviderStatus]]],
        running: Callable[[], Sequence[ProviderStatus]],
    ) -> None:
        self._cache = cache
        self._intake = intake
        self._plugins = plugins
        self._running = running

    async def statuses(self) -> list[ProviderStatus]:
        """Plugins first, in the order they were found, then remote providers by name. A plugin that
        is installed here and runs elsewhere is remote."""
        return self._joined(await self._plugins())

    def _joined(self, here: Sequence[ProviderStatus]) -> list[ProviderStatus]:
        held = self._holdings()
        plugins = [self._with_life(p, held) for p in here]
        names = {p.name for p in plugins if p.state in RUNNING}
        signs = [s for s in self._intake.leases.signs if s.provider_id not in names]
        elsewhere = {sign.provider_id for sign in signs}
        kept = [p for p in plugins if p.name not in elsewhere]
        signs.sort(key=lambda sign: sign.provider_id)
        return kept + [self._with_life(_remote(sign, held), held) for sign in signs]

    def _holdings(self) -> defaultdict[str, _Holdings]:
        """What each provider has in the cache, found in one pass: there may be many of both."""
        held: defaultdict[str, _Holdings] = defaultdict(_Holdings)
        for entry in self._cache.entries:
            owners = set(entry.registrants)
            for condition in entry.health.conditions:
                owners.add(condition.provider_id)
                held[condition.provider_id].types.add(condition.type)
            for owner in owners:
                held[owner].gpus += 1
        return held

    def runs(self, provider_id: str) -> bool:
        """Whether the provider is a plugin that this server runs."""
        return any(p.name == provider_id and p.state in RUNNING for p in self._running())

    def active(self) -> list[ProviderStatus]:
        """Those that run, here or elsewhere, well or badly. Unlike :meth:`statuses` it imports
        nothing."""
        joined = self._joined(self._running())
        return [p for p in joined if p.home == "remote" or p.state in RUNNING]

    def observations(self) -> tuple[ProviderObservation, ...]:
        """The same for the metrics."""
        return tuple(
            ProviderObservation(
                p.name,
                p.state,
                last_heard=None if p.last_heard is None else p.last_heard / 1e9,
                silence=self._intake.leases.silence(p.name),
                lease=p.lease_seconds,
                lease_left=p.lease_left_seconds,
                gpus=p.gpus,
                restarts=p.restarts,
                plugin=p.home != "remote",
            )
            for p in self.active()
        )

    def _with_life(
        self, status: ProviderStatus, held: defaultdict[str, _Holdings]
    ) -> ProviderStatus:
        sign = self._intake.leases.get(status.name)
        if sign is None or (status.home != "remote" and status.state not in RUNNING):
            return status
        return status._replace(
            gpus=held[status.name].gpus,
            last_heard=sign.heard_at,
            lease_seconds=sign.lease_seconds,
            lease_left_seconds=self._intake.leases.left_seconds(sign),
        )


def _remote(sign: Sign, held: defaultdict[str, _Holdings]) -> ProviderStatus:
    reason = "its lease ran out" if sign.lapsed else ""
    if sign.heard_at is None:
        reason = "it was not heard since the server was restarted"
    return ProviderStatus(
        sign.provider_id,
        "remote",
        "lost" if sign.lapsed else "running",
        reason,
        synced=sign.synced,
        summary=sign.summary,
        types=tuple(sorted(held[sign.provider_id].types)),
    )
