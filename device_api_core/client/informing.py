"""What an informer is, whoever drives it: the store, its freshness, and the handlers.

:mod:`.informer` drives it with threads, :mod:`.aio.informer` with tasks. A lock makes each step one
for everybody: a handler that is added sees the objects as they are and every change after that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic

from device_api_core.client.delivery import Registration
from device_api_core.client.errors import ConfigurationError, DeviceApiError, NotSynced
from device_api_core.client.freshness import Freshness, Probe
from device_api_core.client.indexers import Indexer
from device_api_core.client.kinds import Kind, ResourceList, T
from device_api_core.client.reflection import Reflection, Step, WatchFrom
from device_api_core.client.retry import Backoff
from device_api_core.client.store import Change, Snapshot, Store
from device_api_core.client.watch import WatchEvent

logger = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""Between two probes. A list of eight GPUs takes the server a third of a millisecond."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an informer has done since its start, for metrics and for people."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    failures: int = 0
    last_error: Exception | None = None


class Informing(Generic[T]):
    """The state of one informer; a :class:`~.reflection.Follower`. ``synced`` is called, once, when
    the first list is in the store; ``clock`` is monotonic seconds, ``wall`` nanoseconds since the
    Unix epoch."""

    finished = False

    def __init__(
        self,
        kind: Kind[T, Any, Any],
        *,
        indexers: Mapping[str, Indexer[T]] | None,
        probe_seconds: float,
        resync_seconds: float | None,
        synced: Callable[[], object],
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        if probe_seconds <= 0 or (resync_seconds is not None and resync_seconds <= 0):
            raise ConfigurationError("probe_seconds and resync_seconds must be more than 0")
        self.kind = kind
        self.clock = clock
        self.probe_seconds = probe_seconds
        self.resync_seconds = resync_seconds
        self.store: Store[T] = Store({**kind.indexers, **(indexers or {})})
        self.progress = Progress()
        self.has_synced = False
        self._synced = synced
        self._failing = False
        self._lock = threading.Lock()
        self._reflection = Reflection(self.store, backoff or Backoff())
        self._freshness = Freshness(clock, wall)
        self._registrations: list[Registration[T]] = []

    def __repr__(self) -> str:
        return f"{self.kind.name}s {self.store!r} {self._freshness!r}"

    # --- what readers ask

    @property
    def snapshot(self) -> Snapshot[T]:
        """Everything as it is now. Raises ``NotSynced`` before the first list."""
        if not self.has_synced:
            raise NotSynced(f"the {self.kind.name} informer knows nothing yet{self._why()}")
        return self.store.snapshot

    def too_late(self, seconds: float) -> str:
        """What to say when it has not synced after that time."""
        return f"the {self.kind.name} informer saw no list within {seconds:g} s{self._why()}"

    @property
    def last_synced(self) -> int | None:
        """Nanoseconds since the Unix epoch."""
        with self._lock:
            proven = self._freshness.proven
        return proven.wall if proven is not None else None

    @property
    def age_seconds(self) -> float | None:
        """How old the store may be."""
        with self._lock:
            return self._freshness.age_seconds

    def is_stale(self, max_age_seconds: float) -> bool:
        """See :meth:`~.informer.SharedInformer.is_stale`."""
        if max_age_seconds <= self.probe_seconds:
            raise ConfigurationError(
                f"max_age_seconds must be more than probe_seconds ({self.probe_seconds:g}), not "
                f"{max_age_seconds:g}: between two probes nothing is that fresh"
            )
        age = self.age_seconds
        return age is None or age > max_age_seconds

    # --- handlers

    def add(self, registration: Registration[T]) -> None:
        """A handler joins: it is told of what is there, and then of every change."""
        with self._lock:
            self._registrations.append(registration)
            known = self.store.snapshot.objects.values()
            registration.push([Change(None, o) for o in known], initial=self.has_synced)

    def end(self) -> tuple[Registration[T], ...]:
        """No handler is told of anything any more. Returns them."""
        with self._lock:
            ended, self._registrations = tuple(self._registrations), []
        for registration in ended:
            registration.remove()
        return ended

    def resync(self) -> None:
        """Tell every handler of every object again, as an update that changes nothing."""
        with self._lock:
            objects = self.store.snapshot.objects.values()
            self._distribute([Change(o, o) for o in objects])

    # --- what the reflector reports

    def step(self) -> Step:
        """What to do next."""
        step = self._reflection.step()
        if isinstance(step, WatchFrom):
            with self._lock:
                self._freshness.watching()
                self._count(watches=self.progress.watches + 1)
        return step

    def listed(self, listed: ResourceList[T], began: float) -> None:
        """A list arrived that was asked for at ``began``."""
        with self._lock:
            changes = self._reflection.listed(listed)
            self._freshness.listed(began)
            self._count(lists=self.progress.lists + 1)
            self._works()
            first, self.has_synced = not self.has_synced, True
            self._distribute(changes, initial=first)
        if first:
            self._synced()

    def received(self, event: WatchEvent[T]) -> None:
        """An event arrived."""
        with self._lock:
            change = self._reflection.received(event)
            self._freshness.reached(self.store.snapshot.resource_version)
            self._count(events=self.progress.events + 1)
            self._works()
            if change is not None:
                self._distribute([change])

    def failed(self, error: Exception) -> None:
        """A list or a watch ended with that. Whatever it is, there will be another attempt."""
        with self._lock:
            self._freshness.broken()
            self._count(failures=self.progress.failures + 1, last_error=error)
            if not isinstance(error, DeviceApiError):
                # An indexer may have raised in the middle of a change.
                self._reflection.distrust()
            self._reflection.failed(error)
            failing, self._failing = self._failing, True
        if not isinstance(error, DeviceApiError):
            logger.error("the %s informer met a defect", self.kind.name, exc_info=error)
        elif not failing:
            # Once for an outage, however many attempts it takes.
            logger.warning("the %s informer lost its watch: %s", self.kind.name, error)

    # --- probes

    def probe(self) -> Probe | None:
        """Begin a probe, if there is a watch for it to speak of."""
        with self._lock:
            return self._freshness.probe()

    def answered(self, probe: Probe, version: int) -> bool:
        """The probe found the server at that version. Returns False if the watch has stalled."""
        with self._lock:
            reached = self.store.snapshot.resource_version
            return self._freshness.answered(probe, version, reached)

    def _distribute(self, changes: list[Change[T]], *, initial: bool = False) -> None:
        if not changes and not initial:
            return
        self._registrations = [r for r in self._registrations if not r.ended]
        for registration in self._registrations:
            registration.push(changes, initial=initial)

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("the %s informer follows the server again", self.kind.name)

    def _why(self) -> str:
        error = self.progress.last_error
        return f": {error}" if error is not None else ""

    def _count(self, **changed: Any) -> None:
        self.progress = replace(self.progress, **changed)
