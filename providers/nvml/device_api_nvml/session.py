"""One driver session: from an initialised library until the driver goes or the provider stops."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial

from device_api_core.errors import LimitExceeded, NotFound
from device_api_nvml.board import Board
from device_api_nvml.boards import Boards
from device_api_nvml.calls import Calls, Inbox
from device_api_nvml.health import Doubt, unresponsive
from device_api_nvml.library import NO_PERMISSION, DriverGone, GpuLost, Nvml, NvmlError
from device_api_nvml.options import NvmlOptions
from device_api_nvml.survey import Answer, examine
from device_api_nvml.watch import Watch

DRIVER = "driver"
"""The key of calls that concern no single GPU."""

_HOLD_SECONDS = 1.5
_FAILURES_BEFORE_END = 3
_LEAVE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Session:
    """Surveys the GPUs again and again, and has their XIDs watched.

    Every vendor call is made through ``calls`` or by the watch; this class only waits for what
    they bring, and never longer than ``call_seconds``."""

    def __init__(
        self, nvml: Nvml, boards: Boards, inbox: Inbox, calls: Calls, options: NvmlOptions
    ) -> None:
        self.silent: tuple[int, ...] = ()
        """Indexes whose GPU did not even say who it is, at the last survey."""
        self.enumerated = False
        """Whether the driver has said once which GPUs there are."""
        self.ended: NvmlError | None = None
        """Why the session is over, once it is."""
        self._nvml = nvml
        self._boards = boards
        self._inbox = inbox
        self._calls = calls
        self._options = options
        self._watch = Watch(nvml, boards, inbox, options, self.look)
        self._count: int | NvmlError = 0
        self._failures = 0
        self._answers: dict[int, Answer] = {}
        self._open = True

    def begin(self) -> None:
        """Find, register and probe every GPU."""
        self.survey()
        self._sync_watch()

    def step(self) -> None:
        """Wait for the next poll or for a signal of the watch, and follow it up."""
        now, watch = time.monotonic(), self._watch
        seconds = self._options.poll_seconds
        if watch.due > now:
            seconds = min(seconds, watch.due - now)
        self._inbox.pump(seconds, lambda: watch.signal is not None or bool(watch.strays))
        signal, watch.signal = watch.signal, None
        if signal is not None:
            watch.sync()  # before anything else: meanwhile XIDs are lost
        if isinstance(signal, GpuLost) or watch.strays:
            self._trace()
        else:
            self.survey()
        self._sync_watch()

    def close(self) -> None:
        """Leave the library, unless somebody is stuck in it."""
        self._open = False
        if self._watch.close() and self._calls.ended(_LEAVE_SECONDS):
            leaving = threading.Thread(target=self._nvml.close, name="nvml close", daemon=True)
            leaving.start()
            leaving.join(_LEAVE_SECONDS)
        else:
            self._nvml.abandon()

    def look(self, board: Board) -> None:
        """Examine one GPU now, without waiting for the result."""
        if board.index is not None:
            self._examine(board.index)

    def survey(self, seconds: float | None = None) -> None:
        """Count and examine all GPUs, and judge those that stay silent or are missing."""
        seconds = self._options.call_seconds if seconds is None else seconds
        if (count := self._counted(seconds)) is None:
            return
        self._answers.clear()
        for index in range(count):
            self._examine(index)
        self._settle(seconds)
        if self._inbox.stopped:
            return
        self._judge_silent(count, seconds)
        self._boards.publish_all()
        self.enumerated = self.enumerated or len(self.silent) < count or count == 0

    def _settle(self, seconds: float) -> None:
        """Wait for the calls that are out, but for none longer than so many seconds."""
        self._inbox.pump(seconds, lambda: not self._calls.awaited(seconds))

    def _sync_watch(self) -> None:
        if self.ended is not None:
            return
        if self._options.health_check:
            self._watch.sync()
            seconds = self._options.call_seconds
            self._inbox.pump(seconds, lambda: not self._watch.starting)
            self._watch.sync()
            self._settle(seconds)  # for the looks that registering has asked for
            return
        for board in self._boards:
            self._boards.unwatch(board)

    def _counted(self, seconds: float) -> int | None:
        """The number of GPUs, or ``None`` if the driver does not say."""
        nvml = self._nvml
        self._calls.start(DRIVER, nvml.count, self._set_count)
        self._settle(seconds)
        if self._inbox.stopped:
            return None
        if self._calls.busy(DRIVER):
            self._failures += 1
            for board in self._boards:
                self._boards.doubt(board, unresponsive("A call to the driver", seconds))
            return None
        if isinstance(self._count, NvmlError):
            self._failures += 1
            if isinstance(self._count, DriverGone) or self._failures >= _FAILURES_BEFORE_END:
                self.ended = self._count
            return None
        self._failures = 0
        return self._count

    def _set_count(self, count: int | NvmlError) -> None:
        self._count = count

    def _examine(self, index: int) -> bool:
        if self._calls.busy(_key(index)):
            return False
        look = partial(examine, self._nvml, index, self._boards.rare_due(index))
        return self._calls.start(_key(index), look, self._take)

    def _take(self, outcome: Answer | NvmlError) -> None:
        """An answer came, in time or long after."""
        if not self._open or isinstance(outcome, NvmlError):
            return
        self._answers[outcome.index] = outcome
        board = self._boards.met(outcome)
        if board is None:
            return
        self._boards.judge(board, outcome)
        if board.health.probe and outcome.error is None:  # it began too early to prove anything
            self.look(board)

    def _judge_silent(self, count: int, seconds: float) -> None:
        seen = {answer.name for answer in self._answers.values()}
        silent = {i for i in range(count) if i not in self._answers or not self._answers[i].name}
        missing = []
        for board in self._boards:
            if board.name in seen:
                continue
            if board.index not in silent:
                missing.append(board)
                continue
            silent.discard(board.index)
            if board.index not in self._answers:
                self._boards.doubt(board, unresponsive("A call to the GPU", seconds))
        self._judge_missing(missing, silent)
        # A GPU that this process may not open is none of its business.
        self.silent = tuple(sorted(silent - {i for i in silent if self._forbidden(i)}))

    def _forbidden(self, index: int) -> bool:
        error = self._answers[index].error if index in self._answers else None
        return error is not None and error.number == NO_PERMISSION

    def _judge_missing(self, missing: list[Board], silent: set[int]) -> None:
        """``silent`` are indexes of which nobody knows whose they are."""
        if len(missing) == len(silent) == 1:
            [index] = silent
            missing[0].index = index
            silent.clear()
            if index in self._answers:
                self._boards.judge(missing[0], self._answers[index])
            else:
                self._boards.doubt(
                    missing[0], unresponsive("A call to the GPU", self._options.call_seconds)
                )
            return
        for board in missing:
            if silent:
                text = "Some GPUs do not say who they are; it may be one of them."
                self._boards.doubt(board, Doubt("NvmlUnresponsive", text))
            else:
                self._boards.missing(board, self._successor(board, missing))

    def _successor(self, board: Board, missing: list[Board]) -> Board | None:
        """The GPU that is where this one was."""
        present = (b for b in self._boards if b.index is not None and b not in missing)
        return next((b for b in present if board.place and b.place == board.place), None)

    def _trace(self) -> None:
        """A fault was signalled without saying of which GPU: ask them all, while readers wait."""
        well = [b for b in self._boards if b.health.fault is None]
        try:
            with ExitStack() as stack:
                names = [board.name for board in well]
                if names:  # an update of none would be one of all
                    with suppress(LimitExceeded):
                        update = stack.enter_context(self._boards.sink.update(*names))
                        stack.enter_context(self._boards.writing_to(update))
                self.survey(min(self._options.call_seconds, _HOLD_SECONDS))
                self._attribute_strays(well)
        except NotFound:  # somebody unregistered one of them in this very moment
            self._boards.publish_all()

    def _attribute_strays(self, well: list[Board]) -> None:
        """XIDs whose GPU the event did not name: they are those of the GPUs that have just turned
        out to be faulty, else of any of them."""
        strays, self._watch.strays = self._watch.strays, []
        for event in strays:
            suspects = [b for b in well if b.health.fault is not None] or well
            _log.error(
                "XID of a GPU that cannot be told",
                extra={"xid": event.data, "suspects": [b.name for b in suspects]},
            )
            for board in suspects:
                self._boards.hit(board, event)


def _key(index: int) -> str:
    return f"GPU {index}"
