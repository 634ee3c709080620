"""The contract that every provider keeps, in every home, on a simulated node."""

from device_api_fake_nvml import FakeNode, RecoveryAction

from device_api_core.testing import provider_contract


def well(directory):
    FakeNode.create(directory / "node", gpus=2).close()


def broken(directory):
    with FakeNode.open(directory / "node") as node:
        node.health.ask_for(0, RecoveryAction.GPU_RESET)


def options(directory):
    return {"driver_root": str(directory / "node"), "poll_seconds": 0.1, "retry_seconds": 0.2}


TestContract = provider_contract("nvml", options=options, well=well, broken=broken)
