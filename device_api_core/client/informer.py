"""The shared informer of threads: one list and one watch serve any number of handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self

from device_api_core.client.delivery import QUEUE_CHANGES, Handler, Registration, name_of
from device_api_core.client.errors import DeviceApiError, NotSynced
from device_api_core.client.indexers import Indexer
from device_api_core.client.informing import PROBE_SECONDS, Informing, Progress
from device_api_core.client.kinds import T
from device_api_core.client.lister import Lister
from device_api_core.client.reads import Reads
from device_api_core.client.reflector import Reflector
from device_api_core.client.stopping import Stop

STOP_SECONDS = 5.0


class SharedInformer(Generic[T]):
    """Follows all objects of a kind, over every restart of the server. Make one for a process and
    share it; start it with :meth:`start` or ``with``; an informer that was stopped stays stopped.

    ``indexers`` are added to the kind's own. Every ``resync_seconds`` every handler is told of
    every object again. Every ``probe_seconds`` the informer proves that its store is up to date.
    """

    def __init__(
        self,
        reads: Reads[T, Any, Any],
        *,
        indexers: Mapping[str, Indexer[T]] | None = None,
        resync_seconds: float | None = None,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._caller = reads.caller
        self._synced = threading.Event()
        self._stop = Stop()
        self.state: Informing[T] = Informing(
            reads.kind,
            indexers=indexers,
            probe_seconds=probe_seconds,
            resync_seconds=resync_seconds,
            synced=self._synced.set,
        )
        self._reflector = Reflector(
            self._caller, reads.kind, self.state, self._stop, clock=self.state.clock
        )
        self._threads: list[threading.Thread] = []
        self._started = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.state!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- its life

    def start(self) -> None:
        """Begin to follow the server. Returns at once. May be repeated."""
        if self._started or self._stop.is_set():
            return
        self._started = True
        self._run("reflector", self._reflect)
        self._run("prober", lambda: self._every(self.state.probe_seconds, self._probe))
        if (seconds := self.state.resync_seconds) is not None:
            self._run("resync", lambda: self._every(seconds, self.state.resync))

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """End the watch and the handlers. What waits for a handler is dropped; a handler that runs
        is waited for, ``timeout_seconds`` at most. Readers keep the last state, which grows stale.
        May be repeated, and called by a handler."""
        self._stop.set()
        self.state.end()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_seconds)

    # --- handlers

    def add_handler(
        self,
        *,
        on_add: Callable[[T], Any] | None = None,
        on_update: Callable[[T, T], Any] | None = None,
        on_delete: Callable[[T], Any] | None = None,
        queue_changes: int = QUEUE_CHANGES,
    ) -> Registration[T]:
        """Call these, one after the other, in a thread of their own: with each object that comes,
        with old and new of each that changes, and with the last state of each that goes.

        A handler that joins late is first told of everything that is there. It may take its time
        and may raise: see :mod:`~device_api_core.client.delivery`. ``queue_changes`` may wait for
        it before they are coalesced.
        """
        awake = threading.Event()
        registration = Registration(
            Handler(on_add, on_update, on_delete),
            name=name_of(on_add, on_update, on_delete),
            capacity=queue_changes,
            wake=awake.set,
        )
        self.state.add(registration)
        self._run(f"handler {registration.name}", lambda: self._deliver(registration, awake))
        if self._stop.is_set():
            registration.remove()
        return registration

    # --- what is known

    @property
    def lister(self) -> Lister[T]:
        """Reads of the store."""
        return Lister(self.state)

    @property
    def has_synced(self) -> bool:
        """Whether the store holds a list of the server."""
        return self.state.has_synced

    def wait_for_sync(self, timeout_seconds: float = 30.0) -> None:
        """Wait until the store holds a list of the server.

        Raises:
            NotSynced: it does not after that time; the message says what the server answered.
        """
        if not self._synced.wait(timeout_seconds):
            raise NotSynced(self.state.too_late(timeout_seconds))

    @property
    def last_synced(self) -> int | None:
        """The newest moment of which the store is proven to hold the state, in nanoseconds since
        the Unix epoch; ``None`` before the first list."""
        return self.state.last_synced

    @property
    def age_seconds(self) -> float | None:
        """How long ago that was, by the monotonic clock."""
        return self.state.age_seconds

    def is_stale(self, max_age_seconds: float) -> bool:
        """Whether the store is not proven to be at most that old; true before the first list.

        ``max_age_seconds`` must be more than ``probe_seconds``, else ``ConfigurationError``; three
        times as much forgives a lost probe.
        """
        return self.state.is_stale(max_age_seconds)

    @property
    def progress(self) -> Progress:
        """Counts, and the last failure."""
        return self.state.progress

    # --- threads

    def _run(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"{self.state.kind.name} {name}", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        thread.start()
        self._threads.append(thread)

    def _reflect(self) -> None:
        while not self._stop.is_set():
            try:
                self._reflector.run()
            except Exception as error:  # noqa: BLE001
                # A defect, maybe of an indexer. Ending here would leave a store that nobody
                # follows; going on with pauses leaves one that says it is stale, and a log.
                self.state.failed(error)

    def _probe(self) -> None:
        probe = self.state.probe()
        if probe is None:
            return
        try:
            version = self._caller.call(self.state.kind.version(), stop=self._stop)
        except DeviceApiError:
            # Nothing was proven, so the store ages; what is wrong the watch will say.
            return
        if not self.state.answered(probe, version):
            self._reflector.interrupt()

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while not self._stop.wait(seconds):
            act()

    def _deliver(self, registration: Registration[T], awake: threading.Event) -> None:
        while not registration.ended:
            awake.wait()
            awake.clear()
            while (change := registration.pop()) is not None:
                try:
                    registration.handler(change)
                except Exception as error:  # noqa: BLE001
                    # The consumer's code; whatever it raises, the next change may be bad news.
                    registration.done(error)
                else:
                    registration.done()
