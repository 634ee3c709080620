"""A fake node: its devices, and everything a test may let happen to its server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from device_api_core.client._generated import GPUS, KINDS
from device_api_core.client.errors import NotServed, Unreachable
from device_api_core.client.fake.ledger import Ledger
from device_api_core.client.fake.services import Services
from device_api_core.client.fake.table import Table, watched_version
from device_api_core.client.fake.watches import BOOKMARK_SECONDS, Subscription
from device_api_core.client.kinds import Kind, Resource, T
from device_api_core.entries import SetCondition
from device_api_core.errors import DeviceApiError, Unavailable, WatchExpired
from device_api_core.resources import (
    READY,
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)

PROVIDER = "fake"
"""The provider that a test plays unless it says otherwise."""
TARGET = "fake:"


def gpu(name: str, *, uuid: str = "", pci_bus_id: str = "", **conditions: str) -> Gpu:
    """A GPU for a test: ``gpu("gpu-a", XidHealthy="False")``. Without conditions it is healthy."""
    said = conditions or {"Healthy": "True"}
    status = GpuStatus(tuple(Condition(t, ConditionStatus(s)) for t, s in said.items()))
    return Gpu(ObjectMeta(name), GpuSpec(uuid=uuid, pci_bus_id=pci_bus_id), status)


class FakeNode:
    """The truth behind fake clientsets and fake servers. May be used by any number of threads.

    ``bookmark_seconds`` of silence bring a bookmark to the watches that allow it.
    """

    def __init__(self, *objects: Resource, bookmark_seconds: float = BOOKMARK_SECONDS) -> None:
        self.bookmark_seconds = bookmark_seconds
        self._lock = threading.RLock()
        version = time.time_ns() // 1_000
        tables = [Table(kind, version) for kind in KINDS]
        self._tables: dict[type, Table[Any]] = {table.kind.value: table for table in tables}
        self._watched = {table.kind.watch_method.path: table for table in tables}
        self._reads = {path: call for table in tables for path, call in table.methods.items()}
        self._ledger = Ledger(self._tables[Gpu], wall=time.time_ns)
        self._services = Services(self._ledger)
        self._refusals: list[tuple[str, DeviceApiError]] = []
        self._absent: DeviceApiError | None = None
        self._unready = ""
        for each in objects:
            self.add(each)

    def __repr__(self) -> str:
        return f"<FakeNode {list(self._tables.values())}>"

    # --- what providers would do

    def add(self, object: Resource) -> None:
        """A GPU comes, each of its conditions said by the provider it names, else by ``fake``; the
        computed Ready is computed. An object of any other kind comes as it is, or changes to
        that."""
        with self._lock:
            if isinstance(object, Gpu):
                self._add_gpu(object)
            else:
                self._table(type(object)).put(object)

    def _add_gpu(self, gpu: Gpu) -> None:
        self._ledger.register(gpu.name, gpu.spec, PROVIDER, GpuStatus())
        for c in gpu.status.conditions:
            if c.type != READY:
                self._ledger.apply(c.provider_id or PROVIDER, SetCondition(gpu.name, _own(c)))
        if gpu.status.recommended_action:
            entry = self._ledger.get(gpu.name)
            for c in entry.health.of(PROVIDER)[:1]:
                advice = gpu.status.recommended_action
                self._ledger.apply(PROVIDER, SetCondition(gpu.name, c, advice))

    def set_condition(
        self,
        name: str,
        type: str,
        status: str,
        *,
        reason: str = "",
        message: str = "",
        recommended_action: str | None = None,
        provider_id: str = PROVIDER,
    ) -> int:
        """A provider reports; returns the GPU's version. ``status`` is True, False or Unknown."""
        condition = Condition(
            type, ConditionStatus(status), reason, message, provider_id=provider_id
        )
        with self._lock:
            return self._ledger.apply(
                provider_id, SetCondition(name, condition, recommended_action)
            )

    def remove(self, name: str, kind: Kind[Any, Any, Any] = GPUS) -> bool:
        """The object goes. Returns whether it was there."""
        with self._lock:
            if kind is GPUS:
                return self._ledger.unregister(name)
            return self._table(kind.value).remove(name)

    def lapse(self, provider_id: str = PROVIDER, reason: str = "ProviderLost") -> None:
        """The provider is no longer believed: its True becomes Unknown."""
        with self._lock:
            self._ledger.lapse(provider_id, reason, f"provider {provider_id} was lost")

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs as a reader would see them, sorted by name."""
        return self.objects(GPUS)

    def objects(self, kind: Kind[T, Any, Any]) -> tuple[T, ...]:
        """The objects of a kind as a reader would see them, sorted by name."""
        with self._lock:
            return self._table(kind.value).objects

    @property
    def resource_version(self) -> int:
        """The version of the last change of a GPU; every kind has versions of its own."""
        with self._lock:
            return self._ledger.version

    # --- what may go wrong

    def stop(self) -> None:
        """The server is gone: watches break, calls are ``Unreachable``."""
        with self._lock:
            self._absent = Unreachable("the fake server was stopped", target=TARGET)
            self._end(self._absent)

    def start(self, *, keep: Iterable[str] | None = None) -> None:
        """It is back as after a restart: no watch can resume, and what was True is Unknown
        (``ServerRestarted``) until its provider reports again. Only the objects of the names in
        ``keep`` are still there, all of them by default."""
        with self._lock:
            self._end(Unavailable("the fake server was restarted"))
            kept = None if keep is None else set(keep)
            for table in self._tables.values():
                table.restart(max(time.time_ns() // 1_000, table.version + 1), kept)
            entries = [e for e in self._ledger.entries.values() if kept is None or e.name in kept]
            self._ledger = Ledger(self._tables[Gpu], entries, wall=time.time_ns)
            self._services = Services(self._ledger)
            for id_ in sorted({c.provider_id for e in entries for c in e.health.conditions}):
                self._ledger.lapse(id_, "ServerRestarted", "the server was restarted")
            self._tables[Gpu].watches.forget()
            self._absent = None

    def unready(self, why: str) -> None:
        """Reads are ``Unavailable``, as while a provider is awaited; watches go on. An empty text
        ends it."""
        with self._lock:
            self._unready = why

    def refuse(self, method: str, error: DeviceApiError, times: int = 1) -> None:
        """The next calls of that method (``GetGpu``, ``WatchGpus`` ...) end with the error."""
        with self._lock:
            self._refusals += [(method, error)] * times

    def relent(self) -> None:
        """Refuse nothing any more."""
        with self._lock:
            self._refusals.clear()

    def end_watches(self, error: DeviceApiError | None = None) -> None:
        """Every watch breaks; by default as when the server shuts down. They may resume."""
        with self._lock:
            self._end(error or Unavailable("the server is shutting down"))

    def expire(self) -> None:
        """Every watch ends with ``WatchExpired``, and none may resume from before now."""
        with self._lock:
            for table in self._tables.values():
                table.watches.forget()
            self._end(WatchExpired("the fake history was dropped: list again"))

    def limit_queues(self, events: int) -> None:
        """A watcher that is so many events behind is ended; 1,024 at first."""
        with self._lock:
            for table in self._tables.values():
                table.watches.queue_events = events

    def limit_history(self, events: int) -> None:
        """So many events are kept to resume from; 4,096 at first."""
        with self._lock:
            for table in self._tables.values():
                table.watches.history_events = events

    # --- what callers ask

    def answer(self, path: str, request: Message) -> Message:
        """Answer a unary call. Raises what the server would."""
        with self._lock:
            self._admit(path)
            if (read := self._reads.get(path)) is not None:
                self._require_ready()
                return read(request)
            handle = self._services.methods.get(path)
            if handle is None:
                raise NotServed(f"the fake does not offer {path}")
            return handle(request)

    def subscribe(self, path: str, request: Any, wake: Callable[[], object]) -> Subscription:
        """Open a watch; ``wake`` is called, in any thread, when it has something to read."""
        with self._lock:
            self._admit(path)
            since = watched_version(request.opts)
            self._require_ready()
            marked = request.opts.allow_watch_bookmarks and request.opts.send_initial_events
            return self._watched[path].subscribe(since, marked, wake)

    def read(self, subscription: Subscription) -> bytes | None:
        """The next event of a watch, ``None`` if there is none yet. Raises what ended it."""
        with self._lock:
            return subscription.next()

    def bookmark(self, path: str) -> bytes:
        """What a watch is sent after silence."""
        with self._lock:
            return self._watched[path].bookmark()

    def unsubscribe(self, subscription: Subscription) -> None:
        """The client has gone."""
        with self._lock:
            for table in self._tables.values():
                table.watches.remove(subscription)

    def _table(self, value: type) -> Table[Any]:
        found = self._tables.get(value)
        if found is None:
            raise TypeError(f"{value.__name__} is no kind of the API")
        return found

    def _admit(self, path: str) -> None:
        method = path.rpartition("/")[2]
        if self._absent is not None:
            raise self._absent.with_traceback(None)
        for i, (refused, error) in enumerate(self._refusals):
            if refused == method:
                del self._refusals[i]
                raise error.with_traceback(None)

    def _require_ready(self) -> None:
        if self._unready:
            raise Unavailable(f"not ready: {self._unready}")

    def _end(self, error: DeviceApiError) -> None:
        for table in self._tables.values():
            table.watches.end(error)


def _own(condition: Condition) -> Condition:
    owner = condition.provider_id or PROVIDER
    return Condition(
        condition.type,
        condition.status,
        condition.reason,
        condition.message,
        condition.last_transition_time,
        owner,
    )
