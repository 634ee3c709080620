"""The shared informer of asyncio: one list and one watch serve any number of handlers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Generic, Self

from device_api_core.client.aio.reads import AsyncReads
from device_api_core.client.aio.reflector import AsyncReflector
from device_api_core.client.delivery import QUEUE_CHANGES, Handler, Registration, name_of
from device_api_core.client.errors import DeviceApiError, NotSynced
from device_api_core.client.indexers import Indexer
from device_api_core.client.informing import PROBE_SECONDS, Informing, Progress
from device_api_core.client.kinds import T
from device_api_core.client.lister import Lister


class AsyncSharedInformer(Generic[T]):
    """Follows all objects of a kind; see :class:`device_api_core.client.informer.SharedInformer`,
    whose tasks these are. Belongs to one event loop; its readers may be in any thread."""

    def __init__(
        self,
        reads: AsyncReads[T, Any, Any],
        *,
        indexers: Mapping[str, Indexer[T]] | None = None,
        resync_seconds: float | None = None,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._caller = reads.caller
        self._synced = asyncio.Event()
        self._stopped = False
        self.state: Informing[T] = Informing(
            reads.kind,
            indexers=indexers,
            probe_seconds=probe_seconds,
            resync_seconds=resync_seconds,
            synced=self._synced.set,
        )
        self._reflector = AsyncReflector(
            self._caller, reads.kind, self.state, clock=self.state.clock
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.state!r}>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- its life

    def start(self) -> None:
        """Begin to follow the server, in tasks of the running loop. May be repeated."""
        if self._started or self._stopped:
            return
        self._started = True
        self._run("reflector", self._reflect())
        self._run("prober", self._probe_every(self.state.probe_seconds))
        if self.state.resync_seconds is not None:
            self._run("resync", self._resync_every(self.state.resync_seconds))

    async def stop(self) -> None:
        """End every task: the watch, and the handlers, which are cancelled where they wait.
        Readers keep the last state, which grows stale. May be repeated, and called by a handler."""
        self._stopped = True
        self.state.end()
        ending = self._tasks - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # --- handlers

    def add_handler(
        self,
        *,
        on_add: Callable[[T], Any] | None = None,
        on_update: Callable[[T, T], Any] | None = None,
        on_delete: Callable[[T], Any] | None = None,
        queue_changes: int = QUEUE_CHANGES,
    ) -> Registration[T]:
        """Call these, plain functions or coroutine functions, one after the other in a task of
        their own; see :meth:`~device_api_core.client.informer.SharedInformer.add_handler`. A plain
        function must not block: it would stop the loop."""
        awake = asyncio.Event()
        registration = Registration(
            Handler(on_add, on_update, on_delete),
            name=name_of(on_add, on_update, on_delete),
            capacity=queue_changes,
            wake=awake.set,
        )
        if self._stopped:
            registration.remove()
            return registration
        self.state.add(registration)
        self._run(f"handler {registration.name}", self._deliver(registration, awake))
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

    async def wait_for_sync(self, timeout_seconds: float = 30.0) -> None:
        """Wait until the store holds a list of the server. Raises ``NotSynced`` if it does not
        after that time; the message says what the server answered."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._synced.wait()
        except TimeoutError:
            raise NotSynced(self.state.too_late(timeout_seconds)) from None

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
        """Whether the store is not proven to be at most that old; see
        :meth:`~device_api_core.client.informer.SharedInformer.is_stale`."""
        return self.state.is_stale(max_age_seconds)

    @property
    def progress(self) -> Progress:
        """Counts, and the last failure."""
        return self.state.progress

    # --- tasks

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.state.kind.name} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reflect(self) -> None:
        while True:
            try:
                await self._reflector.run()
            except Exception as error:  # noqa: BLE001
                # A defect, maybe of an indexer: go on, with pauses, and let the store grow stale.
                self.state.failed(error)

    async def _probe_every(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            probe = self.state.probe()
            if probe is None:
                continue
            try:
                version = await self._caller.call(self.state.kind.version())
            except DeviceApiError:
                # Nothing was proven, so the store ages; what is wrong the watch will say.
                continue
            if not self.state.answered(probe, version):
                self._reflector.interrupt()

    async def _resync_every(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self.state.resync()

    async def _deliver(self, registration: Registration[T], awake: asyncio.Event) -> None:
        while not registration.ended:
            await awake.wait()
            awake.clear()
            while (change := registration.pop()) is not None:
                try:
                    result = registration.handler(change)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001
                    # The consumer's code; whatever it raises, the next change may be bad news.
                    registration.done(error)
                else:
                    registration.done()
