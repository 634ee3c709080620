"""A simulated node: a driver root with an NVML library whose answers can be changed live."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from device_api_fake_nvml.calls import Calls
from device_api_fake_nvml.control import (
    MAX_GPUS,
    GpuIdentity,
    NodeIdentity,
    State,
    create_state,
    library,
    open_state,
)
from device_api_fake_nvml.errors import GpuNotFound, NodeExists, NodeNotFound, Refused
from device_api_fake_nvml.health import Health
from device_api_fake_nvml.identity import Gpu, cluster_uuid, gpu_identity
from device_api_fake_nvml.library import (
    check_symbols,
    copy_library,
    environment,
    install,
    library_in,
    state_in,
    uninstall,
)
from device_api_fake_nvml.mig import Mig
from device_api_fake_nvml.models import Model, load_model, model_names
from device_api_fake_nvml.signals import Signals

NOT_ATTRIBUTED = 0xFFFFFFFF
XID_EVENT = 0x8
GPU_IS_LOST = 15

_SEED_BYTES = 63
_VERSION_BYTES = 40


class FakeNode:
    """Use `create` or `open`. GPUs are named by their number."""

    def __init__(self, root: Path, state: State) -> None:
        self.root = root
        self._state = state
        self._control = library()
        self.calls = Calls(state)
        self.signals = Signals(state)
        self.health = Health(self.signals)
        self.mig = Mig(state, self.signals)

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        model: str = "h100",
        gpus: int | None = None,
        driver_version: str | None = None,
        seed: str = "fake",
        without_symbols: Iterable[str] = (),
    ) -> Self:
        """Makes `root` a driver root. `seed` decides UUIDs and serials."""
        if model not in model_names():
            raise Refused(f"no model {model!r}; there are {', '.join(model_names())}")
        facts = load_model(model)
        count = facts.gpus if gpus is None else gpus
        if not 0 <= count <= MAX_GPUS:
            raise Refused(f"a node has 0 to {MAX_GPUS} GPUs, not {count}")
        if len(seed.encode()) > _SEED_BYTES:
            raise Refused(f"a seed has at most {_SEED_BYTES} bytes")
        version = _checked_version(driver_version or facts.driver_version)
        without = list(without_symbols)
        check_symbols(without)
        library_file = library_in(root)
        library_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            state = create_state(state_in(root), model, seed)
        except FileExistsError as error:
            raise NodeExists(f"{root} already holds a fake node") from error
        node = cls(root, state)
        node._populate(facts, count, seed, version)
        # Last: whoever sees the library sees a whole node.
        copy_library(library_file, without)
        return node

    def _populate(self, model: Model, count: int, seed: str, driver_version: str) -> None:
        self._control.fake_nvml_set_driver(self._state, driver_version.encode(), model.cuda_version)
        for number in range(count):
            who = gpu_identity(seed, number)
            self._control.fake_nvml_new_gpu(
                self._state,
                model.name.encode(),
                who.uuid.encode(),
                who.serial.encode(),
                who.bus_id.encode(),
            )
            self._furnish(model, number, seed)

    def _furnish(self, model: Model, number: int, seed: str) -> None:
        """Gives the GPU the signals of a new board."""
        self.signals.furnish(number, model)
        self.signals.set(number, "minor-number", number)
        if self.signals.get(number, "fabric-clique"):
            self._control.fake_nvml_set_cluster(self._state, number, cluster_uuid(seed).bytes)

    @classmethod
    def open(cls, root: Path) -> Self:
        try:
            return cls(root, open_state(state_in(root)))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NodeNotFound(f"{root} holds no fake node") from error
        except OSError as error:
            if error.errno != errno.EPROTO:
                raise
            raise NodeNotFound(f"{root} was made by another version of fake-nvml") from error

    def close(self) -> None:
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FakeNode({str(self.root)!r})"

    @property
    def library(self) -> Path:
        """What an NVML client of this node loads."""
        return library_in(self.root)

    def environment(self) -> dict[str, str]:
        """An environment in which new processes load this node's library."""
        return environment(self.root)

    def describe(self) -> NodeIdentity:
        identity = NodeIdentity()
        self._control.fake_nvml_describe(self._state, identity)
        return identity

    @property
    def driver_version(self) -> str:
        version: bytes = self.describe().driver_version
        return version.decode()

    def gpus(self) -> list[Gpu]:
        return [self.gpu(number) for number in range(self.describe().gpus)]

    def gpu(self, number: int) -> Gpu:
        record = self._identity(number)
        return Gpu(
            number=number,
            index=None if record.index < 0 else record.index,
            uuid=record.uuid.decode(),
            name=record.name.decode(),
            serial=record.serial.decode(),
            bus_id=record.bus_id.decode(),
            lost=record.lost,
        )

    def _identity(self, number: int) -> GpuIdentity:
        record = GpuIdentity()
        self._check(self._control.fake_nvml_identity(self._state, number, record), number)
        return record

    def find(self, name: str) -> int:
        """The number of the GPU with this number or UUID."""
        if name.isdecimal():
            return self.gpu(int(name)).number
        for gpu in self.gpus():
            if gpu.uuid.lower() == name.lower():
                return gpu.number
        raise GpuNotFound(f"no GPU {name} in {self.root}")

    def inject_xid(
        self,
        gpu: int,
        xid: int,
        gpu_instance: int | None = None,
        compute_instance: int | None = None,
    ) -> None:
        self.inject_event(gpu, XID_EVENT, xid, gpu_instance, compute_instance)

    def inject_event(
        self,
        gpu: int,
        event_type: int,
        data: int = 0,
        gpu_instance: int | None = None,
        compute_instance: int | None = None,
    ) -> None:
        if event_type <= 0 or event_type & (event_type - 1):
            raise Refused(f"an event has one type, a single bit, not {event_type:#x}")
        result = self._control.fake_nvml_inject_event(
            self._state,
            gpu,
            event_type,
            data,
            NOT_ATTRIBUTED if gpu_instance is None else gpu_instance,
            NOT_ATTRIBUTED if compute_instance is None else compute_instance,
        )
        self._check(result, gpu)

    def kill_event_sets(self) -> None:
        """Every event set made so far is dead: waiting on it returns 2."""
        self._control.fake_nvml_kill_event_sets(self._state)

    def lose(self, gpu: int, error: int = GPU_IS_LOST) -> None:
        """Every call on the GPU returns `error`; it stays in the count."""
        self._check(self._control.fake_nvml_lose(self._state, gpu, error), gpu)

    def restore(self, gpu: int) -> None:
        self._check(self._control.fake_nvml_lose(self._state, gpu, 0), gpu)

    def remove(self, gpu: int) -> None:
        """The GPU is gone from the enumeration; those behind it move up."""
        self._check(self._control.fake_nvml_remove_gpu(self._state, gpu), gpu, "is removed already")

    def add(self, gpu: int, index: int | None = None) -> None:
        """Puts a removed GPU back where it was, or at another NVML index."""
        result = self._control.fake_nvml_add_gpu(self._state, gpu, -1 if index is None else index)
        self._check(result, gpu, "is not removed")

    def replace(self, gpu: int) -> str:
        """Another, new board at the same PCI address. Returns its UUID."""
        node = self.describe()
        seed = node.seed.decode()
        who = gpu_identity(seed, gpu, self._identity(gpu).board + 1)
        # Its state first: the new UUID never appears with the old board's counters.
        self._furnish(load_model(node.model.decode()), gpu, seed)
        self._control.fake_nvml_replace_gpu(
            self._state, gpu, who.uuid.encode(), who.serial.encode()
        )
        return who.uuid

    def reset(
        self,
        gpu: int,
        *,
        index: int | None = None,
        minor: int | None = None,
        kill_registrations: bool = False,
    ) -> None:
        """Resets the GPU: volatile counters and pending repairs are gone, a lost GPU is back."""
        result = self._control.fake_nvml_reset(
            self._state,
            gpu,
            -1 if index is None else index,
            -1 if minor is None else minor,
            kill_registrations,
        )
        self._check(result, gpu)

    def reload_driver(self, version: str | None = None, *, strand_clients: bool = False) -> None:
        """Nobody is initialised any more, event sets are dead.

        With `strand_clients`, processes that loaded the library before get 18 from nvmlInit.
        """
        node = self.describe()
        now = node.driver_version.decode().removesuffix("-SIMULATED")
        new = now if version is None else _checked_version(version)
        self._control.fake_nvml_reload_driver(
            self._state, new.encode(), node.cuda_version, strand_clients
        )

    def uninstall_library(self) -> None:
        """New processes find no library. The state stays, and `install_library` brings it back."""
        uninstall(self.root)

    def install_library(self) -> None:
        install(self.root)

    def _check(self, result: int, gpu: int, already: str = "") -> None:
        if result >= 0:
            return
        if result == -errno.EALREADY:
            raise Refused(f"GPU {gpu} {already}")
        if result == -errno.EINVAL:
            raise Refused(f"GPU {gpu} cannot get an index beyond the last")
        if 0 <= gpu < self.describe().gpus:
            raise Refused(f"GPU {gpu} is removed")
        raise GpuNotFound(f"no GPU {gpu} in {self.root}")


def _checked_version(version: str) -> str:
    if not 0 < len(version.encode()) <= _VERSION_BYTES:
        raise Refused(f"a driver version has 1 to {_VERSION_BYTES} bytes")
    return version
