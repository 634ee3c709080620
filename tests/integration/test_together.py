"""One node as it is meant to be: NVML, DCGM and NVSentinel report on the same GPUs, each from a
process of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from device_api_fake_nvml import FakeNode, RecoveryAction
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge._proto.health_event_pb2_grpc import PlatformConnectorStub

sys.path.insert(0, str(Path(__file__).parents[2] / "providers/dcgm/tests/support"))

from dcgm_exporter import Exporter, Scene

from device_api_core.client.v1alpha1 import Gpus
from device_api_core.daemon import Tuning
from device_api_core.resources import Condition, Gpu
from device_api_core.testing.nodes import ThreadNode

pytestmark = pytest.mark.once("it is about three sources; test_sink_conformance.py has their calls")

ROOT = Path(__file__).parents[2]
GPUS = 3
SECONDS = 30.0
FAULTS = {
    "nvml": ("NVMLReady", "Xid48"),
    "dcgm": ("DCGMNvlinkHealthy", "NvlinkDown"),
    "nvsentinel": ("nvsentinel.nvidia.com/GpuMemWatch", "GpuMemWatchFailed"),
}
"""What each provider says of its fault."""

Facts = tuple[str, str, int | None]


class Sources:
    """What the three providers watch: a driver, an exporter, and NVSentinel."""

    def __init__(self, directory: Path) -> None:
        self.driver = FakeNode.create(directory / "driver", gpus=GPUS)
        self.gpus = [gpu.uuid.lower() for gpu in self.driver.gpus()]
        self._scene = Scene(GPUS)
        self.exporter = Exporter(b"")
        self._watch_nvlink(0)
        socket = directory / "bridge.sock"
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self.options = {
            "nvml": {
                "driver_root": str(directory / "driver"),
                "poll_seconds": 0.1,
                "hold_seconds": 0.3,
            },
            "dcgm": {
                "url": self.exporter.url,
                "interval_seconds": 0.1,
                # And with it the lease: nobody here is slow but a busy machine.
                "timeout_seconds": 10.0,
                "clean_seconds": 0.3,
            },
            "nvsentinel": {"socket": str(socket), "poll_seconds": 0.2, "node_name": "node-7"},
        }

    def break_(self, owner: str) -> None:
        """Make the first GPU bad in the eyes of one of them."""
        if owner == "nvml":
            self.driver.health.ask_for(0, RecoveryAction.GPU_RESET)
            self.driver.inject_xid(0, 48)
        elif owner == "dcgm":
            self._watch_nvlink(20, "NVLINK_DOWN")
        else:
            self.send(isFatal=True, recommendedAction=pb.RESTART_BM, gpus=self.gpus[:1])

    def mend(self, owner: str) -> None:
        """And good again."""
        if owner == "nvml":
            self.driver.reset(0)
        elif owner == "dcgm":
            self._watch_nvlink(0)
        else:
            self.send(isHealthy=True, gpus=self.gpus[:1])

    def send(self, *, gpus: list[str], **fields: object) -> None:
        event = pb.HealthEvent(
            version=1,
            agent="gpu-health-monitor",
            componentClass="GPU",
            nodeName="node-7",
            checkName="GpuMemWatch",
            **fields,  # type: ignore[arg-type]
        )
        event.generatedTimestamp.GetCurrentTime()
        for gpu in gpus:
            event.entitiesImpacted.add(entityType="GPU_UUID", entityValue=gpu)
        PlatformConnectorStub(self._channel).HealthEventOccurredV1(
            pb.HealthEvents(version=1, events=[event]), timeout=SECONDS, wait_for_ready=True
        )

    def _watch_nvlink(self, value: int, code: str = "OK") -> None:
        text = self._scene.watch(0, "NVLINK", value, code).text
        for number, gpu in enumerate(self.gpus):
            text = text.replace(Scene.uuid(number), gpu)
        self.exporter.body = text.encode()

    def close(self) -> None:
        self._channel.close()
        self.exporter.close()
        self.driver.close()


@dataclass
class Together:
    """The node and its sources."""

    node: ThreadNode
    sources: Sources

    @property
    def api(self) -> Gpus:
        return self.node.clients.v1alpha1.gpus

    def wait(self, gpu: int, **expected: str) -> Gpu:
        """Until the owners named have said so of their condition, ``ready`` of Ready."""

        def is_so(seen: Gpu) -> bool:
            said = {owner: status(seen, type_) for owner, (type_, _) in FAULTS.items()}
            return {**said, "ready": str(seen.ready)}.items() >= expected.items()

        return self.api.wait_for(self.sources.gpus[gpu], is_so, timeout_seconds=SECONDS)

    def wait_well(self) -> None:
        for gpu in range(GPUS):
            self.wait(gpu, ready="True", **dict.fromkeys(FAULTS, "True"))

    def break_all(self) -> None:
        for owner in FAULTS:
            self.sources.break_(owner)
        self.wait(0, ready="False", **dict.fromkeys(FAULTS, "False"))
        # The driver's wish is read with the next look, a moment after the XID.
        self.api.wait_for(
            self.sources.gpus[0],
            lambda gpu: status(gpu, "RecoveryActionNone") == "False",
            timeout_seconds=SECONDS,
        )

    def mend_all(self) -> None:
        for owner in FAULTS:
            self.sources.mend(owner)
        self.wait_well()

    def runs(self, owner: str) -> bool:
        listed = self.node.clients.admin.list_providers().providers
        return next(p.state for p in listed if p.name == owner) == "running"


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """All is well, and everybody has said so."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        sources = Sources(Path(path))
        node = ThreadNode(
            Path(path),
            *FAULTS,
            isolate=tuple(FAULTS),
            options=sources.options,
            keeps_state=True,
            tuning=Tuning(first_pause_seconds=0.05),
        )
        node.start()
        made = Together(node, sources)
        sources.send(isHealthy=True, gpus=sources.gpus)
        made.wait_well()
        yield made
        node.close()
        sources.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(gpu: Gpu, type_: str) -> str:
    found = gpu.condition(type_)
    return str(found.status) if found else ""


def facts(gpu: Gpu, owner: str) -> dict[str, Facts]:
    """What one provider has said of a GPU, without its words."""

    def fact(c: Condition) -> Facts:
        return str(c.status), c.reason, c.last_transition_time

    return {c.type: fact(c) for c in gpu.status.conditions if c.provider_id == owner}


def process_of(owner: str) -> int:
    """The process that the server has started for a provider."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and command[-3:-1] == [_RUNNER, owner.encode()]:
            return int(stat.parent.name)
    raise AssertionError(f"no process of {owner}")


_RUNNER = b"device_api_core.plugins.runner"


def test_each_owns_its_conditions_and_clears_no_others(together: Together) -> None:
    for owner in FAULTS:
        together.sources.break_(owner)
        together.wait(0, **{owner: "False"}, ready="False")
    gpu = together.wait(0, ready="False", **dict.fromkeys(FAULTS, "False"))
    for owner, (type_, reason) in FAULTS.items():
        found = gpu.condition(type_)
        assert found is not None
        assert (found.provider_id, found.reason) == (owner, reason)
        assert len(facts(gpu, owner)) > 1
    assert gpu.status.recommended_action == "RESTART_BM", "the strongest of the three"
    assert all(str(together.wait(other).ready) == "True" for other in range(1, GPUS))
    left = list(FAULTS)
    for owner in ("nvsentinel", "dcgm", "nvml"):
        left.remove(owner)
        before = {other: facts(together.wait(0), other) for other in FAULTS if other != owner}
        together.sources.mend(owner)
        ready = "False" if left else "True"
        gpu = together.wait(0, ready=ready, **{owner: "True"}, **dict.fromkeys(left, "False"))
        assert {other: facts(gpu, other) for other in before} == before
    assert gpu.status.recommended_action == ""


@pytest.mark.parametrize("owner", FAULTS)
def test_one_that_is_killed_takes_nothing_with_it_and_comes_back(
    together: Together, owner: str
) -> None:
    together.break_all()
    before = {gpu.name: gpu for gpu in together.api.list().items}
    bad, good = together.sources.gpus[:2]
    type_, reason = FAULTS[owner]
    seen: list[Gpu] = []
    with together.api.watch() as events:

        def read_to(name: str, is_so: Callable[[Gpu], bool]) -> Gpu:
            for event in events:
                seen.append(event.gpu)
                if event.gpu.name == name and is_so(event.gpu):
                    return event.gpu
            raise AssertionError("the watch ended")

        os.kill(process_of(owner), signal.SIGKILL)
        # In the stream, since it may be True again before anybody asks.
        doubted = read_to(good, lambda gpu: status(gpu, type_) == "Unknown")
        unknown = doubted.condition(type_)
        assert unknown is not None
        assert unknown.reason == "ProviderFailed"
        assert str(doubted.ready) == "Unknown"
        for gpu in range(1, GPUS):
            together.wait(gpu, ready="True", **dict.fromkeys(FAULTS, "True"))
        until(lambda: together.runs(owner))
        # A change of its own, so that the stream is known to be read to its end.
        together.node.clients.v1alpha1.providers.register("last", provider_id="neighbour")
        read_to("last", lambda _: True)
        seen.pop()
    together.node.clients.admin.forget_gpu("last")
    assert {status(gpu, type_) for gpu in seen if gpu.name == good} == {"True", "Unknown"}
    for gpu in seen:
        for other in FAULTS.keys() - {owner}:
            assert facts(gpu, other) == facts(before[gpu.name], other)
        if gpu.name == bad:
            assert facts(gpu, owner)[type_] == facts(before[bad], owner)[type_], reason
            assert str(gpu.ready) == "False"
    # What the new process took over still needs evidence, and then ends.
    together.wait(0, **{owner: "False"})
    together.mend_all()


def test_their_numbers_are_on_one_page_and_documented(together: Together) -> None:
    together.break_all()
    together.mend_all()
    metric, gpu = together.node.metric, together.sources.gpus[0]
    xids = "device_api_provider_xids_total"

    def told() -> bool:
        return (metric(xids, provider_id="nvml", gpu=gpu, code="48") or 0) >= 1

    until(told)  # with the provider's next heartbeat
    names = {s.name for s in together.node.metrics() if s.name.startswith("device_api_provider_")}
    assert names >= {
        xids,
        "device_api_provider_last_scrape_timestamp_seconds",
        "device_api_provider_absent_series",
        "device_api_provider_events_total",
    }
    page = (ROOT / "docs/operations/device-api-server.md").read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf"`{name.removeprefix('device_api_provider_')}`", page), name
