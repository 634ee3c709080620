"""The GPUs this provider knows: their health, and what the daemon was told about it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from device_api_core.errors import NotFound
from device_api_core.plugins import Sink, Update
from device_api_core.resources import Condition, Gpu, GpuSpec
from device_api_nvml import journal
from device_api_nvml.board import Board, where
from device_api_nvml.healing import Terms, Trial
from device_api_nvml.health import (
    AWAITED,
    LOST,
    NOT_FOUND,
    NVML_READY,
    RESET_REQUIRED,
    Doubt,
    Fault,
    Health,
    Story,
)
from device_api_nvml.library import (
    DriverGone,
    Event,
    GpuLost,
    NvmlError,
    ResetRequired,
    Unsupported,
)
from device_api_nvml.options import NvmlOptions
from device_api_nvml.recoveries import Recoveries
from device_api_nvml.survey import Answer
from device_api_nvml.vitals import Vitals
from device_api_nvml.xid import Effect, XidPolicy, builtin_table

_FAILURES_BEFORE_DOUBT = 2
_log = logging.getLogger(__name__)


class Boards:
    """All GPUs by name. The only one that writes to the sink about them. Not thread-safe."""

    def __init__(
        self,
        sink: Sink,
        policy: XidPolicy,
        options: NvmlOptions,
        recoveries: Recoveries,
        clock: Callable[[], float],
    ) -> None:
        self.writer: Sink | Update = sink
        """Where conditions go: the sink, or the update that is held."""
        self.sink = sink
        self._policy = policy
        self.xids: Counter[int] = Counter()
        """How often each code came, of any GPU."""
        self._options = options
        self._recoveries = recoveries
        self._clock = clock
        self._terms = Terms(options.hold_seconds, options.relapse_seconds)
        self._story = Story(options.burst_seconds, options.notice_seconds)
        self._boards: dict[str, Board] = {}

    def __iter__(self) -> Iterator[Board]:
        return iter(tuple(self._boards.values()))

    def __len__(self) -> int:
        return len(self._boards)

    @contextmanager
    def writing_to(self, update: Update) -> Iterator[None]:
        """Everything said in the block becomes visible when the update ends."""
        self.writer = update
        try:
            yield
        finally:
            self.writer = self.sink

    def get(self, name: str) -> Board | None:
        return self._boards.get(name)

    def resume(self, known: Mapping[str, tuple[Condition, ...]], gpus: Iterable[Gpu]) -> None:
        """Begin from what was said before a restart."""
        builtin = {row.code: row for row in builtin_table()}
        specs = {gpu.name: gpu.spec for gpu in gpus}
        for name, conditions in known.items():
            said = next((c for c in conditions if c.type == NVML_READY), None)
            board = self._new(name, Health.resumed(said, builtin))
            board.place = specs[name].pci_bus_id if name in specs else ""
            board.trial = board.trial.struck(self._clock(), self._terms)
            board.vitals.resume(conditions, self._clock())

    def _new(self, name: str, health: Health) -> Board:
        vitals = Vitals(self._options, self._terms, partial(self._recoveries.of, name))
        board = self._boards[name] = Board(name, health, vitals, self._recoveries)
        return board

    def forget_session(self, doubt: Doubt = AWAITED) -> None:
        """The driver is gone or new: handles and indexes mean nothing any more. Faults stay."""
        for board in self:
            board.handle = board.index = None
            board.failures = 0
            board.health = replace(board.health, watch=AWAITED)
            board.expect(doubt)
            self.publish(board)

    def of(self, answer: Answer) -> Board | None:
        """Whose answer it is: by UUID, or by handle or index if the GPU no longer tells it."""
        if answer.name:
            return self._boards.get(answer.name)
        if answer.handle is not None:
            return next(
                (b for b in self if b.handle and b.handle.address == answer.handle.address), None
            )
        return next((b for b in self if b.index == answer.index), None)

    def met(self, answer: Answer) -> Board | None:
        """Note who and where the GPU is; register it if it or its facts are new."""
        if not answer.name or answer.spec is None:
            return self.of(answer)
        board = self._boards.get(answer.name)
        if board is None:
            board = self._new(answer.name, Health())
        for other in self:  # indexes move up when a GPU before them goes
            if other is not board and other.index == answer.index:
                other.index = None
        board.index, board.handle = answer.index, answer.handle
        if board.spec is None or (answer.error is None and board.spec != answer.spec):
            journal.mig(board, answer.spec)
            board.spec, board.place = answer.spec, answer.spec.pci_bus_id or board.place
            self._register(board)
        return board

    def judge(self, board: Board, answer: Answer) -> None:
        """What an answer means for the GPU's health."""
        error = answer.error
        if error is None:
            board.failures = 0
            self._judge_good(board, answer)
        elif isinstance(error, GpuLost):
            board.absences += 1
            self._refused(board, LOST, error)
        elif isinstance(error, ResetRequired):
            self._refused(board, RESET_REQUIRED, error)
        else:
            board.unproven()
            if not isinstance(error, DriverGone):  # which is the driver's matter, not the GPU's
                board.failures += 1
                if board.failures >= _FAILURES_BEFORE_DOUBT:
                    doubt = Doubt("NvmlError", f"{error.message}.")
                    board.health = replace(board.health, probe=doubt)
        self.publish(board)

    def _judge_good(self, board: Board, answer: Answer) -> None:
        if answer.began < board.fresh_after:
            return
        now = self._clock()
        if evidence := board.returned() or board.vitals.reset_seen(answer.readings):
            board.was_reset(evidence)
        board.health = replace(board.health, probe=None)
        board.vitals.judge(answer.readings, now, board.recovered)
        if (fault := board.health.fault) and (evidence := board.prove(answer, now)):
            board.recovered(NVML_READY, fault.reason, evidence)
            board.health = board.health.healed()
            board.trial = board.trial.ended(now)

    def _refused(self, board: Board, fault: Fault, error: NvmlError) -> None:
        board.failures += 1
        self.strike(board, replace(fault, text=f"{fault.text} {error.message}."))

    def strike(self, board: Board, fault: Fault) -> None:
        """A fault that leaves nothing to be read from the GPU."""
        health = replace(board.health.struck(fault), probe=Doubt(fault.reason, fault.text))
        board.strike(self._clock(), self._terms, health)
        board.vitals.failed()
        self.publish(board)

    def missing(self, board: Board, successor: Board | None) -> None:
        """The driver does not list it any more; ``successor`` is where it was."""
        board.index = board.handle = None
        board.absences += 1
        if board.retired:
            board.unproven()
        elif successor is None:
            self.strike(board, NOT_FOUND)
        else:
            board.retire(self._clock(), self._terms, successor.name)
            self.publish(board)

    def interrupted(self) -> None:
        """For a while XIDs could have been missed: the proof that there was none begins anew."""
        for board in self:
            board.trial = board.trial.failed()

    def rare_due(self, index: int) -> bool:
        """Whether the look that begins now should read what is expensive, too."""
        board = next((b for b in self if b.index == index), None)
        return board is None or board.is_rare_due(self._options.rare_seconds)

    def doubt(self, board: Board, doubt: Doubt) -> None:
        """The GPU's looks do not come to an end, or not to a result."""
        board.health = replace(board.health, probe=doubt)
        board.unproven()
        self.publish(board)

    def doubt_watch(self, doubt: Doubt, only: Board | None = None) -> None:
        """XIDs would not be seen, of one GPU or of any GPU that has them."""
        for board in [only] if only else self:
            if not board.health.unwatched:
                board.health = replace(board.health, watch=doubt)
                self.publish(board)

    def registered(self, board: Board, error: NvmlError | None) -> None:
        """The GPU's events are watched from now on, or why not. What happened before can only be
        seen by looking again."""
        unwatched, watch = "", None
        if isinstance(error, Unsupported):
            unwatched = "The GPU answers; the driver offers no XID events for it."
        elif error is not None:
            watch = Doubt("XidWatchFailed", f"{error.message}.")
        board.health = replace(board.health, watch=watch, unwatched=unwatched)
        if board.health.probe is None:
            board.expect()
        self.publish(board)

    def unwatch(self, board: Board) -> None:
        """XIDs are not watched, by configuration."""
        unwatched = "The GPU answers; XIDs are not watched (health_check is off)."
        board.health = replace(board.health, watch=None, unwatched=unwatched)
        self.publish(board)

    def hit(self, board: Board, event: Event) -> None:
        """An XID of this GPU."""
        xid, now = self._policy[event.data], self._clock()
        before = dict(board.told)
        health = board.health.hit(xid, now, self._story, where(event, board.spec))
        if xid.effect is Effect.FATAL:
            board.strike(now, self._terms, health)
        board.health = health
        self.publish(board)
        journal.xid(board, xid, news=board.told != before)

    def clear(self, board: Board, type_: str) -> None:
        """An operator declares the fault's cause gone."""
        if type_ != NVML_READY:
            if not board.vitals.clear(type_):
                return
        elif board.health.fault is None:
            return
        else:
            board.health = board.health.lifted()
            board.trial = Trial()
        extra = {"gpu": board.name, "type": type_}
        _log.info("fault cleared by an operator", extra=extra)
        self._recoveries.forget(board.name, type_)
        board.fresh_after = time.monotonic()
        board.failures = 0
        board.rare_due = 0.0
        self.publish(board)

    def publish(self, board: Board, *, again: bool = False) -> None:
        """Tell the daemon, if there is something new to say or if ``again``."""
        board.health = board.health.current(self._clock())
        conditions = board.conditions()
        action = board.action(conditions)
        for condition in conditions:
            saying = (condition, action or "")
            if board.told.get(condition.type) == saying and not again:
                continue
            journal.change(board, condition, action or "")
            try:
                self._say(board, condition, action)
            except NotFound:  # somebody unregistered it
                if board.handle is None or board.spec is None:
                    del self._boards[board.name]
                    return
                self._register(board)
                self._say(board, condition, action)
            board.told[condition.type] = saying

    def publish_all(self) -> None:
        """Say everything once more: a repetition costs nothing and mends what was lost."""
        for board in self:
            self.publish(board, again=True)

    def _say(self, board: Board, condition: Condition, action: str | None) -> None:
        self.writer.set_condition(board.name, condition, recommended_action=action)

    def _register(self, board: Board) -> None:
        spec = board.spec or GpuSpec()
        if self.sink.register(board.name, spec):
            _log.info("GPU registered", extra={"gpu": board.name, "index": spec.index})
