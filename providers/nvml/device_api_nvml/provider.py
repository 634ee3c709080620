"""The NVML provider: reaches the driver, again and again, and runs sessions on it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from device_api_core.errors import SinkClosed
from device_api_core.plugins import Provider, Sink
from device_api_nvml.areas import AREAS
from device_api_nvml.boards import Boards
from device_api_nvml.calls import Calls, Inbox
from device_api_nvml.health import NVML_READY, Doubt, unresponsive
from device_api_nvml.library import (
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    VERSION_MISMATCH,
    Nvml,
    NvmlError,
)
from device_api_nvml.options import NvmlOptions
from device_api_nvml.recoveries import Recoveries
from device_api_nvml.session import DRIVER, Session
from device_api_nvml.xid import XidPolicy

_FIRST_PAUSE = 1.0
_REASONS = {
    DRIVER_NOT_LOADED: "DriverNotLoaded",
    LIBRARY_NOT_FOUND: "DriverNotLoaded",
    VERSION_MISMATCH: "DriverVersionMismatch",
    NO_PERMISSION: "DriverNotPermitted",
}
_log = logging.getLogger(__name__)


class NvmlProvider(Provider):
    """Reports the health of every GPU that NVML lists. See the documentation of its signals."""

    name = "nvml"
    contract_version = 1
    interval_seconds = 10.0
    types = (NVML_READY, *(area.type for area in AREAS))
    # What a reboot does not cure is read from the board again before anything is True.
    reboot_proof_types = ()

    def __init__(
        self,
        options: NvmlOptions | None = None,
        state_dir: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` is in seconds; holds, windows and rates are measured by it. ``wall`` is Unix
        time, for what is kept in ``state_dir``.

        Raises:
            InvalidOption: the XID lists contradict one another.
        """
        self.options = options or NvmlOptions()
        self.policy = XidPolicy(
            self.options.ignored_xids, self.options.informational_xids, self.options.fatal_xids
        )
        self.clock = clock
        self.recoveries = Recoveries(
            state_dir, self.options.relapse_seconds, clock=clock, wall=wall
        )
        self._clears: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Returns when ``stop`` is set, within three seconds even if a vendor call is stuck."""
        try:
            _Run(self, sink, stop, self._clears).run()
        except SinkClosed:
            _log.info("sink closed")

    def clear(self, gpu: str, type: str) -> None:
        """Forget the GPU's fault; the next look at it decides."""
        self._clears.put((gpu, type))


class _Run:
    """The state of one ``run``: everything here happens on its thread."""

    def __init__(
        self,
        provider: NvmlProvider,
        sink: Sink,
        stop: threading.Event,
        clears: queue.SimpleQueue[tuple[str, str]],
    ) -> None:
        self._options = provider.options
        self._sink = sink
        self._stop = stop
        self._clears = clears
        self._inbox = Inbox(stop, self._between)
        self._calls = Calls(self._inbox)
        self._recoveries = provider.recoveries
        self._boards = Boards(
            sink, provider.policy, provider.options, provider.recoveries, provider.clock
        )
        self._session: Session | None = None
        self._opened: Reached | NvmlError | None = None
        self._synced = False
        self._beside = ""
        self._version = ""
        self._gone: NvmlError | None = None
        self._summary = "looking for the driver"
        self._heard = -inf
        self._beat_seconds = provider.interval_seconds / 2

    def run(self) -> None:
        self._recoveries.load()
        self._boards.resume(self._sink.known(), self._sink.gpus())
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            opened = self._open()
            if isinstance(opened, Reached):
                pause = _FIRST_PAUSE
                self._use(opened)
            elif not self._stop.is_set():
                self._unreachable(opened)
                self._inbox.pump(
                    min(pause, self._options.retry_seconds), lambda: self._opened is not None
                )
                pause *= 2

    def _open(self) -> Reached | NvmlError | None:
        """The driver, or why not, or ``None`` if the library does not come back. An attempt that
        takes longer is not repeated: its outcome is taken when it comes."""
        options = self._options
        if self._opened is None:
            reach = partial(_reach, options.driver_root, self._beside)
            self._calls.start(DRIVER, reach, self._set_opened)
            self._inbox.pump(options.call_seconds, lambda: self._opened is not None)
        opened, self._opened = self._opened, None
        return opened

    def _set_opened(self, outcome: Reached | NvmlError) -> None:
        self._opened = outcome

    def _unreachable(self, error: NvmlError | None) -> None:
        if error is None:
            doubt = unresponsive("Initialising NVML", self._options.call_seconds)
            summary = "driver does not answer"
        else:
            doubt = Doubt(_REASONS.get(error.number, "NvmlInitFailed"), f"{error.message}.")
            if error.number in (DRIVER_NOT_LOADED, VERSION_MISMATCH):
                self._gone = error
            summary = f"driver not loaded: {error.message}"
        if summary != self._summary:
            _log.warning("%s", summary, extra={"reason": doubt.reason})
            self._set_summary(summary)
        self._boards.forget_session(doubt)
        self._boards.publish_all()

    def _use(self, reached: Reached) -> None:
        nvml = reached.nvml
        self._beside = nvml.file
        _log.info("driver %s", reached.version, extra={"file": nvml.file})
        self._boards.forget_session()
        if evidence := self._reloaded(reached.version):
            for board in self._boards:
                board.was_reset(evidence)
        session = Session(nvml, self._boards, self._inbox, self._calls, self._options)
        self._session = session
        try:
            session.begin()
            self._told(session, reached)
            while session.ended is None and not self._stop.is_set():
                session.step()
                self._told(session, reached)
            if session.ended is not None:
                _log.warning("driver lost: %s", session.ended.message)
        finally:
            self._session = None
            session.close()

    def _reloaded(self, version: str) -> str:
        """How it is known that the driver was loaded anew since the last session, if it is. That a
        call failed does not prove it."""
        before, self._version = self._version, version
        gone, self._gone = self._gone, None
        if before and before != version:
            return f"the driver was reloaded (version {before} became {version})"
        if gone is not None:
            return f"the driver was reloaded (before, initialising failed: {gone.text})"
        return ""

    def _told(self, session: Session, reached: Reached) -> None:
        """After each survey: what it means for the provider as a whole."""
        if self._stop.is_set() or session.ended is not None:
            return
        summary = f"driver {reached.version}, {len(self._boards)} GPUs, {reached.nvml.file}"
        if session.silent:
            indexes = ", ".join(str(i) for i in session.silent)
            summary += f"; no answer from the GPU with index {indexes}"
        if self._boards.xids:
            counts = sorted(self._boards.xids.items())
            summary += f"; XIDs {', '.join(f'{code} ({n})' for code, n in counts)}"
        if summary != self._summary:
            self._set_summary(summary)
        if session.enumerated and not self._synced:
            self._synced = True
            self._sink.synced()

    def _set_summary(self, summary: str) -> None:
        self._summary, self._heard = summary, -inf

    def _between(self) -> None:
        """Whatever this thread is waiting for, these do not wait with it."""
        while not self._clears.empty():
            gpu, type_ = self._clears.get()
            if (board := self._boards.get(gpu)) is not None:
                self._boards.clear(board, type_)
                if self._session is not None:
                    self._session.look(board)
        if time.monotonic() - self._heard >= self._beat_seconds:
            self._heard = time.monotonic()
            self._sink.alive(self._summary)


@dataclass(frozen=True, slots=True)
class Reached:
    """An initialised library with a driver behind it."""

    nvml: Nvml
    version: str


def _reach(driver_root: str, beside: str) -> Reached:
    nvml = Nvml.open(driver_root, beside)
    try:
        return Reached(nvml, nvml.driver_version())
    except NvmlError:
        nvml.close()
        raise
