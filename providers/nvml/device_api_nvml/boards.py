"""The GPUs this provider knows: their health, and what the daemon was told about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from device_api_core.errors import NotFound
from device_api_core.plugins import Sink, Update
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_nvml.health import (
    AWAITED,
    LOST,
    NVML_READY,
    RESET_REQUIRED,
    Doubt,
    Fault,
    Health,
)
from device_api_nvml.library import (
    DriverGone,
    Event,
    GpuLost,
    Handle,
    NvmlError,
    ResetRequired,
    Unsupported,
)
from device_api_nvml.survey import Answer
from device_api_nvml.xid import XidPolicy, builtin_table

_FAILURES_BEFORE_DOUBT = 2
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Board:
    """One GPU. ``index`` and ``handle`` are of the present driver session and ``None`` until the
    GPU was seen in it. An answer proves health only if its look began after ``fresh_after``."""

    name: str
    health: Health
    spec: GpuSpec | None = None
    index: int | None = None
    handle: Handle | None = None
    fresh_after: float = 0.0
    failures: int = 0
    told: tuple[Condition, str] | None = field(default=None, repr=False)

    @property
    def answers(self) -> bool:
        """Whether the last look at it went well."""
        return (
            self.handle is not None and self.failures == 0 and self.health.probe in (None, AWAITED)
        )

    def expect(self, doubt: Doubt = AWAITED) -> None:
        """Take nothing for granted that was learned before this moment."""
        self.fresh_after = time.monotonic()
        self.health = replace(self.health, probe=doubt)


class Boards:
    """All GPUs by name. The only one that writes to the sink about them. Not thread-safe."""

    def __init__(self, sink: Sink, policy: XidPolicy, notice_seconds: float) -> None:
        self.writer: Sink | Update = sink
        """Where conditions go: the sink, or the update that is held."""
        self.sink = sink
        self._policy = policy
        self._notice_seconds = notice_seconds
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

    def resume(self, known: Mapping[str, tuple[Condition, ...]]) -> None:
        """Begin from what was said before a restart."""
        builtin = {row.code: row for row in builtin_table()}
        for name, conditions in known.items():
            said = next((c for c in conditions if c.type == NVML_READY), None)
            self._boards[name] = Board(name, Health.resumed(said, builtin))

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
            board = self._boards[answer.name] = Board(answer.name, Health())
        for other in self:  # indexes move up when a GPU before them goes
            if other is not board and other.index == answer.index:
                other.index = None
        board.index, board.handle = answer.index, answer.handle
        if board.spec is None or (answer.error is None and board.spec != answer.spec):
            board.spec = answer.spec
            self._register(board)
        return board

    def judge(self, board: Board, answer: Answer) -> None:
        """What an answer means for the GPU's health."""
        error = answer.error
        if error is None:
            board.failures = 0
            if answer.began >= board.fresh_after:
                board.health = replace(board.health, probe=None)
            board.health = board.health.advised(answer.recovery)
        elif isinstance(error, GpuLost):
            self._strike(board, LOST, error)
        elif isinstance(error, ResetRequired):
            self._strike(board, RESET_REQUIRED, error)
        elif not isinstance(error, DriverGone):  # which is the driver's matter, not the GPU's
            board.failures += 1
            if board.failures >= _FAILURES_BEFORE_DOUBT:
                board.health = replace(board.health, probe=Doubt("NvmlError", f"{error.message}."))
        self.publish(board)

    def _strike(self, board: Board, fault: Fault, error: NvmlError) -> None:
        board.failures += 1
        text = f"{fault.text} {error.message}."
        board.health = replace(
            board.health.struck(replace(fault, text=text)), probe=Doubt(fault.reason, text)
        )

    def strike(self, board: Board, fault: Fault) -> None:
        """A fault that was noticed by other means than an answer."""
        board.health = replace(board.health.struck(fault), probe=Doubt(fault.reason, fault.text))
        self.publish(board)

    def doubt(self, board: Board, doubt: Doubt) -> None:
        """The GPU's looks do not come to an end, or not to a result."""
        board.health = replace(board.health, probe=doubt)
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
        xid = self._policy[event.data]
        until = time.monotonic() + self._notice_seconds
        before = board.told
        board.health = board.health.hit(xid, until, _where(event))
        self.publish(board)
        # A storm of one code is one line.
        level = logging.WARNING if board.told != before else logging.DEBUG
        extra = {"gpu": board.name, "xid": xid.code, "effect": str(xid.effect)}
        _log.log(level, "XID %d", xid.code, extra=extra)

    def clear(self, board: Board) -> None:
        """An operator declares the fault's cause gone."""
        if board.health.fault is None:
            return
        _log.info("fault cleared by an operator", extra={"gpu": board.name})
        board.health = board.health.lifted()
        board.fresh_after = time.monotonic()
        board.failures = 0
        self.publish(board)

    def publish(self, board: Board, *, again: bool = False) -> None:
        """Tell the daemon, if there is something new to say or if ``again``."""
        board.health = board.health.current(time.monotonic())
        if board.health.pending:
            return
        saying = (board.health.condition, board.health.action)
        if saying == board.told and not again:
            return
        condition, action = saying
        _log_change(board, condition, action)
        try:
            self._say(board, condition, action)
        except NotFound:  # somebody unregistered it
            if board.handle is None or board.spec is None:
                del self._boards[board.name]
                return
            self._register(board)
            self._say(board, condition, action)
        board.told = saying

    def publish_all(self) -> None:
        """Say everything once more: a repetition costs nothing and mends what was lost."""
        for board in self:
            self.publish(board, again=True)

    def _say(self, board: Board, condition: Condition, action: str) -> None:
        # A fault from before a restart may have an action that only the daemon remembers.
        untold = condition.status is ConditionStatus.FALSE and not action
        self.writer.set_condition(
            board.name, condition, recommended_action=None if untold else action
        )

    def _register(self, board: Board) -> None:
        spec = board.spec or GpuSpec()
        if self.sink.register(board.name, spec):
            _log.info("GPU registered", extra={"gpu": board.name, "index": spec.index})


def _where(event: Event) -> str:
    if event.gpu_instance is None:
        return ""
    compute = "" if event.compute_instance is None else f", compute {event.compute_instance}"
    return f" In MIG instance {event.gpu_instance}{compute}."


def _log_change(board: Board, condition: Condition, action: str) -> None:
    before = board.told[0] if board.told else None
    if before and (before.status, before.reason) == (condition.status, condition.reason):
        return
    level = logging.INFO if condition.status is ConditionStatus.TRUE else logging.WARNING
    _log.log(
        level,
        "%s is %s",
        condition.type,
        condition.status,
        extra={
            "gpu": board.name,
            "reason": condition.reason,
            "detail": condition.message,
            "action": action,
        },
    )
