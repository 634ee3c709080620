"""The sink of a provider that runs in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from device_api_core.entries import Change, SetCondition, SetStatus
from device_api_core.errors import InvalidArgument, SinkClosed
from device_api_core.intake import Intake
from device_api_core.plugins.spec import Update
from device_api_core.reservations import covers
from device_api_core.resources import READY, Condition, ConditionStatus, Gpu, GpuSpec
from device_api_core.validation import (
    check_action,
    check_condition,
    check_conditions,
    check_name,
    check_spec,
)

Result = TypeVar("Result")


class ThreadSink:
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
        self._provider_id = provider_id
        self._types = frozenset(types)
        self._loop = loop
        self._intake = intake
        self._synced = synced
        self._summary = summary
        self._lock = threading.Lock()
        self._closed = ""
        self._waiting: set[Future[object]] = set()

    def __repr__(self) -> str:
        return f"<ThreadSink {self._provider_id}{' closed' if self._closed else ''}>"

    def close(self, why: str) -> None:
        """Take nothing more, and release the threads that wait. Called on the loop."""
        with self._lock:
            self._closed = self._closed or why
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_exception(SinkClosed(why))

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        check_name(gpu, "gpu")
        check_spec(spec)
        created, _ = self._on_loop(lambda: self._intake.register(self._provider_id, gpu, spec))
        return created

    def withdraw(self, gpu: str) -> None:
        check_name(gpu, "gpu")
        self._on_loop(lambda: self._intake.withdraw(self._provider_id, gpu))

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        change = self._set_condition(gpu, condition, recommended_action)
        self._on_loop(lambda: self._intake.apply(self._provider_id, [change]))

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        change = self._set_status(gpu, conditions, recommended_action)
        self._on_loop(lambda: self._intake.apply(self._provider_id, [change]))

    @contextmanager
    def update(self, *gpus: str) -> Iterator[Update]:
        for gpu in gpus:
            check_name(gpu, "gpu")
        held = self._on_loop(lambda: self._intake.hold(self._provider_id, gpus))
        staged = _StagedUpdate(self)
        try:
            yield staged
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"
            self._on_loop(lambda: self._intake.abort(held, why))
            raise
        self._on_loop(lambda: self._intake.commit(held, staged.changes))

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        return self._on_loop(lambda: self._intake.known(self._provider_id))

    def gpus(self) -> Sequence[Gpu]:
        return self._on_loop(lambda: self._intake.gpus(self._provider_id))

    def synced(self) -> None:
        def note() -> None:
            self._intake.heard(self._provider_id)
            self._synced()

        self._on_loop(note)

    def alive(self, summary: str = "") -> None:
        def note() -> None:
            self._intake.heard(self._provider_id)
            if summary:
                self._summary(summary)

        self._on_loop(note)

    def _set_condition(self, gpu: str, condition: Condition, action: str | None) -> SetCondition:
        check_name(gpu, "gpu")
        if action is not None:
            check_action(action)
        owned = self._own(condition, "condition")
        check_condition(owned)
        return SetCondition(gpu, owned, action)

    def _set_status(self, gpu: str, conditions: Sequence[Condition], action: str) -> SetStatus:
        check_name(gpu, "gpu")
        check_action(action)
        owned = tuple(self._own(c, f"conditions[{i}]") for i, c in enumerate(conditions))
        check_conditions(owned)
        return SetStatus(gpu, owned, action)

    def _own(self, condition: Condition, field: str) -> Condition:
        if condition.type != READY and not covers(self._types, condition.type):
            raise InvalidArgument(
                f"{field}.type",
                f"provider {self._provider_id} does not declare {condition.type}: add it to types",
            )
        try:
            status = ConditionStatus(condition.status)
        except ValueError as error:
            raise InvalidArgument(
                f"{field}.status", f"must be True, False or Unknown, not {condition.status!r}"
            ) from error
        return replace(condition, status=status, provider_id=self._provider_id)

    def _on_loop(self, step: Callable[[], Result]) -> Result:
        future: Future[object] = Future()
        with self._lock:
            if self._closed:
                raise SinkClosed(self._closed)
            self._waiting.add(future)

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(step())
            except BaseException as error:  # noqa: BLE001
                # Belongs to the provider's thread: it is raised there, not here on the loop.
                future.set_exception(error)
            finally:
                with self._lock:
                    self._waiting.discard(future)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise SinkClosed("the server has stopped") from error
        return future.result()  # type: ignore[return-value]


class _StagedUpdate:
    """The changes of one held update, checked as they come and applied at its end."""

    def __init__(self, sink: ThreadSink) -> None:
        self._sink = sink
        self.changes: list[Change] = []

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        self.changes.append(self._sink._set_condition(gpu, condition, recommended_action))

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        self.changes.append(self._sink._set_status(gpu, conditions, recommended_action))
