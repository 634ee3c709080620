"""The thread that waits for XIDs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

from device_api_nvml.library import (
    UNKNOWN,
    WANTED_EVENTS,
    XID_EVENTS,
    Event,
    EventSet,
    Handle,
    Nvml,
    NvmlError,
    Unsupported,
    nvml_error,
)

_WAIT_MILLISECONDS = 1_000
_SHORTEST_WAIT_SECONDS = 0.05


class Observer(Protocol):
    """What a watch tells, always as steps of the inbox, in this order."""

    def on_registered(self, watch: EventWatch, name: str, error: NvmlError | None) -> None:
        """The GPU's XIDs are watched from now on, or cannot be."""

    def on_watching(self, watch: EventWatch) -> None:
        """All GPUs were tried; the first wait begins."""

    def on_event(self, name: str, event: Event) -> None:
        """An event came. ``name`` is empty if the handle is of no GPU of this watch."""

    def on_ended(self, watch: EventWatch, error: NvmlError | None) -> None:
        """The set is gone: after :meth:`EventWatch.end` without an error."""


class EventWatch(threading.Thread):
    """One event set from creation to end, used by this thread alone. A broken set is never
    repaired: the thread ends, and another watch takes over."""

    def __init__(
        self,
        nvml: Nvml,
        gpus: Mapping[str, Handle],
        post: Callable[[Callable[[], None]], None],
        observer: Observer,
    ) -> None:
        super().__init__(name="nvml events", daemon=True)
        self.gpus = dict(gpus)
        self.registering = ""
        """The GPU that is being registered: the one to blame should that never end."""
        self.waits = 0
        """Waits that ended without an error."""
        self.returned = time.monotonic()
        """When the library last gave this thread back (monotonic seconds)."""
        self._nvml = nvml
        self._post = post
        self._observer = observer
        self._ending = threading.Event()
        self._names = {handle.address: name for name, handle in gpus.items()}

    def end(self) -> None:
        """Ask the thread to leave after its present wait."""
        self._ending.set()

    def run(self) -> None:
        failure: NvmlError | None = nvml_error(self.name, UNKNOWN, "the thread crashed")
        try:
            self._watch(self._nvml.event_set())
            failure = None
        except NvmlError as error:
            failure = error
        finally:
            self._post(partial(self._observer.on_ended, self, failure))

    def _watch(self, events: EventSet) -> None:
        try:
            registered = [self._register(events, name) for name in self.gpus]
            self._post(partial(self._observer.on_watching, self))
            while any(registered) and not self._ending.is_set():
                self._wait(events)
        finally:
            with suppress(NvmlError):  # of a set that is dead already
                events.free()

    def _register(self, events: EventSet, name: str) -> bool:
        if self._ending.is_set():
            return False
        self.registering = name
        failure = None
        try:
            mask = WANTED_EVENTS & self._nvml.supported_events(self.gpus[name])
            if not mask & XID_EVENTS:
                raise Unsupported("nvmlDeviceGetSupportedEventTypes", 3, "no XID events")
            events.register(self.gpus[name], mask)
        except NvmlError as error:
            if error.number == UNKNOWN:  # leaves the set in an undefined state
                raise
            failure = error
        self.registering, self.returned = "", time.monotonic()
        self._post(partial(self._observer.on_registered, self, name, failure))
        return failure is None

    def _wait(self, events: EventSet) -> None:
        began = time.monotonic()
        event = events.wait(_WAIT_MILLISECONDS)
        self.returned = time.monotonic()
        self.waits += 1
        if event is not None:
            name = self._names.get(event.handle.address, "")
            self._post(partial(self._observer.on_event, name, event))
        elif self.returned - began < _SHORTEST_WAIT_SECONDS:
            # Early ends are legal. A set that does nothing else must not take a whole core.
            self._ending.wait(_SHORTEST_WAIT_SECONDS)
