"""NVML calls that hang, fail or are slow."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum

from device_api_fake_nvml.control import ANY_GPU, FOREVER, MAX_FAULTS, FaultRecord, State, library
from device_api_fake_nvml.errors import FunctionNotFound, GpuNotFound, Refused
from device_api_fake_nvml.library import functions

# Other names for one entry point of the library.
_ALIASES = {"nvmlInit": "nvmlInitWithFlags", "nvmlInit_v2": "nvmlInitWithFlags"}


class FaultKind(IntEnum):
    HANG = 1
    FAIL = 2
    SLOW = 3


@dataclass(frozen=True)
class Fault:
    """`function` None: every function. `gpu` None: every GPU and calls that name none."""

    kind: FaultKind
    function: str | None = None
    gpu: int | None = None
    error: int = 0
    times: int | None = None
    seconds: float | None = None
    millis: int = 0

    def __str__(self) -> str:
        return f"{self.function or 'every function'} {self._effect()}"

    def _effect(self) -> str:
        if self.kind is FaultKind.HANG:
            return "hangs" if self.seconds is None else f"hangs for {self.seconds:.1f} s more"
        if self.kind is FaultKind.SLOW:
            return f"takes {self.millis} ms longer"
        often = "" if self.times is None else f", {self.times} times more"
        return f"returns {self.error}{often}"

    def record(self) -> FaultRecord:
        until = 0
        if self.seconds is not None:
            until = library().fake_nvml_now_ns() + int(self.seconds * 1e9)
        return FaultRecord(
            kind=self.kind,
            gpu=ANY_GPU if self.gpu is None else self.gpu,
            function=(self.function or "").encode(),
            remaining=FOREVER if self.times is None else self.times,
            until_ns=until,
            error=self.error,
            millis=self.millis,
        )

    @classmethod
    def from_record(cls, record: FaultRecord) -> Fault:
        seconds = None
        if record.until_ns:
            seconds = max(0, record.until_ns - library().fake_nvml_now_ns()) / 1e9
        return cls(
            kind=FaultKind(record.kind),
            function=record.function.decode() or None,
            gpu=None if record.gpu == ANY_GPU else record.gpu,
            error=record.error,
            times=None if record.remaining == FOREVER else record.remaining,
            seconds=seconds,
            millis=record.millis,
        )


class Calls:
    """The faults of one node's calls.

    `function` None means every function; `nvmlEventSetWait` means its `_v2` too. `gpu` None means
    every GPU, and calls that name no GPU. A fault reaches a wait for events that is in progress.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"Calls({self.faults()!r})"

    def hang(
        self, function: str | None = None, gpu: int | None = None, seconds: float | None = None
    ) -> None:
        """Calls block for so long, or until `unhang`."""
        self._add(Fault(FaultKind.HANG, checked_function(function), gpu, seconds=seconds))

    def unhang(self, function: str | None = None, gpu: int | None = None) -> int:
        """Releases the calls blocked by such a fault, or by any. Returns how many faults ended."""
        return self.clear(FaultKind.HANG, function, gpu)

    def fail(
        self,
        function: str | None,
        error: int,
        gpu: int | None = None,
        times: int | None = None,
    ) -> None:
        """Calls return `error`, so many times or until cleared."""
        self._add(Fault(FaultKind.FAIL, checked_function(function), gpu, error, times))

    def slow(self, function: str | None, millis: int, gpu: int | None = None) -> None:
        self._add(Fault(FaultKind.SLOW, checked_function(function), gpu, millis=millis))

    def faults(self) -> list[Fault]:
        return [fault for _, fault in self._numbered()]

    def clear(
        self, kind: FaultKind | None = None, function: str | None = None, gpu: int | None = None
    ) -> int:
        """Ends the faults that match what is given; without arguments all of them."""
        function = checked_function(function)
        chosen = [
            number
            for number, fault in self._numbered()
            if kind in (None, fault.kind)
            and function in (None, fault.function)
            and gpu in (None, fault.gpu)
        ]
        for number in chosen:
            library().fake_nvml_clear_fault(self._state, number)
        return len(chosen)

    def _numbered(self) -> list[tuple[int, Fault]]:
        found = []
        record = FaultRecord()
        for number in range(MAX_FAULTS):
            library().fake_nvml_fault(self._state, number, record)
            if record.kind:
                found.append((number, Fault.from_record(record)))
        return found

    def _add(self, fault: Fault) -> None:
        if fault.times is not None and fault.times < 1:
            raise Refused(f"a call fails at least once, not {fault.times} times")
        result = library().fake_nvml_add_fault(self._state, fault.record())
        if result == -errno.ENOENT:
            raise GpuNotFound(f"no GPU {fault.gpu} in this node")
        if result < 0:
            raise Refused(f"a node keeps {MAX_FAULTS} faults; clear some")


def checked_function(name: str | None) -> str | None:
    """The name as the library knows it. `nvmlEventSetWait` stands for its versions too."""
    if name is None:
        return None
    name = _ALIASES.get(name, name)
    if not any(known == name or known.startswith(f"{name}_v") for known in functions()):
        raise FunctionNotFound(f"the library has no function {name!r}")
    return name
