"""The sink of a provider that runs in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from device_api_core.entries import Change
from device_api_core.errors import SinkClosed
from device_api_core.gate import Hold
from device_api_core.intake import Intake, Saving
from device_api_core.plugins.checked import CheckedSink
from device_api_core.resources import READY, Condition, Gpu, GpuSpec
from device_api_core.series import Tally

Result = TypeVar("Result")


class ThreadSink(CheckedSink[Hold]):
    """Hands each call to the event loop and waits until it is applied there.

    ``synced`` and ``summary`` are called on the loop when the provider says so. After
    :meth:`close` every call, also one that waits, raises ``SinkClosed``.
    """

    def __init__(
        self,
        provider_id: str,
        types: Sequence[str],
        *,
        loop: asyncio.AbstractEventLoop,
        intake: Intake,
        synced: Callable[[], None],
        summary: Callable[[str], None],
    ) -> None:
        super().__init__(provider_id, types, Tally())
        self._loop = loop
        self._intake = intake
        intake.tallies.attach(provider_id, self._tally.read)
        self._synced = synced
        self._summary = summary
        self._lock = threading.Lock()
        self._closed = ""
        self._waiting: set[Future[object]] = set()

    def __repr__(self) -> str:
        return f"<ThreadSink {self._provider_id}{' closed' if self._closed else ''}>"

    def close(self, why: str) -> None:
        """Take nothing more, and release the threads that wait. Called on the loop."""
        self._intake.tallies.detach(self._provider_id, self._tally.read)
        with self._lock:
            self._closed = self._closed or why
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_exception(SinkClosed(why))

    def _register(self, gpu: str, spec: GpuSpec) -> bool:
        created, _ = self._kept(lambda: self._intake.register(self._provider_id, gpu, spec))
        return created

    def _withdraw(self, gpu: str) -> None:
        self._kept(lambda: self._intake.withdraw(self._provider_id, gpu))

    def _apply(self, change: Change) -> None:
        self._kept(lambda: self._intake.apply(self._provider_id, [change]))

    def _hold(self, gpus: tuple[str, ...]) -> Hold:
        return self._on_loop(lambda: self._intake.hold(self._provider_id, gpus))

    def _abort(self, held: Hold, why: str) -> None:
        self._on_loop(lambda: self._intake.abort(held, why))

    def _commit(self, held: Hold, changes: Sequence[Change]) -> None:
        self._kept(lambda: self._intake.commit(held, changes))

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        owned = self._on_loop(lambda: self._intake.known(self._provider_id))
        # An opinion of Ready is shown to nobody, so a provider elsewhere could not read it back.
        said = {gpu: tuple(c for c in found if c.type != READY) for gpu, found in owned.items()}
        return {gpu: found for gpu, found in said.items() if found}

    def gpus(self) -> Sequence[Gpu]:
        return self._on_loop(lambda: self._intake.gpus(self._provider_id))

    def synced(self) -> None:
        def note() -> None:
            self._intake.heard(self._provider_id)
            self._synced()

        self._on_loop(note)

    def _alive(self, summary: str) -> None:
        def note() -> None:
            self._intake.heard(self._provider_id)
            if summary:
                self._summary(summary)

        self._on_loop(note)

    def _kept(self, step: Callable[[], Result]) -> Result:
        """A write: it is on the disk before this returns, if it has to be."""
        return self._on_loop(step, self._intake.saving)

    def _on_loop(self, step: Callable[[], Result], saving: Saving | None = None) -> Result:
        future: Future[object] = Future()
        with self._lock:
            if self._closed:
                raise SinkClosed(self._closed)
            self._waiting.add(future)

        def run() -> None:
            if future.done():
                return
            try:
                result = step()
            except BaseException as error:  # noqa: BLE001
                # Belongs to the provider's thread: it is raised there, not here on the loop.
                self._finish(future, None, error)
                return
            kept = saving() if saving is not None else None
            if kept is None:
                self._finish(future, result)
            else:
                kept.add_done_callback(lambda _: self._finish(future, result))

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise SinkClosed("the server has stopped") from error
        return future.result()  # type: ignore[return-value]

    def _finish(
        self, future: Future[object], result: object, error: BaseException | None = None
    ) -> None:
        with self._lock:
            self._waiting.discard(future)
        # If the sink was closed meanwhile, its thread has been told so.
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
