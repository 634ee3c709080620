"""The numbers a GPU reports, by name. `src/signals.h` lists them and says what they mean."""

from __future__ import annotations

import ctypes

from device_api_fake_nvml.control import UNSUPPORTED, State, library, signal_names
from device_api_fake_nvml.errors import GpuNotFound, Refused, SignalNotFound
from device_api_fake_nvml.models import Model


class Signals:
    """Reads and writes signals. None is a value too: NVML then says NOT_SUPPORTED."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._numbers = {name: number for number, name in enumerate(signal_names())}

    def names(self) -> list[str]:
        return list(self._numbers)

    def width(self, name: str) -> int:
        width: int = library().fake_nvml_signal_width(self._number(name))
        return width

    def get(self, gpu: int, name: str, element: int = 0) -> int | None:
        value = ctypes.c_int64()
        result = library().fake_nvml_get(self._state, gpu, self._number(name), element, value)
        self._check(result, gpu, name, element)
        return None if value.value == UNSUPPORTED else value.value

    def row(self, gpu: int, name: str) -> tuple[int | None, ...]:
        return tuple(self.get(gpu, name, element) for element in range(self.width(name)))

    def set(self, gpu: int, name: str, value: int | None, element: int = 0) -> None:
        result = library().fake_nvml_set(
            self._state, gpu, self._number(name), element, UNSUPPORTED if value is None else value
        )
        self._check(result, gpu, name, element)

    def increase(self, gpu: int, name: str, by: int = 1, element: int = 0) -> None:
        """Counts a signal up that the GPU supports."""
        if self.get(gpu, name, element) is None:
            raise Refused(f"GPU {gpu} does not support {name} {element}")
        library().fake_nvml_increase(self._state, gpu, self._number(name), element, by)

    def furnish(self, gpu: int, model: Model) -> None:
        """Sets every signal to what a new board of this model says."""
        for name in self._numbers:
            width = self.width(name)
            values = model.row(name, width) if name in model.signals else ()
            for element in range(width):
                value = values[element] if element < len(values) else None
                self.set(gpu, name, value, element)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            raise SignalNotFound(f"no signal {name!r}")
        return self._numbers[name]

    def _check(self, result: int, gpu: int, name: str, element: int) -> None:
        if result >= 0:
            return
        if not 0 <= element < self.width(name):
            raise SignalNotFound(f"{name} has elements 0 to {self.width(name) - 1}, not {element}")
        raise GpuNotFound(f"no GPU {gpu} in this node")
