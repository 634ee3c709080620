"""The one truth: all GPUs, every change to them, and the updates that providers hold.

Everything here runs on the event loop and nothing waits, so each method is one step: readers see
all of a change or none of it, and its event is queued in the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from device_api_core import codec, conditions
from device_api_core.answers import KnownAnswers
from device_api_core.entries import Change, Entry, SetCondition, encoded, merge_spec
from device_api_core.errors import AlreadyExists, Conflict, LimitExceeded, NotFound
from device_api_core.events import EventLog, Kind
from device_api_core.metrics import Metrics
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus
from device_api_core.staging import Step, prepare
from device_api_core.transitions import record_refusal, record_restored, record_transitions
from device_api_core.validation import MAX_GPUS, shortened
from device_api_core.watch import WatchHub

Noted = Callable[[str, Entry | None, Entry | None, int], None]
"""Told of every change in a GPU: its name, what it was and what it is (``None`` if it is not there)
and the counter's version."""

_MAX_LAPSE_BYTES = 512
"""Of the text that a lapse leaves in every condition; it may come from a provider's exception."""


class DeviceCache:
    """All GPUs by name. ``wall`` gives nanoseconds since the Unix epoch."""

    def __init__(
        self,
        hub: WatchHub,
        *,
        events: EventLog,
        metrics: Metrics,
        wall: Callable[[], int],
        noted: Noted | None = None,
        strict_unregister: bool = False,
    ) -> None:
        self._hub = hub
        self._events = events
        self._metrics = metrics
        self._wall = wall
        self._noted = noted
        self._strict_unregister = strict_unregister
        self._entries: dict[str, Entry] = {}
        self._names_by_uuid: dict[str, str] = {}
        self._version = hub.version
        self._list_bytes = 0
        self._list_response: bytes | None = None
        self.answers = KnownAnswers()

    def __repr__(self) -> str:
        return f"<DeviceCache {len(self._entries)} GPUs at version {self._version}>"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def version(self) -> int:
        """The version of the last effective change."""
        return self._version

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All GPUs, in order of registration."""
        return tuple(self._entries.values())

    def get(self, name: str) -> Entry:
        """One GPU. Raises ``NotFound``."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f'gpu "{name}" not found')
        return entry

    def list_response(self) -> bytes:
        """The encoded answer to ``ListGpus``, joined once per version."""
        if self._list_response is None:
            items = [e.item for e in self._entries.values()]
            self._list_response = codec.list_response(self._version, items)
        return self._list_response

    def snapshot_events(self) -> list[bytes]:
        """Every GPU as an encoded ADDED event."""
        return [e.added_event for e in self._entries.values()]

    def owned_by(self, provider_id: str) -> list[Entry]:
        """The GPUs that a provider registered or reports on."""
        return [e for e in self._entries.values() if e.belongs_to(provider_id)]

    def known(self, provider_id: str) -> Mapping[str, tuple[Condition, ...]]:
        """The conditions a provider owns, by GPU."""
        owned = {name: e.health.of(provider_id) for name, e in self._entries.items()}
        return {name: found for name, found in owned.items() if found}

    def restore(self, entries: Iterable[Entry]) -> None:
        """Install GPUs that are known from before a restart."""
        step = self._prepare(entries, refusable=False)
        self._list_bytes = step.list_bytes
        for entry, _ in step.installs:
            self._put(entry, None)
            record_restored(self._events, entry)

    def register(
        self, name: str, spec: GpuSpec, provider_id: str, initial: GpuStatus | None = None
    ) -> tuple[bool, int]:
        """Make a GPU known or merge its spec; returns whether it is new, and its version.
        ``initial`` is used for a new GPU only. Raises ``AlreadyExists`` for a uuid or name that
        another GPU holds, ``LimitExceeded``.
        """
        known = self._entries.get(name)
        self._check_uuid(name, spec, known)
        if known is None:
            if len(self._entries) >= MAX_GPUS:
                raise LimitExceeded(f"{MAX_GPUS} GPUs are registered, which is the limit")
            now = self._wall()
            health = conditions.new_health(now)
            if initial is not None:
                health = conditions.set_status(health, provider_id, initial.conditions, now)
                health = conditions.set_action(health, provider_id, initial.recommended_action)
            entry = Entry(name, spec, frozenset({provider_id}), health)
        else:
            merged = merge_spec(known.spec, spec)
            entry = replace(known, spec=merged, registrants=known.registrants | {provider_id})
        self._install(self._prepare([entry]))
        self._metrics.updates["register"] += 1
        return known is None, self._entries[name].version

    def apply(self, provider_id: str, changes: Sequence[Change]) -> dict[str, int]:
        """Apply a provider's changes together or not at all; returns the versions by GPU.

        Raises ``NotFound``, ``Conflict``, ``LimitExceeded``.
        """
        now = self._wall()
        staged: dict[str, Entry] = {}
        for change in changes:
            entry = staged.get(change.gpu) or self.get(change.gpu)
            try:
                health = change.apply(entry.health, provider_id, now)
            except Conflict as conflict:
                self._note_forgery(provider_id, change, conflict)
                raise
            staged[change.gpu] = entry.with_health(health)
        self._install(self._prepare(e for e in staged.values() if not e.abandoned))
        for name, entry in staged.items():
            if entry.abandoned:
                self._remove_abandoned(self._entries[name])
        for change in changes:
            single = isinstance(change, SetCondition)
            self._metrics.updates["update_condition" if single else "update_status"] += 1
        return {
            name: self._entries[name].version if name in self._entries else self._version
            for name in staged
        }

    def unregister(self, name: str) -> bool:
        """Remove a GPU whole: an operator's act. Returns whether it was there.

        Raises ``Conflict`` under ``strict_unregister`` while a provider holds a False on it.
        """
        entry = self._entries.get(name)
        if entry is not None:
            if self._strict_unregister and (fault := entry.fault) is not None:
                raise Conflict(
                    f'gpu "{name}" has {fault.type}=False, held by provider '
                    f"{fault.provider_id or '(anonymous)'}: it cannot be unregistered before"
                )
            self._remove(entry)
            text = "the GPU was removed whole"
            self._events.record(Kind.OPERATOR, "GpuUnregistered", text, gpu=name, warning=True)
        self._metrics.updates["unregister"] += 1
        return entry is not None

    def withdraw(self, name: str, provider_id: str) -> bool:
        """One provider stops reporting a GPU. Returns whether that removed the GPU."""
        entry = self._entries.get(name)
        removed = False
        if entry is not None:
            health = conditions.withdraw(entry.health, provider_id, self._wall())
            removed = self._keep_or_remove(entry, health, provider_id)
        self._metrics.updates["unregister"] += 1
        return removed

    def forget(self, provider_id: str) -> tuple[int, int]:
        """Drop all that a provider ever said: an operator's act. Returns how many GPUs and
        conditions that touched."""
        gpus = removed = 0
        for entry in self.owned_by(provider_id):
            gpus += 1
            removed += len(entry.health.of(provider_id))
            health = conditions.forget(entry.health, provider_id, self._wall())
            self._keep_or_remove(entry, health, provider_id)
        return gpus, removed

    def lapse(self, provider_id: str, reason: str, message: str, gpus: Iterable[str] = ()) -> int:
        """Stop believing a provider's True, on the named GPUs or on all. Returns how many GPUs
        that changed."""
        now = self._wall()
        message = shortened(message, _MAX_LAPSE_BYTES)
        names = set(gpus)
        lapsed = [
            replace(e, health=conditions.lapse(e.health, provider_id, reason, message, now))
            for e in self._entries.values()
            if not names or e.name in names
        ]
        return self._install(self._prepare(lapsed, refusable=False))

    def clear(self, name: str, type_: str) -> tuple[int, str]:
        """An operator clears a condition; returns the GPU's version and the owner to be told."""
        entry = self.get(name)
        message = "cleared by an operator; waiting for its provider to report again"
        health, owner = conditions.clear(entry.health, type_, message, self._wall())
        self._install(self._prepare([replace(entry, health=health)], refusable=False))
        return self._entries[name].version, owner

    def _prepare(self, entries: Iterable[Entry], *, refusable: bool = True) -> Step:
        step = prepare(
            entries,
            stored=self._entries,
            version=self._version,
            list_bytes=self._list_bytes,
            refusable=refusable,
        )
        if step.cut:
            self._metrics.messages_cut += step.cut
        return step

    def _install(self, step: Step) -> int:
        """Make prepared changes visible and publish them. Returns how many GPUs changed."""
        changed = 0
        self._list_bytes = step.list_bytes
        for entry, known in step.installs:
            if known is None or entry.version != known.version:
                changed += 1
                self._put(entry, known)
                record_transitions(self._events, entry, known)
            elif not entry.says_the_same(known):
                self._entries[entry.name] = entry
                self._note(entry.name, known, entry)
        return changed

    def _put(self, entry: Entry, known: Entry | None) -> None:
        self._entries[entry.name] = entry
        if entry.spec.uuid and (known is None or known.spec is not entry.spec):
            self._names_by_uuid[entry.spec.uuid.casefold()] = entry.name
        self._publish("MODIFIED" if known else "ADDED", entry, entry.version)
        self._note(entry.name, known, entry)

    def _note(self, name: str, before: Entry | None, after: Entry | None) -> None:
        if self._noted is not None:
            self._noted(name, before, after, self._version)

    def _keep_or_remove(self, entry: Entry, health: conditions.Health, provider_id: str) -> bool:
        kept = replace(entry, registrants=entry.registrants - {provider_id}, health=health)
        if kept.abandoned:
            self._remove_abandoned(entry)
            return True
        self._install(self._prepare([kept], refusable=False))
        return False

    def _remove_abandoned(self, entry: Entry) -> None:
        self._remove(entry)
        text = "the GPU was removed: no provider reports it any more"
        self._events.record(Kind.PROVIDER, "GpuWithdrawn", text, gpu=entry.name)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.name]
        self._names_by_uuid.pop(entry.spec.uuid.casefold(), None)
        self._list_bytes -= len(entry.item)
        gone = encoded(entry, entry, self._version + 1)
        self._publish("DELETED", gone, gone.version)
        self._note(entry.name, entry, None)

    def _publish(self, event_type: str, entry: Entry, version: int) -> None:
        self._version = version
        self._list_response = None
        self.answers.forget()
        self._hub.publish(version, codec.watch_response(event_type, entry.item))
        self._metrics.watch_events[event_type] += 1

    def _check_uuid(self, name: str, spec: GpuSpec, known: Entry | None) -> None:
        if not spec.uuid:
            return
        if known is not None and known.spec.uuid:
            if known.spec.uuid.casefold() != spec.uuid.casefold():
                raise AlreadyExists(f'gpu "{name}" has uuid {known.spec.uuid}, not {spec.uuid}')
            return
        holder = self._names_by_uuid.get(spec.uuid.casefold())
        if holder is not None and holder != name:
            raise AlreadyExists(f'uuid {spec.uuid} belongs to gpu "{holder}"')

    def _note_forgery(self, provider_id: str, change: Change, conflict: Conflict) -> None:
        if any(c.status is ConditionStatus.FALSE for c in change.conditions):
            self._metrics.refused_forgeries += 1
            record_refusal(self._events, provider_id, change.gpu, conflict)
