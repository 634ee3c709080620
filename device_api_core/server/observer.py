"""Looks at the whole daemon for those who watch it: a scrape, and people at ``/statusz``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from device_api_core.cache import DeviceCache
from device_api_core.entries import Entry
from device_api_core.events import Event, EventLog
from device_api_core.intake import Intake
from device_api_core.leases import MAX_PROVIDERS
from device_api_core.observation import Observation, StateObservation
from device_api_core.readiness import Readiness
from device_api_core.resources import READY, Condition, ConditionStatus
from device_api_core.roster import ProviderStatus, Roster
from device_api_core.server.admin import ServerFacts
from device_api_core.server.caretaker import Sockets
from device_api_core.validation import MAX_CONDITIONS, MAX_GPUS, shortened
from device_api_core.watch import WatchHub

SHOWN_EVENTS = 50
_MAX_TEXT_BYTES = 512
"""Of a text that comes from a provider; `device-api describe` shows all of it."""
_MILLISECOND = 1_000_000


class Observer:
    """Reads the state where it is. Lives on the event loop; everything here is one step."""

    def __init__(
        self,
        cache: DeviceCache,
        *,
        hub: WatchHub,
        intake: Intake,
        roster: Roster,
        events: EventLog,
        readiness: Readiness,
        state: Callable[[], StateObservation | None],
        sockets: Callable[[], Sockets],
        facts: ServerFacts,
    ) -> None:
        self._cache = cache
        self._hub = hub
        self._intake = intake
        self._roster = roster
        self._events = events
        self._readiness = readiness
        self._state = state
        self.sockets = sockets
        self._facts = facts

    def observe(self) -> Observation:
        """For the metrics."""
        gate, sockets = self._intake.gate, self.sockets()
        return Observation(
            gpus=self._cache.entries,
            resource_version=self._cache.version,
            watches=self._hub.active,
            watches_ended_slow=self._hub.ended_slow,
            deepest_watch_queue=self._hub.deepest_queue,
            deliveries=self._hub.deliveries,
            updates_held=gate.held,
            holds=gate.holds,
            readers_parked=gate.parked,
            read_waits=gate.waits,
            state=self._state(),
            sockets_lost=sockets.lost,
            sockets_missing=sockets.missing,
            ready=self._readiness.ready,
            providers=self._roster.observations(),
        )

    @property
    def version(self) -> int:
        """Another one whenever :meth:`gpus` may be other ones."""
        return self._cache.version

    def gpus(self) -> list[Mapping[str, object]]:
        """Every GPU. Times are milliseconds since the Unix epoch, here and below."""
        return [_gpu(entry) for entry in self._cache.entries]

    def providers(self) -> list[Mapping[str, object]]:
        """The plugins that run and the remote providers. Nothing is imported for it."""
        return [_provider(status) for status in self._roster.active()]

    def recent(self) -> list[Mapping[str, object]]:
        """The newest events, newest first."""
        return [_event(e) for e in reversed(self._events.newest(limit=SHOWN_EVENTS))]

    def server(self) -> Mapping[str, object]:
        """The server itself, and how near it is to its limits."""
        gate = self._intake.gate
        return {
            "node": self._facts.node_name,
            "version": self._facts.version,
            "python": sys.version.split()[0],
            "started": self._facts.started // _MILLISECOND,
            "resource_version": str(self._cache.version),
            "ready": self._readiness.ready,
            "waiting_for": self._readiness.waiting_for,
            "updates_held": gate.held,
            "readers_parked": gate.parked,
            "limits": [
                ["GPUs", len(self._cache), MAX_GPUS],
                ["conditions of a GPU", self._most_conditions(), MAX_CONDITIONS],
                ["provider ids", len(self._intake.leases.signs), MAX_PROVIDERS],
                ["watches", self._hub.active, self._hub.max_watches],
                ["events queued for a watch", self._hub.deepest_queue, self._hub.queue_events],
            ],
        }

    def _most_conditions(self) -> int:
        return max((len(e.health.conditions) for e in self._cache.entries), default=0)


def _gpu(entry: Entry) -> Mapping[str, object]:
    ready = entry.health.ready
    doubted = [
        c
        for c in entry.health.published
        if c.type != READY and c.status is not ConditionStatus.TRUE
    ]
    owners = {c.provider_id for c in doubted if c.status is ready.status} or entry.registrants
    return {
        "name": entry.name,
        "uuid": entry.spec.uuid,
        "index": entry.spec.index,
        "pci": entry.spec.pci_bus_id,
        "product": entry.spec.product_name,
        "health": ready.status.value,
        "reason": _short(ready.reason),
        "message": _short(ready.message),
        "action": _short(entry.health.recommended_action),
        "since": _milliseconds(ready.last_transition_time),
        "owner": ", ".join(sorted(owner or "(anonymous)" for owner in owners)),
        "doubted": [_condition(c) for c in doubted],
        "conditions": len(entry.health.published) - 1,
    }


def _condition(condition: Condition) -> Mapping[str, object]:
    return {
        "type": condition.type,
        "status": condition.status.value,
        "reason": _short(condition.reason),
        "message": _short(condition.message),
        "owner": condition.provider_id or "(anonymous)",
        "since": _milliseconds(condition.last_transition_time),
    }


def _provider(status: ProviderStatus) -> Mapping[str, object]:
    return {
        "name": status.name or "(anonymous)",
        "home": status.home,
        "state": status.state,
        "reason": _short(status.state_reason),
        "summary": _short(status.summary),
        "package": f"{status.distribution} {status.version}".strip(),
        "synced": status.synced,
        "gpus": status.gpus,
        "restarts": status.restarts,
        "heard": _milliseconds(status.last_heard),
        "lease": status.lease_seconds,
    }


def _event(event: Event) -> Mapping[str, object]:
    return {
        **event._asdict(),
        "time": _milliseconds(event.time),
        "reason": _short(event.reason),
        "message": _short(event.message),
    }


def _short(text: str) -> str:
    return shortened(text, _MAX_TEXT_BYTES)


def _milliseconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // _MILLISECOND
