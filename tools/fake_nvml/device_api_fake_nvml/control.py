"""The C interface of libfake_nvml.so: structs, argument types, and errors as exceptions."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_char, c_char_p, c_int, c_void_p
from ctypes import c_int32 as i32
from ctypes import c_int64 as i64
from ctypes import c_uint32 as u32
from ctypes import c_uint64 as u64
from functools import cache
from pathlib import Path
from typing import Any

from device_api_fake_nvml.errors import Refused
from device_api_fake_nvml.library import control_library_path

UNSUPPORTED = -(2**63)
ANY_GPU = -1
FOREVER = -1
MAX_GPUS = 16
MAX_FAULTS = 64
MAX_MIG = 8


class NodeIdentity(Structure):
    _fields_ = [
        ("model", c_char * 32),
        ("seed", c_char * 64),
        ("driver_version", c_char * 80),
        ("nvml_version", c_char * 80),
        ("cuda_version", i32),
        ("gpus", i32),
        ("enumerated", i32),
    ]


class GpuIdentity(Structure):
    _fields_ = [
        ("name", c_char * 96),
        ("uuid", c_char * 48),
        ("serial", c_char * 32),
        ("bus_id", c_char * 32),
        ("index", i32),
        ("lost", u32),
        ("board", u32),
    ]


class MigIdentity(Structure):
    _fields_ = [
        ("exists", u32),
        ("gpu_instance", u32),
        ("compute_instance", u32),
        ("slices", u32),
        ("multiprocessors", u32),
        ("memory_mb", u64),
        ("profile", c_char * 16),
        ("uuid", c_char * 48),
    ]


class FaultRecord(Structure):
    _fields_ = [
        ("kind", u32),
        ("gpu", i32),
        ("function", c_char * 64),
        ("remaining", i64),
        ("until_ns", u64),
        ("error", u32),
        ("millis", u32),
    ]


_CONTROLS: dict[str, tuple[Any, list[Any]]] = {
    "create": (c_void_p, [c_char_p, c_char_p, c_char_p]),
    "open": (c_void_p, [c_char_p]),
    "close": (None, [c_void_p]),
    "lock": (None, [c_void_p]),
    "describe": (None, [c_void_p, POINTER(NodeIdentity)]),
    "set_driver": (c_int, [c_void_p, c_char_p, c_int]),
    "reload_driver": (c_int, [c_void_p, c_char_p, c_int, ctypes.c_bool]),
    "kill_event_sets": (c_int, [c_void_p]),
    "signal": (c_int, [c_char_p]),
    "signal_name": (c_char_p, [c_int]),
    "signal_width": (c_int, [c_int]),
    "set": (c_int, [c_void_p, i32, c_int, c_int, i64]),
    "increase": (c_int, [c_void_p, i32, c_int, c_int, i64]),
    "get": (c_int, [c_void_p, i32, c_int, c_int, POINTER(i64)]),
    "identity": (c_int, [c_void_p, i32, POINTER(GpuIdentity)]),
    "new_gpu": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_char_p]),
    "replace_gpu": (c_int, [c_void_p, i32, c_char_p, c_char_p]),
    "set_cluster": (c_int, [c_void_p, i32, c_char_p]),
    "reset": (c_int, [c_void_p, i32, i32, i32, ctypes.c_bool]),
    "inject_event": (c_int, [c_void_p, i32, u64, u64, u32, u32]),
    "lose": (c_int, [c_void_p, i32, u32]),
    "remove_gpu": (c_int, [c_void_p, i32]),
    "add_gpu": (c_int, [c_void_p, i32, i32]),
    "add_fault": (c_int, [c_void_p, POINTER(FaultRecord)]),
    "fault": (c_int, [c_void_p, c_int, POINTER(FaultRecord)]),
    "clear_fault": (c_int, [c_void_p, c_int]),
    "now_ns": (u64, []),
    "create_mig": (c_int, [c_void_p, i32, POINTER(MigIdentity)]),
    "destroy_mig": (c_int, [c_void_p, i32, c_int]),
    "mig": (c_int, [c_void_p, i32, c_int, POINTER(MigIdentity)]),
}


@cache
def library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(control_library_path()), use_errno=True)
    for name, (result, arguments) in _CONTROLS.items():
        function = loaded[f"fake_nvml_{name}"]
        function.restype = result
        function.argtypes = arguments
        setattr(loaded, f"fake_nvml_{name}", function)
    return loaded


def signal_names() -> list[str]:
    names: list[str] = []
    while (name := library().fake_nvml_signal_name(len(names))) is not None:
        names.append(name.decode())
    return names


class State:
    """A mapped node, passed to the functions of the library as it is."""

    def __init__(self, address: int) -> None:
        self._address: int | None = address

    @property
    def _as_parameter_(self) -> c_void_p:
        if self._address is None:
            raise Refused("the node is closed")
        return c_void_p(self._address)

    def close(self) -> None:
        if self._address is not None:
            library().fake_nvml_close(self)
            self._address = None


def create_state(path: Path, model: str, seed: str) -> State:
    return _state_at(
        library().fake_nvml_create(os.fsencode(path), model.encode(), seed.encode()), path
    )


def open_state(path: Path) -> State:
    return _state_at(library().fake_nvml_open(os.fsencode(path)), path)


def _state_at(address: int | None, path: Path) -> State:
    if address is None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return State(address)
