"""The local store: what an informer knows, as immutable snapshots that replace one another.

Only the informer writes. A reader takes the present snapshot, one reference, and needs no lock:
what it holds never changes. A change copies the tables it touches: with the 1,024 objects that a
server may have, about a tenth of a millisecond; with eight, a few microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from device_api_core.client.indexers import Indexer
from device_api_core.client.kinds import Resource, ResourceList, T, T_co
from device_api_core.client.watch import EventType, WatchEvent

__all__ = ["Change", "Resource", "Snapshot", "Store"]

V = TypeVar("V")

_NOTHING: Mapping[str, frozenset[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Change(Generic[T_co]):
    """One object's change: ``old`` is ``None`` if it is new, ``new`` is ``None`` if it is gone."""

    old: T_co | None
    new: T_co | None

    @property
    def name(self) -> str:
        """The object's name."""
        known = self.new if self.new is not None else self.old
        assert known is not None
        return known.metadata.name


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T_co]):
    """All objects at one version, by name; and for each indexer the names by key."""

    objects: Mapping[str, T_co]
    indexes: Mapping[str, Mapping[str, frozenset[str]]]
    resource_version: int


class Store(Generic[T]):
    """The objects that were last seen, with their indexes. One writer, any number of readers."""

    def __init__(self, indexers: Mapping[str, Indexer[T]] | None = None) -> None:
        self.indexers = dict(indexers or {})
        empty = dict.fromkeys(self.indexers, _NOTHING)
        self.snapshot: Snapshot[T] = Snapshot(MappingProxyType({}), MappingProxyType(empty), 0)

    def __repr__(self) -> str:
        now = self.snapshot
        return f"<Store {len(now.objects)} objects at version {now.resource_version}>"

    def replace(self, listed: ResourceList[T]) -> list[Change[T]]:
        """Hold exactly these objects. Returns how they differ from those before: first what is
        gone, then the others by name."""
        before = self.snapshot.objects
        # What is equal stays the same object: a chain of values, and nothing new to keep in memory.
        now = {o.metadata.name: _same(before.get(o.metadata.name), o) for o in listed.items}
        changes = [Change(old, None) for name, old in before.items() if name not in now]
        changes += [
            Change(before.get(name), new)
            for name, new in now.items()
            if before.get(name) is not new
        ]
        indexes = {name: _index(i, now.values()) for name, i in self.indexers.items()}
        self._install(now, indexes, listed.resource_version)
        return changes

    def apply(self, event: WatchEvent[T]) -> Change[T] | None:
        """Follow one event. Returns the change, ``None`` if it says nothing new.

        An event that is not newer than the store repeats what a list has shown already, and would
        turn time back.
        """
        version = max(event.resource_version, self.snapshot.resource_version)
        change = self._change(event)
        if change is None:
            self._install(self.snapshot.objects, self.snapshot.indexes, version)
            return None
        objects = dict(self.snapshot.objects)
        if change.new is None:
            del objects[change.name]
        else:
            objects[change.name] = change.new
        indexes = {
            name: self._reindexed(name, indexer, change) for name, indexer in self.indexers.items()
        }
        self._install(objects, indexes, version)
        return change

    def _change(self, event: WatchEvent[T]) -> Change[T] | None:
        if event.type is EventType.BOOKMARK:
            return None
        version = event.resource_version
        old = self.snapshot.objects.get(event.object.metadata.name)
        if event.type is EventType.DELETED:
            # What goes is what was there: whoever follows sees one chain of values.
            known = old is not None and version >= old.metadata.resource_version
            return Change(old, None) if known else None
        if 0 < version <= self.snapshot.resource_version:
            return None
        return Change(old, event.object) if old != event.object else None

    def _reindexed(
        self, name: str, indexer: Indexer[T], change: Change[T]
    ) -> Mapping[str, frozenset[str]]:
        before = self.snapshot.indexes[name]
        old = indexer.keys_of(change.old) if change.old is not None else frozenset()
        new = indexer.keys_of(change.new) if change.new is not None else frozenset()
        if old == new:
            return before
        table = dict(before)
        for key in old - new:
            table[key] -= {change.name}
            if not table[key]:
                del table[key]
        for key in new - old:
            table[key] = table.get(key, frozenset()) | {change.name}
        return table

    def _install(
        self,
        objects: Mapping[str, T],
        indexes: Mapping[str, Mapping[str, frozenset[str]]],
        version: int,
    ) -> None:
        self.snapshot = Snapshot(_frozen(objects), _frozen(indexes), version)


def _same(old: T | None, new: T) -> T:
    return old if old is not None and old == new else new


def _index(indexer: Indexer[T], objects: Iterable[T]) -> Mapping[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for value in objects:
        for key in indexer.keys_of(value):
            names.setdefault(key, set()).add(value.metadata.name)
    return {key: frozenset(found) for key, found in names.items()}


def _frozen(table: Mapping[str, V]) -> Mapping[str, V]:
    return table if isinstance(table, MappingProxyType) else MappingProxyType(table)
