"""The GPUs of a fake node, changed by the server's own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from device_api_core import conditions
from device_api_core._proto import gpu_pb2
from device_api_core.client.fake.table import Table
from device_api_core.client.watch import EventType
from device_api_core.entries import Change, Entry, encoded, merge_spec
from device_api_core.errors import AlreadyExists, LimitExceeded, NotFound
from device_api_core.resources import Gpu, GpuSpec, GpuStatus
from device_api_core.staging import prepare
from device_api_core.validation import MAX_GPUS


class Ledger:
    """All GPUs by name. Each change is published in ``table``, where readers see it; ``wall`` is
    nanoseconds since the Unix epoch. The caller sees to it that one thread at a time is here."""

    def __init__(
        self, table: Table[Gpu], entries: Iterable[Entry] = (), *, wall: Callable[[], int]
    ) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self._table = table
        self._wall = wall

    def __repr__(self) -> str:
        return f"<Ledger {len(self.entries)} GPUs at version {self.version}>"

    @property
    def version(self) -> int:
        """The version of the last change."""
        return self._table.version

    def get(self, name: str) -> Entry:
        """One GPU. Raises ``NotFound``."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(f'gpu "{name}" not found')
        return entry

    def owned_by(self, provider_id: str) -> list[Entry]:
        """The GPUs that a provider registered or reports on."""
        return [e for e in self.entries.values() if e.belongs_to(provider_id)]

    def register(
        self, name: str, spec: GpuSpec, provider_id: str, initial: GpuStatus
    ) -> tuple[bool, int]:
        """Make a GPU known or merge its spec; returns whether it is new, and its version."""
        known = self.entries.get(name)
        self._check_uuid(name, spec, known)
        if known is not None:
            merged = merge_spec(known.spec, spec)
            entry = replace(known, spec=merged, registrants=known.registrants | {provider_id})
        elif len(self.entries) >= MAX_GPUS:
            raise LimitExceeded(f"{MAX_GPUS} GPUs are registered, which is the limit")
        else:
            now = self._wall()
            health = conditions.new_health(now)
            health = conditions.set_status(health, provider_id, initial.conditions, now)
            health = conditions.set_action(health, provider_id, initial.recommended_action)
            entry = Entry(name, spec, frozenset({provider_id}), health)
        self._install([entry])
        return known is None, self.entries[name].version

    def apply(self, provider_id: str, change: Change) -> int:
        """Apply a provider's change; returns the GPU's version."""
        entry = self.get(change.gpu)
        health = change.apply(entry.health, provider_id, self._wall())
        self._keep_or_remove(replace(entry, health=health), refusable=True)
        return self.entries[change.gpu].version if change.gpu in self.entries else self.version

    def unregister(self, name: str) -> bool:
        """Remove a GPU whole. Returns whether it was there."""
        entry = self.entries.get(name)
        if entry is not None:
            self._remove(entry)
        return entry is not None

    def withdraw(self, name: str, provider_id: str) -> bool:
        """One provider stops reporting a GPU. Returns whether that removed the GPU."""
        entry = self.entries.get(name)
        if entry is None:
            return False
        health = conditions.withdraw(entry.health, provider_id, self._wall())
        return self._without(entry, health, provider_id)

    def forget(self, provider_id: str) -> tuple[int, int]:
        """Drop all that a provider said. Returns how many GPUs and conditions that touched."""
        owned = self.owned_by(provider_id)
        said = sum(len(e.health.of(provider_id)) for e in owned)
        for entry in owned:
            health = conditions.forget(entry.health, provider_id, self._wall())
            self._without(entry, health, provider_id)
        return len(owned), said

    def lapse(self, provider_id: str, reason: str, message: str) -> None:
        """Stop believing a provider's True."""
        now = self._wall()
        lapsed = [
            replace(e, health=conditions.lapse(e.health, provider_id, reason, message, now))
            for e in self.entries.values()
        ]
        self._install(lapsed, refusable=False)

    def clear(self, name: str, type_: str) -> int:
        """An operator clears a condition; returns the GPU's version."""
        entry = self.get(name)
        message = "cleared by an operator; waiting for its provider to report again"
        health, _ = conditions.clear(entry.health, type_, message, self._wall())
        self._install([replace(entry, health=health)], refusable=False)
        return self.entries[name].version

    def _install(self, entries: Iterable[Entry], *, refusable: bool = True) -> None:
        step = prepare(
            entries,
            stored=self.entries,
            version=self.version,
            list_bytes=sum(len(e.item) for e in self.entries.values()),
            refusable=refusable,
        )
        for entry, known in step.installs:
            self.entries[entry.name] = entry
            if known is None or entry.version != known.version:
                self._tell(EventType.MODIFIED if known else EventType.ADDED, entry)

    def _without(self, entry: Entry, health: conditions.Health, provider_id: str) -> bool:
        kept = replace(entry, registrants=entry.registrants - {provider_id}, health=health)
        return self._keep_or_remove(kept, refusable=False)

    def _keep_or_remove(self, entry: Entry, *, refusable: bool) -> bool:
        if entry.abandoned:
            self._remove(self.entries[entry.name])
            return True
        self._install([entry], refusable=refusable)
        return False

    def _remove(self, entry: Entry) -> None:
        del self.entries[entry.name]
        self._tell(EventType.DELETED, encoded(entry, entry, self.version + 1))

    def _tell(self, type: EventType, entry: Entry) -> None:
        message = gpu_pb2.GetGpuResponse.FromString(entry.get_response).gpu
        self._table.publish(type, message, entry.version)

    def _check_uuid(self, name: str, spec: GpuSpec, known: Entry | None) -> None:
        uuid = spec.uuid.casefold()
        if not uuid:
            return
        if known is not None and known.spec.uuid:
            if known.spec.uuid.casefold() != uuid:
                raise AlreadyExists(f'gpu "{name}" has uuid {known.spec.uuid}, not {spec.uuid}')
            return
        holders = (e for e in self.entries.values() if e.spec.uuid.casefold() == uuid)
        if (holder := next(holders, None)) is not None:
            raise AlreadyExists(f'uuid {spec.uuid} belongs to gpu "{holder.name}"')
