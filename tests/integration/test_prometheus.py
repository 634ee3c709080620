"""From a fault of a GPU to an alert: simulated NVML, the real server, a real Prometheus."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scraping import CHART, JOB, Prometheus, Scraped, impatient, scraped

from device_api_core.resources import ConditionStatus

pytestmark = pytest.mark.once("Prometheus reads pages, which no transport serves")

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
FEDERATION = ROOT / "contrib" / "prometheus" / "federation.yaml"
GPUS = 8
SICK = 3


def queries() -> list[str]:
    """Each different query of the runbooks' examples."""
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(RUNBOOKS.glob("*.md")))
    found = re.findall(r"^```promql\n(.*?)^```", text, re.M | re.S)
    return sorted({line for block in found for line in block.splitlines() if line})


@pytest.fixture(scope="module")
def watched(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    rules = CHART / "rules"
    hasty = impatient(rules / "alerts.yaml", tmp_path_factory.mktemp("rules") / "impatient.yaml")
    with scraped(prometheus, [*rules.glob("*.yaml"), hasty]) as running:
        yield running


def value(source: Prometheus, expression: str) -> float | None:
    """The value of a series; None if there is none."""
    found = source.query(expression)
    return float(found[0]["value"][1]) if found else None


@pytest.fixture
def sick(watched: Scraped) -> Scraped:
    """The same with a GPU that needs a reboot, whichever tests ran here before."""
    fleet = "job_reason_action:device_api_server_gpu_unhealthy:count"
    if value(watched.prometheus, fleet) is None:
        watched.node.inject_xid(SICK, 79)
        watched.server.api().list()
        watched.prometheus.wait(lambda: value(watched.prometheus, fleet) == 1)
        alert = "DeviceAPIServerGPUActionNeeded"
        watched.prometheus.wait(lambda: watched.prometheus.alerts(alert))
        rate = "job_method_code:grpc_server_handled:rate5m"
        watched.prometheus.wait(lambda: value(watched.prometheus, rate) is not None)
    return watched


def test_a_healthy_node_raises_no_alert(watched: Scraped) -> None:
    healthy = "device_api_server_cache_gpus_healthy"
    watched.prometheus.wait(lambda: value(watched.prometheus, healthy) == GPUS)
    watched.prometheus.wait(lambda: value(watched.prometheus, f"job:{healthy}:sum") == GPUS)
    assert value(watched.prometheus, f'up{{job="{JOB}"}}') == 1
    assert watched.prometheus.alerts() == []


def test_an_xid_raises_the_alerts_that_name_the_gpu(watched: Scraped) -> None:
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
    watched.prometheus.wait(lambda: value(watched.prometheus, f'{fleet}{{reason="Xid79"}}') == 1)


def test_a_fleets_prometheus_takes_sums_and_what_is_unhealthy(sick: Scraped) -> None:
    sample = yaml.safe_load(FEDERATION.read_text(encoding="utf-8"))["scrape_configs"][0]
    rules = yaml.safe_load((CHART / "rules" / "recording.yaml").read_text(encoding="utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    kept = {name for name in recorded if sick.prometheus.query(name)}
    lines = sick.prometheus.federate(*sample["params"]["match[]"])
    names = [re.split(r"[{ ]", line)[0] for line in lines]
    assert {"job:device_api_server_up:sum", "job_method_code:grpc_server_handled:rate5m"} <= kept
    assert kept <= set(names)
    assert names.count("device_api_server_gpu_unhealthy") == 1
    assert "ALERTS" in names
    # What grows with the nodes stays with its cluster.
    assert set(names) <= recorded | {"device_api_server_gpu_unhealthy", "ALERTS"}
    assert not [line for line in lines if re.match(r'job.*instance="[^"]', line)]


def test_the_questions_of_the_fleet_page_have_answers(sick: Scraped) -> None:
    page = (ROOT / "docs" / "operations" / "fleet.md").read_text(encoding="utf-8")
    table = page.split("| You want to know | Ask |")[1].split("\n\n")[0]
    asked = re.findall(r"^\| [^|]+ \| `(.+)` \|$", table, re.M)
    assert len(asked) == 8
    unanswered = [each for each in asked if not sick.prometheus.query(each)]
    # No remote provider is lost on this node.
    assert [each for each in unanswered if 'state="lost"' not in each] == []


@pytest.mark.parametrize("query", queries())
def test_the_queries_of_the_runbooks_are_understood(watched: Scraped, query: str) -> None:
    # Prometheus refuses what it does not understand; whether there is anything depends.
    watched.prometheus.query(query)


def test_a_server_that_is_gone_raises_the_alert(watched: Scraped) -> None:
    assert watched.server.stop() == 0
    [pending] = watched.prometheus.wait(lambda: watched.prometheus.alerts("DeviceAPIServerDown"))
    assert pending["labels"]["severity"] == "critical"
