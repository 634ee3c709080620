"""From a fault of a GPU to an alert: simulated NVML, the real server, a real Prometheus."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_api_fake_nvml import FakeNode
from process import Server
from scraping import CHART, JOB, Prometheus, impatient

from device_api_core.resources import ConditionStatus

GPUS = 8
SICK = 3


class Watched:
    """A simulated node, its server, and the Prometheus that watches it."""

    def __init__(self, node: FakeNode, server: Server, prometheus: Prometheus) -> None:
        self.node = node
        self.server = server
        self.prometheus = prometheus

    def value(self, expression: str) -> float | None:
        """The value of a series; None if there is none."""
        found = self.prometheus.query(expression)
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def watched(prometheus: str) -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        directory = Path(path)
        node = FakeNode.create(directory / "node", gpus=GPUS)
        flags = ("--provider=nvml", f"--nvml-driver-root={node.root}", "--node-name=node-7")
        with Server(directory, *flags) as server:
            server.wait_serving()
            rules = list((CHART / "rules").glob("*.yaml"))
            hasty = impatient(CHART / "rules" / "alerts.yaml", directory / "impatient.yaml")
            target = server.addresses["metrics"]
            with Prometheus(prometheus, directory / "tsdb", target, [*rules, hasty]) as scraper:
                yield Watched(node, server, scraper)
        assert not server.tracebacks, server.text


def test_a_healthy_node_raises_no_alert(watched: Watched) -> None:
    healthy = "device_api_server_cache_gpus_healthy"
    watched.prometheus.wait(lambda: watched.value(healthy) == GPUS)
    watched.prometheus.wait(lambda: watched.value(f"job:{healthy}:sum") == GPUS)
    assert watched.value(f'up{{job="{JOB}"}}') == 1
    assert watched.prometheus.alerts() == []


def test_an_xid_raises_the_alerts_that_name_the_gpu(watched: Watched) -> None:
    watched.node.inject_xid(SICK, 79)
    # As the chart has them they wait a minute first.
    pending = watched.prometheus.wait(
        lambda: watched.prometheus.alerts("DeviceAPIServerGPUActionNeeded")
    )
    assert [alert["state"] for alert in pending] == ["pending"]
    [firing] = watched.prometheus.wait(
        lambda: watched.prometheus.alerts("ImpatientDeviceAPIServerGPUActionNeeded")
    )
    assert firing["state"] == "firing"
    labels = firing["labels"]
    uuid = labels["uuid"]
    api = watched.server.api()
    gpu = api.get(uuid.lower())
    assert labels["severity"] == "critical"
    assert (labels["gpu"], labels["node"]) == (gpu.metadata.name, "node-7")
    assert labels["pci_bus_id"] == gpu.spec.pci_bus_id
    assert (labels["reason"], labels["action"]) == ("Xid79", "RESTART_BM")
    [ready] = [c for c in gpu.status.conditions if c.type == "Ready"]
    assert ready.status == ConditionStatus.FALSE
    texts = firing["annotations"]
    assert texts["summary"] == f"GPU {gpu.metadata.name} on node-7 is unhealthy: Xid79"
    assert all(part in texts["description"] for part in (uuid, gpu.spec.pci_bus_id, "RESTART_BM"))
    raised = {a["labels"]["alertname"] for a in watched.prometheus.alerts()}
    assert {name for name in raised if not name.startswith("Impatient")} == {
        "DeviceAPIServerGPUActionNeeded",
        "DeviceAPIServerUnhealthyGPUs",
    }
    fleet = "job_reason_action:device_api_server_gpu_unhealthy:count"
    watched.prometheus.wait(lambda: watched.value(f'{fleet}{{reason="Xid79"}}') == 1)


def test_a_server_that_is_gone_raises_the_alert(watched: Watched) -> None:
    assert watched.server.stop() == 0
    [pending] = watched.prometheus.wait(lambda: watched.prometheus.alerts("DeviceAPIServerDown"))
    assert pending["labels"]["severity"] == "critical"
