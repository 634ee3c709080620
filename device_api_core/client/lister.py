"""The lister: reads of an informer's store, which cost no call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from device_api_core.client.errors import NotFound
from device_api_core.client.informing import Informing
from device_api_core.client.kinds import T
from device_api_core.client.store import Snapshot
from device_api_core.resources import ConditionStatus

BY_READY = "ready"
"""The index by the computed Ready, which every kind with conditions has."""


class Lister(Generic[T]):
    """Reads the store. Every method raises ``NotSynced`` before the first list: an empty answer
    would say that the node has nothing, which nobody knows yet.

    Each call reads one snapshot; for several reads of the same one take :attr:`snapshot`.
    """

    def __init__(self, state: Informing[T]) -> None:
        self._state = state
        self._kind = state.kind.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._state!r}>"

    @property
    def snapshot(self) -> Snapshot[T]:
        """Everything as it is now, immutable."""
        return self._state.snapshot

    def get(self, name: str) -> T:
        """One object by its exact name. Raises ``NotFound``."""
        found = self.snapshot.objects.get(name)
        if found is None:
            raise NotFound(f'{self._kind} "{name}" not found')
        return found

    def list(self) -> tuple[T, ...]:
        """All objects, sorted by name."""
        return _sorted(self.snapshot.objects.values())

    def by_index(self, index: str, key: str) -> tuple[T, ...]:
        """The objects that the indexer of that name gives this key, sorted by name."""
        now = self.snapshot
        names = now.indexes[index].get(self._state.store.indexers[index].normal(key), frozenset())
        return _sorted(now.objects[name] for name in names)

    def index_keys(self, index: str) -> tuple[str, ...]:
        """The keys that the indexer of that name gives any object, sorted."""
        return tuple(sorted(self.snapshot.indexes[index]))


class DeviceLister(Lister[T]):
    """Reads of a kind whose objects have conditions."""

    def by_ready(self, status: ConditionStatus) -> tuple[T, ...]:
        """The objects whose computed Ready is that, sorted by name."""
        return self.by_index(BY_READY, status.value)


def _sorted(objects: Iterable[T]) -> tuple[T, ...]:
    return tuple(sorted(objects, key=lambda o: o.metadata.name))
