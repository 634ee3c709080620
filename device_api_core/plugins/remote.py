"""The sink of a provider that runs in another process than the server.

What a thread gets from sharing the server's process, this makes up for: a call waits until a server
has acknowledged it, and a server that forgot is told everything again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from device_api_core.client.clientset import Clientset
from device_api_core.client.errors import DeadlineExceeded, NotFound, RpcFailed, Unavailable
from device_api_core.client.retry import Backoff
from device_api_core.client.update import HeldUpdate
from device_api_core.entries import Change
from device_api_core.errors import RATE, DeviceApiError, SinkClosed, UpdateAborted
from device_api_core.intake import LEASE_INTERVALS
from device_api_core.plugins.checked import CheckedSink
from device_api_core.plugins.conversation import Conversation, stage
from device_api_core.plugins.mirror import Mirror
from device_api_core.resources import Condition, Gpu, GpuSpec

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_BEATS_PER_INTERVAL = 3


class _Away(Exception):
    """No server has answered; it may be asked again."""


@dataclass(frozen=True, slots=True)
class _Hold:
    update: HeldUpdate
    gpus: tuple[str, ...]


class RemoteSink(CheckedSink[_Hold]):
    """Each call blocks until a server has acknowledged it, however long that takes.

    ``mirror`` is what the provider has said so far, in earlier runs too. ``cleared`` is called
    with the GPU and type of a condition that an operator has cleared; it must not wait. A call
    that :meth:`close` interrupts raises ``SinkClosed``.
    """

    def __init__(
        self,
        provider_id: str,
        types: Sequence[str],
        clients: Clientset,
        *,
        interval_seconds: float,
        mirror: Mirror,
        cleared: Callable[[str, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(provider_id, types, mirror.tally)
        self._clients = clients
        self._beat_seconds = interval_seconds / _BEATS_PER_INTERVAL
        self._allowed_seconds = LEASE_INTERVALS * interval_seconds
        self._monotonic = monotonic
        self._talk = Conversation(
            provider_id,
            clients,
            interval_seconds=interval_seconds,
            mirror=mirror,
            cleared=cleared,
        )
        # One call at a time: the mirror must see changes in the order in which the server does.
        self._turn = threading.RLock()
        self._calling = 0
        self._started = monotonic()
        self._called: float | None = None
        self._beaten: float | None = None
        self._away = False
        self._patient = True
        self._closed = ""
        self._wake = threading.Event()

    def __repr__(self) -> str:
        return f"<RemoteSink {self._provider_id}{' closed' if self._closed else ''}>"

    @property
    def is_synced(self) -> bool:
        """Whether the provider has said so."""
        return self._talk.synced

    @property
    def is_silent(self) -> bool:
        """Whether the provider has missed its intervals, and not because it waits for a server."""
        heard = self._started if self._called is None else self._called
        return not self._calling and self._monotonic() - heard > self._allowed_seconds

    def close(self, why: str) -> None:
        """Take nothing more, and release the threads that wait."""
        self._closed = self._closed or why
        self._wake.set()
        self._clients.close()

    def wait_no_more(self) -> None:
        """Calls that no server answers raise ``SinkClosed`` from now on, the others go on."""
        self._patient = False
        self._wake.set()

    def server_changed(self, here: bool) -> None:
        """The connection broke, or a server is there again: tell it at once what it has to know,
        unless the provider itself has not been heard for too long."""
        if not here:
            self._talk.behind = True
            return
        self._wake.set()
        with self._turn:
            if self._talk.behind and not self._is_overdue():
                self._replay_unasked()

    def fail(self, reason: str, message: str) -> None:
        """The provider is no longer believed: its True becomes Unknown, now or as soon as a server
        is there."""
        with self._turn:
            self._talk.mirror.lose(reason, message)
            self._replay_unasked()

    def operator_cleared(self, gpu: str, type_: str) -> bool:
        """An operator has cleared a condition: do not say it again on the provider's behalf.
        Returns whether the provider is to be told."""
        with self._turn:
            return self._talk.operator_cleared(gpu, type_)

    # --- the contract

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        return self._ask(self._talk.known)

    def gpus(self) -> Sequence[Gpu]:
        return self._ask(self._talk.gpus)

    def synced(self) -> None:
        self._talk.synced = True
        self._ask(self._beat)

    def _alive(self, summary: str) -> None:
        news = summary not in ("", self._talk.summary)
        self._talk.summary = summary or self._talk.summary
        self._ask(self._beat if news else lambda: None)

    def _register(self, gpu: str, spec: GpuSpec) -> bool:
        return self._ask(lambda: self._talk.register(gpu, spec))

    def _withdraw(self, gpu: str) -> None:
        self._ask(lambda: self._talk.withdraw(gpu))

    def _apply(self, change: Change) -> None:
        self._ask(lambda: self._talk.apply(change), change.gpu)

    def _hold(self, gpus: tuple[str, ...]) -> _Hold:
        return _Hold(self._ask(lambda: self._talk.hold(gpus), *gpus), gpus)

    def _abort(self, held: _Hold, why: str) -> None:
        held.update.abort(why)
        with self._turn:
            self._doubt(held, why)

    def _commit(self, held: _Hold, changes: Sequence[Change]) -> None:
        with self._turn:
            self._note_call()
            try:
                stage(held.update, changes)
                held.update.commit()
            except DeviceApiError as error:
                self._doubt(held, error.message)
                if self._closed:
                    raise SinkClosed(self._closed) from error
                if isinstance(error, Unavailable | DeadlineExceeded | RpcFailed):
                    # Applied or not, a provider must know that its readers did not wait for it.
                    self._talk.behind = True
                    raise UpdateAborted(f"the server was lost meanwhile: {error}") from error
                raise
            for change in changes:
                self._talk.accepted(change)

    def _doubt(self, held: _Hold, why: str) -> None:
        message = f"the provider's update was aborted: {why}"
        self._talk.mirror.lapse("UpdateAborted", message, held.gpus)

    # --- asking

    def _ask(self, send: Callable[[], Result], *about: str) -> Result:
        """Send until it is answered, then show life if it is time to."""
        self._calling += 1
        try:
            with self._turn:
                self._note_call()
                result = self._until_answered(send, about)
                if self._beat_is_due():
                    self._until_answered(self._beat, ())
            return result
        finally:
            self._called = self._monotonic()
            self._calling -= 1

    def _until_answered(self, send: Callable[[], Result], about: Sequence[str]) -> Result:
        pauses = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            self._wake.clear()
            with suppress(_Away):
                return self._try(lambda: self._caught_up(send, about))
            if not self._patient:
                raise SinkClosed("the provider is to stop, and no server answers")
            self._wake.wait(pauses.pause())

    def _caught_up(self, send: Callable[[], Result], about: Sequence[str]) -> Result:
        if self._talk.behind:
            self._replay()
        try:
            return send()
        except NotFound:
            if not any(self._talk.mirror.has_registered(gpu) for gpu in about):
                raise
        # The provider has registered it, so the server must be a new one or have forgotten it.
        self._replay()
        return send()

    def _replay_unasked(self) -> None:
        try:
            self._try(self._talk.replay)
        except (_Away, SinkClosed):
            return
        except DeviceApiError as error:
            # Of a server that runs it itself, say. The provider meets the same.
            logger.warning("the server refuses this provider", extra={"error": error.message})

    def _replay(self) -> None:
        if self._is_overdue():
            self._disbelieve()
        self._talk.replay()

    def _try(self, step: Callable[[], Result]) -> Result:
        """One attempt. Raises ``_Away`` if nobody answers."""
        if self._closed:
            raise SinkClosed(self._closed)
        try:
            result = step()
        except DeviceApiError as error:
            if self._closed:
                # Whatever the closed connection made of it.
                raise SinkClosed(self._closed) from error
            if not _is_absence(error):
                raise
            self._talk.behind = True
            self._note_away(str(error))
            raise _Away from error
        self._note_away("")
        return result

    def _note_away(self, why: str) -> None:
        if bool(why) is self._away:
            return
        self._away = bool(why)
        if why:
            logger.warning("no server answers", extra={"error": why})
        else:
            logger.info("the server answers")

    # --- life

    def _note_call(self) -> None:
        if self._is_overdue():
            self._disbelieve()
        self._called = self._monotonic()

    def _beat(self) -> None:
        self._talk.beat()
        self._beaten = self._monotonic()

    def _beat_is_due(self) -> bool:
        return self._beaten is None or self._monotonic() - self._beaten >= self._beat_seconds

    def _is_overdue(self) -> bool:
        """Whether what the provider once saw is too old to be vouched for."""
        return self._called is None or self._monotonic() - self._called > self._allowed_seconds

    def _disbelieve(self) -> None:
        silence = f"provider {self._provider_id} for {self._allowed_seconds:g} s"
        self._talk.mirror.lapse("ProviderLost", f"nothing was heard from {silence}")


def _is_absence(error: DeviceApiError) -> bool:
    # gRPC says CANCELLED when a server goes while it answers.
    if isinstance(error, RpcFailed):
        return error.status == "CANCELLED"
    return isinstance(error, Unavailable | DeadlineExceeded) or error.reason == RATE
