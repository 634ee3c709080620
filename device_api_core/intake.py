"""Where providers' reports come in, from plugins and from RPCs alike.

Every report is a sign of life of its provider. A provider may hold an update while it finds out
what is wrong. A provider that crashes or falls silent is no longer believed where it said True.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from device_api_core.cache import DeviceCache
from device_api_core.clock import Clock
from device_api_core.conditions import has_lapsed
from device_api_core.entries import Change
from device_api_core.errors import UpdateAborted
from device_api_core.events import EventLog, Kind
from device_api_core.gate import Hold, ReadGate
from device_api_core.leases import Leases, LeaseTerms, Sign
from device_api_core.life import Life
from device_api_core.metrics import Metrics
from device_api_core.readiness import Readiness
from device_api_core.resources import Condition, Gpu, GpuSpec, GpuStatus
from device_api_core.tallies import Tallies

LEASE_INTERVALS = 3
"""A provider that states its interval may miss two of them."""
MAX_HOLD_SECONDS = 5.0


Saving = Callable[[], asyncio.Future[None] | None]
"""What an acknowledgement of the changes so far has to wait for, or ``None``."""


class Intake:
    """The one door for writes. Lives on the event loop."""

    def __init__(
        self,
        cache: DeviceCache,
        *,
        readiness: Readiness,
        events: EventLog,
        metrics: Metrics,
        clock: Clock,
        terms: LeaseTerms | None = None,
        max_hold_seconds: float = MAX_HOLD_SECONDS,
        saving: Saving | None = None,
    ) -> None:
        self._cache = cache
        self._readiness = readiness
        self._events = events
        self._metrics = metrics
        self._terms = terms = terms or LeaseTerms()
        self._max_hold_seconds = max_hold_seconds
        self.saving = saving
        """``None`` if nothing is kept over restarts."""
        self.gate = ReadGate(
            max_hold_seconds=max_hold_seconds,
            clock=clock.monotonic,
            expired=self._hold_expired,
            closing=cache.answers.forget,
        )
        self.leases = Leases(
            monotonic=clock.monotonic,
            wall=clock.wall,
            expired=self._lease_expired,
            gone=self._gone_for_good,
            gone_seconds=terms.gone_seconds,
        )
        self.tallies = Tallies()
        self._lost_listeners: dict[str, Callable[[], None]] = {}
        self._life_listeners: dict[str, Callable[[Life], None]] = {}

    # --- reports

    def register(
        self, provider_id: str, name: str, spec: GpuSpec, initial: GpuStatus | None = None
    ) -> tuple[bool, int]:
        """See :meth:`DeviceCache.register`."""
        self._require_room(provider_id)
        registered = self._cache.register(name, spec, provider_id, initial)
        sign = self.heard(provider_id)
        self._readiness.evaluate()
        if initial is not None and initial.conditions:
            self._reported(sign)
        return registered

    def withdraw(self, provider_id: str, name: str) -> bool:
        """See :meth:`DeviceCache.withdraw`."""
        known = self.knows(provider_id)
        removed = self._cache.withdraw(name, provider_id)
        if known:
            # Who never reported is not remembered for having nothing to take back.
            self.heard(provider_id)
        return removed

    def apply(self, provider_id: str, changes: Sequence[Change]) -> dict[str, int]:
        """See :meth:`DeviceCache.apply`."""
        self._require_room(provider_id)
        versions = self._cache.apply(provider_id, changes)
        self._reported(self.heard(provider_id))
        return versions

    def known(self, provider_id: str) -> Mapping[str, tuple[Condition, ...]]:
        """The conditions the provider owns now, by GPU."""
        self.heard(provider_id)
        return self._cache.known(provider_id)

    def gpus(self, provider_id: str) -> tuple[Gpu, ...]:
        """Every GPU, for a provider that looks one up."""
        self.heard(provider_id)
        return tuple(entry.gpu for entry in self._cache.entries)

    # --- held updates

    def hold(self, provider_id: str, gpus: tuple[str, ...]) -> Hold:
        """Make readers wait while the provider looks closer. Raises ``NotFound`` for a GPU that is
        not there, ``LimitExceeded``."""
        for name in gpus:
            self._cache.get(name)
        self._require_room(provider_id)
        self.heard(provider_id)
        return self.gate.hold(provider_id, gpus)

    def commit(self, held: Hold, changes: Sequence[Change]) -> dict[str, int]:
        """Apply what was staged and let the readers pass. A refused change aborts the update.

        Raises ``UpdateAborted`` if it is over already, and what :meth:`apply` raises.
        """
        if not self.gate.is_held(held):
            raise UpdateAborted("the update is no longer held: it expired or was aborted")
        try:
            versions = self.apply(held.provider_id, changes)
        except BaseException as error:
            self.abort(held, f"a staged change was refused: {error}")
            raise
        self.gate.release(held)
        return versions

    def abort(self, held: Hold, why: str) -> None:
        """Drop what was staged. The provider was in doubt, so its True becomes Unknown. Does
        nothing if the update is over already."""
        if not self.gate.is_held(held):
            return
        id_ = held.provider_id
        self._cache.lapse(
            id_, "UpdateAborted", f"the provider's update was aborted: {why}", held.gpus
        )
        self.gate.release(held)
        self._metrics.updates_aborted[id_] += 1
        self._events.record(
            Kind.PROVIDER, "UpdateAborted", f"update aborted: {why}", provider_id=id_, warning=True
        )

    # --- life and loss

    def heard(self, provider_id: str, *, lease_seconds: float | None = None) -> Sign:
        """Note a sign of life, and grant a lease if the rules or the caller ask for one."""
        known = self.leases.get(provider_id)
        if known is None:
            self._metrics.know_provider(provider_id)
        unleased = known is None or known.lease_seconds is None
        if self._terms.required and lease_seconds is None and unleased:
            lease_seconds = self._terms.heartbeat_seconds
        return self.leases.heard(provider_id, lease_seconds=lease_seconds)

    def heartbeat(self, provider_id: str, gpus: Sequence[str], life: Life) -> bool:
        """Renew a remote provider's lease. Returns False if it should register and report again:
        none of its GPUs is known, or what it said is no longer believed."""
        self._require_room(provider_id)
        lease = self._terms.heartbeat_seconds
        if life.interval_seconds is not None:
            lease = LEASE_INTERVALS * life.interval_seconds
        known = self.leases.get(provider_id)
        first = known is None or known.heard_at is None
        sign = self.heard(provider_id, lease_seconds=lease)
        sign.summary = life.summary or sign.summary
        sign.tells_synced = life.synced is not None
        self._metrics.heartbeats[provider_id] += 1
        if life.numbers is not None:
            self.tallies.take(provider_id, life.numbers)
        # Not the first one: that may come from a provider who does not know yet that this server
        # is a new one and knows nothing. Whoever repeats it was told, and may have no GPU at all.
        if life.synced and not first:
            self._synced(sign)
        if (listener := self._life_listeners.get(provider_id)) is not None:
            listener(life)
        owned = self._cache.owned_by(provider_id)
        if gpus:
            named = set(gpus)
            owned = [e for e in owned if e.name in named]
        if first or not owned or any(has_lapsed(e.health, provider_id) for e in owned):
            return False
        if life.synced is not False:
            self._synced(sign)
        return True

    def _synced(self, sign: Sign) -> None:
        sign.synced = True
        self._readiness.synced(sign.provider_id)

    def _reported(self, sign: Sign) -> None:
        if not sign.tells_synced:
            self._readiness.reported(sign.provider_id)

    def failed(self, provider_id: str, reason: str, message: str) -> None:
        """The provider crashed, fell silent or was stopped: stop believing its True."""
        if (held := self.gate.held_by(provider_id)) is not None:
            self.abort(held, message)
        self._cache.lapse(provider_id, reason, message)
        self.tallies.lapse(provider_id)

    def on_lost(self, provider_id: str, listener: Callable[[], None]) -> None:
        """Call ``listener`` when the provider's lease runs out."""
        self._lost_listeners[provider_id] = listener

    def on_life(self, provider_id: str, listener: Callable[[Life], None]) -> None:
        """Call ``listener`` with what each of the provider's heartbeats says."""
        self._life_listeners[provider_id] = listener

    def knows(self, provider_id: str) -> bool:
        """Whether the provider was ever heard or owns anything."""
        return self.leases.get(provider_id) is not None or bool(self._cache.owned_by(provider_id))

    def forget(self, provider_id: str) -> tuple[int, int]:
        """An operator drops a provider for good. Returns the GPUs and conditions it touched."""
        if (held := self.gate.held_by(provider_id)) is not None:
            self.abort(held, "the provider was forgotten")
        counts = self._cache.forget(provider_id)
        self._drop(provider_id)
        self._events.record(
            Kind.OPERATOR,
            "ProviderForgotten",
            f"forgot {_named(provider_id)}: {counts[1]} conditions removed on {counts[0]} GPUs",
            provider_id=provider_id,
            warning=True,
        )
        return counts

    def _require_room(self, provider_id: str) -> None:
        """Raises ``LimitExceeded`` if there is no room for a new id, not even in the place of one
        that owns nothing: that one loses nothing but its place in a list."""
        if self.leases.full and self.leases.get(provider_id) is None:
            owners = {owner for entry in self._cache.entries for owner in entry.owners}
            needed = owners | self._lost_listeners.keys() | self.gate.holders
            idle = (s for s in self.leases.signs if s.provider_id not in needed)
            if (oldest := min(idle, key=lambda s: s.heard, default=None)) is not None:
                self._drop(oldest.provider_id)
        self.leases.require_room(provider_id)

    def _drop(self, provider_id: str) -> None:
        self.leases.forget(provider_id)
        self.gate.forget(provider_id)
        self._metrics.forget_provider(provider_id)
        self.tallies.forget(provider_id)

    def _hold_expired(self, held: Hold) -> None:
        self._metrics.updates_expired[held.provider_id] += 1
        self.abort(held, f"it was held for more than {self._max_hold_seconds:g} s")

    def _lease_expired(self, provider_id: str) -> None:
        self._metrics.heartbeat_timeouts[provider_id] += 1
        sign = self.leases.get(provider_id)
        seconds = sign.lease_seconds if sign and sign.lease_seconds else 0.0
        message = f"nothing was heard from {_named(provider_id)} for {seconds:g} s"
        self.failed(provider_id, "ProviderLost", message)
        self._events.record(
            Kind.PROVIDER, "ProviderLost", message, provider_id=provider_id, warning=True
        )
        if (listener := self._lost_listeners.get(provider_id)) is not None:
            listener()
        elif not self._cache.owned_by(provider_id):
            # A heartbeat without a GPU leaves nothing worth remembering.
            self._drop(provider_id)

    def _gone_for_good(self, provider_id: str) -> None:
        """Nobody waits for it any more. What it said is withdrawn in its place; a fault stays until
        an operator says otherwise."""
        if provider_id in self._lost_listeners:
            return
        before = self._cache.version
        for entry in self._cache.owned_by(provider_id):
            self._cache.withdraw(entry.name, provider_id)
        left = len(self._cache.owned_by(provider_id))
        if left and self._cache.version == before:
            return
        text = (
            f"{_named(provider_id)} stayed away for {self._terms.gone_seconds:g} s: what it said "
            f"is dropped, except for faults on {left} GPUs"
        )
        self._events.record(
            Kind.PROVIDER, "ProviderGone", text, provider_id=provider_id, warning=True
        )
        if not left:
            self._drop(provider_id)


def _named(provider_id: str) -> str:
    return f"provider {provider_id or '(anonymous)'}"
