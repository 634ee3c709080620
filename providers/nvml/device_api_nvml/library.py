"""NVML with types: the only module that imports ``pynvml``.

Every call raises :class:`NvmlError` or a child of it and nothing of pynvml's: its exceptions
cannot be hashed, and comparing one with a number raises.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pynvml

from device_api_core.errors import DeviceApiError
from device_api_nvml.loading import LibraryNotFound, open_library

INVALID_ARGUMENT = 2
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, TIMEOUT, LIBRARY_NOT_FOUND = 3, 4, 9, 10, 12
UNINITIALIZED, FUNCTION_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED = 1, 13, 15, 16
VERSION_MISMATCH, UNKNOWN = 18, 999

XID_EVENTS = 0x8
WANTED_EVENTS = 0x8 | 0x2 | 0x100 | 0x2000 | 0x4000 | 0x8000
"""XIDs, and the events that are a reason to look at the GPU at once: double-bit ECC error, MIG
change, fatal poison, GPU unavailable, recovery action. Corrected errors are not among them."""

_INIT_NO_GPUS = 1
_RECOVERY_ACTION_FIELD = 230
_NO_INSTANCE = 0xFFFFFFFF
_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}


class NvmlError(DeviceApiError):
    """An NVML call failed. ``call`` is its name and ``number`` NVML's return code."""

    def __init__(self, call: str, number: int, text: str) -> None:
        super().__init__(f"{call}: {text} (NVML error {number})")
        self.call = call
        self.number = number
        self.text = text


class Unsupported(NvmlError):
    """This board or this driver does not have it (3, 13). Never a sign of a fault."""


class GpuLost(NvmlError):
    """The GPU cannot be reached any more (15)."""


class ResetRequired(NvmlError):
    """The driver refuses the GPU until it is reset (16)."""


class DriverGone(NvmlError):
    """No working driver behind the library: 1, 9, 12 or 18."""


_KINDS: dict[int, type[NvmlError]] = {
    NOT_SUPPORTED: Unsupported,
    FUNCTION_NOT_FOUND: Unsupported,
    GPU_IS_LOST: GpuLost,
    RESET_REQUIRED: ResetRequired,
    UNINITIALIZED: DriverGone,
    DRIVER_NOT_LOADED: DriverGone,
    LIBRARY_NOT_FOUND: DriverGone,
    VERSION_MISMATCH: DriverGone,
}


def nvml_error(call: str, number: int, text: str) -> NvmlError:
    """The error for a return code, of the kind that says what it means for health."""
    return _KINDS.get(number, NvmlError)(call, number, text)


@dataclass(frozen=True, slots=True)
class Handle:
    """A GPU as the library knows it, until shutdown. Two handles of one GPU have one ``address``;
    the pointer objects themselves compare by identity."""

    pointer: Any
    address: int

    @classmethod
    def of(cls, pointer: Any) -> Self:
        return cls(pointer, ctypes.cast(pointer, ctypes.c_void_p).value or 0)


@dataclass(frozen=True, slots=True)
class Event:
    """What a wait returned. ``data`` is the XID for an XID event (999 = one that the library does
    not know), else 0. The instance numbers are ``None`` where the event concerns the whole GPU."""

    handle: Handle
    type: int
    data: int
    gpu_instance: int | None
    compute_instance: int | None


class Nvml:
    """The initialised library. Thread-safe. After :meth:`close` every call fails with
    :class:`DriverGone`, so that a thread that comes back late from a wedged driver cannot use a
    handle that no longer exists."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._closed = False

    @classmethod
    def open(cls, driver_root: str, beside: str = "") -> Self:
        """Load the library (see :func:`~device_api_nvml.loading.open_library`) and initialise it.
        Touches no GPU and does not fail when there is none.

        Raises:
            DriverGone: no library (12), no driver (9), or they are of different versions (18).
            NvmlError: any other refusal, 4 (no permission) and 999 among them.
        """
        try:
            library, file = open_library(driver_root, beside)
        except LibraryNotFound as error:
            raise nvml_error("dlopen", LIBRARY_NOT_FOUND, str(error)) from error
        # pynvml has no door for this. Setting its global decides which file is used whatever its
        # SONAME, and keeps the linker's own words when none opens. Its cache of functions would
        # still lead into the library before this one.
        with pynvml.libLoadLock:
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()
        nvml = cls(file)
        nvml.call(pynvml.nvmlInitWithFlags, _INIT_NO_GPUS)
        return nvml

    def close(self) -> None:
        """Shut the library down. Nobody may be waiting for events."""
        if not self._closed:
            with suppress(NvmlError):  # of a driver that is gone already
                self.call(pynvml.nvmlShutdown)
            self._closed = True

    def abandon(self) -> None:
        """Use it no more, without shutting it down: somebody is stuck inside."""
        self._closed = True

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call pynvml; its errors become ours here and nowhere else."""
        name = function.__name__
        if self._closed:
            raise nvml_error(name, UNINITIALIZED, "the library was shut down")
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            raise nvml_error(name, error.value, str(error)) from error
        except UnicodeDecodeError as error:  # a text from a damaged InfoROM
            raise nvml_error(name, UNKNOWN, f"unreadable text: {error}") from error

    def driver_version(self) -> str:
        return str(self.call(pynvml.nvmlSystemGetDriverVersion))

    def count(self) -> int:
        """GPUs of the node, those included that this process may not open."""
        return int(self.call(pynvml.nvmlDeviceGetCount))

    def handle(self, index: int) -> Handle:
        """Attaches the GPU: with persistence mode off the first time takes seconds."""
        return Handle.of(self.call(pynvml.nvmlDeviceGetHandleByIndex, index))

    def uuid(self, gpu: Handle) -> str:
        return str(self.call(pynvml.nvmlDeviceGetUUID, gpu.pointer))

    def product_name(self, gpu: Handle) -> str:
        return str(self.call(pynvml.nvmlDeviceGetName, gpu.pointer))

    def serial(self, gpu: Handle) -> str:
        return str(self.call(pynvml.nvmlDeviceGetSerial, gpu.pointer))

    def minor(self, gpu: Handle) -> int:
        return int(self.call(pynvml.nvmlDeviceGetMinorNumber, gpu.pointer))

    def pci_bus_id(self, gpu: Handle) -> str:
        """``0000:1b:00.0``, as the kernel writes it; NVML has eight digits and upper case."""
        info = self.call(pynvml.nvmlDeviceGetPciInfo, gpu.pointer)
        return f"{info.domain & 0xFFFF:04x}:{info.bus:02x}:{info.device:02x}.0"

    def memory_bytes(self, gpu: Handle) -> int:
        return int(self.call(pynvml.nvmlDeviceGetMemoryInfo, gpu.pointer).total)

    def architecture(self, gpu: Handle) -> str:
        """Lower-case name, empty if this version does not know the number."""
        return _ARCHITECTURES.get(self.call(pynvml.nvmlDeviceGetArchitecture, gpu.pointer), "")

    def mig_mode(self, gpu: Handle) -> str:
        """``enabled`` or ``disabled``: the current mode, not the pending one."""
        current, _pending = self.call(pynvml.nvmlDeviceGetMigMode, gpu.pointer)
        return "enabled" if current else "disabled"

    def recovery_action(self, gpu: Handle) -> int:
        """Field 230, what the driver wants done to the GPU: 0 nothing, else see
        :data:`~device_api_nvml.recovery.ACTIONS`. Drivers before R565 do not have it."""
        [value] = self.call(pynvml.nvmlDeviceGetFieldValues, gpu.pointer, [_RECOVERY_ACTION_FIELD])
        if value.nvmlReturn:
            number = int(value.nvmlReturn)
            raise nvml_error("nvmlDeviceGetFieldValues", number, "no recovery action")
        return int(value.value.uiVal)

    def supported_events(self, gpu: Handle) -> int:
        """Bit mask of the event types that the GPU can be registered for."""
        return int(self.call(pynvml.nvmlDeviceGetSupportedEventTypes, gpu.pointer))

    def event_set(self) -> EventSet:
        return EventSet(self, self.call(pynvml.nvmlEventSetCreate))


class EventSet:
    """Where NVML puts the events of the GPUs registered in it. Only one thread uses it, and frees
    it: freeing it under somebody's wait is fatal."""

    def __init__(self, nvml: Nvml, pointer: Any) -> None:
        self._nvml = nvml
        self._pointer = pointer

    def register(self, gpu: Handle, mask: int) -> None:
        """``mask`` must not exceed what the GPU supports. Error 999 leaves the set unusable."""
        self._nvml.call(pynvml.nvmlDeviceRegisterEvents, gpu.pointer, mask, self._pointer)

    def wait(self, milliseconds: int) -> Event | None:
        """The next event, or ``None`` after this time or earlier."""
        try:
            data = self._nvml.call(pynvml.nvmlEventSetWait_v2, self._pointer, milliseconds)
        except NvmlError as error:
            if error.number == TIMEOUT:
                return None
            raise
        instances = [
            None if i == _NO_INSTANCE else int(i)
            for i in (data.gpuInstanceId, data.computeInstanceId)
        ]
        return Event(Handle.of(data.device), int(data.eventType), int(data.eventData), *instances)

    def free(self) -> None:
        self._nvml.call(pynvml.nvmlEventSetFree, self._pointer)
