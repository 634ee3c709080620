"""MIG mode and MIG devices of a node's GPUs."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from device_api_fake_nvml.control import MAX_MIG, GpuIdentity, MigIdentity, State, library
from device_api_fake_nvml.errors import GpuNotFound, Refused
from device_api_fake_nvml.identity import mig_uuid
from device_api_fake_nvml.signals import Signals

_PROFILE = re.compile(r"(?P<slices>[1-7])g\.(?P<gigabytes>\d{1,3})gb")
_MULTIPROCESSORS_PER_SLICE = 16


@dataclass(frozen=True)
class MigDevice:
    index: int
    uuid: str
    profile: str
    gpu_instance: int
    compute_instance: int


class Mig:
    def __init__(self, state: State, signals: Signals) -> None:
        self._state = state
        self._signals = signals

    def set_mode(self, gpu: int, on: bool, *, pending_only: bool = False) -> None:
        """With `pending_only` the mode changes at the next reset."""
        if self._signals.get(gpu, "mig-mode") is None:
            raise Refused(f"GPU {gpu} has no MIG")
        if not on and not pending_only and self.devices(gpu):
            raise Refused(f"GPU {gpu} has MIG devices; destroy them first")
        self._signals.set(gpu, "mig-mode", int(on), 1)
        if not pending_only:
            self._signals.set(gpu, "mig-mode", int(on), 0)

    def create(self, gpu: int, profile: str, *, compute_instance: int = 0) -> MigDevice:
        """A MIG device of a profile such as `1g.10gb`. Clients get a configuration event."""
        match = _PROFILE.fullmatch(profile)
        if match is None:
            raise Refused(f"a MIG profile looks like 1g.10gb, not {profile!r}")
        slices = int(match["slices"])
        taken = {device.gpu_instance for device in self.devices(gpu)}
        # Real ids start at 7 for the smallest profile and leave lower ones to larger profiles.
        gpu_instance = next(
            number for number in range(7 if slices == 1 else 1, 99) if number not in taken
        )
        record = MigIdentity(
            exists=1,
            gpu_instance=gpu_instance,
            compute_instance=compute_instance,
            slices=slices,
            multiprocessors=slices * _MULTIPROCESSORS_PER_SLICE,
            memory_mb=int(match["gigabytes"]) * 1024,
            profile=profile.encode(),
            uuid=mig_uuid(self._gpu_uuid(gpu), gpu_instance, compute_instance).encode(),
        )
        index = library().fake_nvml_create_mig(self._state, gpu, record)
        if index == -errno.EINVAL:
            raise Refused(f"MIG is not on for GPU {gpu}")
        if index == -errno.ENOSPC:
            raise Refused(f"GPU {gpu} has no room for another MIG device")
        return _device(index, record)

    def destroy(self, gpu: int, index: int) -> None:
        if library().fake_nvml_destroy_mig(self._state, gpu, index) < 0:
            raise Refused(f"GPU {gpu} has no MIG device {index}")

    def devices(self, gpu: int) -> list[MigDevice]:
        found = []
        for index in range(MAX_MIG):
            record = MigIdentity()
            if library().fake_nvml_mig(self._state, gpu, index, record) < 0:
                raise GpuNotFound(f"no GPU {gpu} in this node")
            if record.exists:
                found.append(_device(index, record))
        return found

    def _gpu_uuid(self, gpu: int) -> str:
        identity = GpuIdentity()
        library().fake_nvml_identity(self._state, gpu, identity)
        uuid: bytes = identity.uuid
        return uuid.decode()


def _device(index: int, record: MigIdentity) -> MigDevice:
    return MigDevice(
        index=index,
        uuid=record.uuid.decode(),
        profile=record.profile.decode(),
        gpu_instance=record.gpu_instance,
        compute_instance=record.compute_instance,
    )
