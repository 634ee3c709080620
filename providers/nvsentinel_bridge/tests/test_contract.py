"""The contract that every provider keeps, in every home, with events from a real gRPC client."""

from __future__ import annotations

import socket

import grpc
import pytest
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge._proto.health_event_pb2_grpc import PlatformConnectorStub

from device_api_core.resources import GpuSpec
from device_api_core.testing import provider_contract

UUID = "gpu-2f1a6c0e-5b3d-4c77-9a10-0d6c1f7be001"
SECONDS = 20.0
_calls = []


@pytest.fixture(autouse=True)
def _hang_up():
    yield
    while _calls:
        channel, call = _calls.pop()
        assert call.done(), "the event was not taken"
        channel.close()


def broken(directory):
    """NVSentinel has an event, and sends it when somebody listens."""
    # A bridge that is not there yet is tried again soon.
    channel = grpc.insecure_channel(
        f"unix:{directory / 'bridge.sock'}", [("grpc.max_reconnect_backoff_ms", 100)]
    )
    event = pb.HealthEvent(
        version=1,
        agent="gpu-health-monitor",
        componentClass="GPU",
        nodeName=socket.gethostname(),
        checkName="GpuMemWatch",
        isFatal=True,
        recommendedAction=pb.COMPONENT_RESET,
    )
    event.generatedTimestamp.GetCurrentTime()
    event.entitiesImpacted.add(entityType="GPU_UUID", entityValue=UUID)
    call = PlatformConnectorStub(channel).HealthEventOccurredV1.future(
        pb.HealthEvents(version=1, events=[event]), timeout=SECONDS, wait_for_ready=True
    )
    _calls.append((channel, call))  # dropping a call ends it


def options(directory):
    return {"socket": str(directory / "bridge.sock"), "poll_seconds": 0.1}


TestContract = provider_contract(
    "nvsentinel", options=options, broken=broken, gpus={UUID: GpuSpec(uuid=UUID)}
)
