"""What the consumer on the node knows, through its informer."""

from __future__ import annotations

from gpu_node import GPUS
from polling import SECONDS, eventually

from device_api_core.client import GpuInformer
from device_api_core.resources import Gpu

Fault = tuple[str, str, str, int]


def gpu_of(informer: GpuInformer, index: int) -> Gpu:
    """The GPU with that index."""
    (found,) = (gpu for gpu in informer.lister.list() if gpu.spec.index == index)
    return found


def faults(gpu: Gpu) -> set[Fault]:
    """What is False on it: by whom, why and since when."""
    return {
        (each.type, each.provider_id, each.reason, each.last_transition_time)
        for each in gpu.status.conditions
        if each.status == "False"
    }


def wait_for_faults(informer: GpuInformer, index: int) -> set[Fault]:
    """What is False on a GPU that broke, as soon as that is all of it: the XID, and what the driver
    asks for. The provider looks for the two at times of their own."""

    def both() -> set[Fault] | None:
        found = faults(gpu_of(informer, index))
        return found if {"NVMLReady", "RecoveryActionNone"} <= {each[0] for each in found} else None

    return eventually(both, SECONDS, f"GPU {index} has both faults")


def wait_for_ready(informer: GpuInformer, index: int, status: str) -> None:
    what = f"GPU {index} is {status}"
    eventually(lambda: gpu_of(informer, index).ready == status, SECONDS, what)


def wait_until_all_ready(informer: GpuInformer) -> None:
    def all_are() -> bool:
        gpus = informer.lister.list()
        return len(gpus) == GPUS and all(gpu.ready == "True" for gpu in gpus)

    eventually(all_are, SECONDS, f"{GPUS} GPUs are ready")


def wait_until_listed_again(informer: GpuInformer, before: int) -> None:
    """Until it knows another server's list, ``before`` being how many it had: what it knew of the
    last server it keeps so long."""
    eventually(lambda: informer.progress.lists > before, SECONDS, "the consumer listed again")
