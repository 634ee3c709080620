"""The documented metrics: every name is there, and really changes."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import Installed, good
from process import Server
from wire import condition

from device_api_core._proto import gpu_pb2

Start = Callable[..., Server]

GAUGES = [
    "conditions",
    "conditions_stale",
    "info",
    "cache_gpus_total",
    "cache_gpus_healthy",
    "cache_gpus_unhealthy",
    "cache_gpus_unknown",
    "cache_resource_version",
    "watch_streams_active",
    "nvml_provider_enabled",
    "nvml_gpu_count",
    "nvml_health_monitor_running",
]
COUNTERS = [
    "cache_updates_total",
    "watch_events_total",
    "watch_events_dropped_total",
    "grpc_requests_total",
    "grpc_request_duration_seconds_count",
    "grpc_request_duration_seconds_bucket",
    "watch_delivery_seconds_count",
    "update_hold_seconds_count",
    "read_wait_seconds_count",
]
PER_PROVIDER = [
    "provider_connection_state",
    "provider_last_heartbeat_timestamp_seconds",
    "provider_heartbeat_total",
    "provider_gpus_managed",
    "provider_state",
    "provider_lease_age_seconds",
    "provider_lease_seconds",
    "provider_restarts_total",
]


@pytest.fixture
def nvml_server(start: Start, directory: Path) -> Server:
    """A server whose plugin called nvml is a plain one."""
    installed = Installed(directory / "plugins").add(
        "nvml", good("nvml"), distribution="device_api_nvml"
    )
    server = start("--provider=nvml", "--node-name=node-7", plugins=installed.directory)
    return server.wait_serving()


def test_every_documented_name_is_there(nvml_server: Server) -> None:
    api = nvml_server.api()
    api.register("gpu-0", "remote")
    assert api.heartbeat("remote")
    names = {name.removeprefix("device_api_server_") for name, _ in nvml_server.metrics()}
    assert set(GAUGES + COUNTERS + PER_PROVIDER) <= names
    text = nvml_server.http("/metrics")[1]
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text
    kinds = dict(
        line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE device_api")
    )
    for name in (*GAUGES, "provider_connection_state", "provider_gpus_managed"):
        assert kinds[f"device_api_server_{name}"] == "gauge"
    for name in ("cache_updates_total", "watch_events_total", "grpc_requests_total"):
        assert kinds[f"device_api_server_{name}"] == "counter"
    assert kinds["device_api_server_grpc_request_duration_seconds"] == "histogram"
    info = next(dict(labels) for name, labels in nvml_server.metrics() if name.endswith("_info"))
    assert info["node"] == "node-7"
    assert info["version"]


def test_gauges_follow_the_state(nvml_server: Server) -> None:
    api = nvml_server.api()

    def gpus() -> tuple[float, ...]:
        kinds = ("total", "healthy", "unhealthy", "unknown")
        return tuple(nvml_server.metric(f"cache_gpus_{kind}") for kind in kinds)

    assert gpus() == (1, 1, 0, 0)
    api.register("gpu-0", "remote")
    assert gpus() == (2, 1, 0, 1)
    api.set("gpu-0", "Fan", "True", "remote")
    assert gpus() == (2, 2, 0, 0)
    version = api.set("gpu-0", "Pump", "False", "remote")
    # Whatever type is False, the GPU is unhealthy, and it is counted once.
    api.set("gpu-0", "Link", "Unknown", "remote")
    assert gpus() == (2, 1, 1, 0)
    assert nvml_server.metric("cache_resource_version") == version + 1
    watches = [api.watch() for _ in range(3)]
    for watch in watches:
        watch.next()
    assert nvml_server.metric("watch_streams_active") == 3
    for watch in watches:
        watch.cancel()
    ends = time.monotonic() + 5
    while nvml_server.metric("watch_streams_active"):
        assert time.monotonic() < ends
    assert nvml_server.metric("nvml_provider_enabled") == 1
    assert nvml_server.metric("nvml_gpu_count") == 1
    assert nvml_server.metric("nvml_health_monitor_running") == 1
    assert nvml_server.metric("ready") == 1


def test_counters_count_effective_and_vain_successes_but_no_refusals(
    nvml_server: Server,
) -> None:
    api = nvml_server.api()

    def updates(operation: str) -> float:
        return nvml_server.metric("cache_updates_total", operation=operation)

    def events(type_: str) -> float:
        return nvml_server.metric("watch_events_total", type=type_)

    before = {o: updates(o) for o in ("register", "unregister", "update_status")}
    added, modified, deleted = (events(t) for t in ("ADDED", "MODIFIED", "DELETED"))
    conditions = updates("update_condition")
    api.register("gpu-0", "remote")
    api.register("gpu-0", "remote")
    api.set("gpu-0", "Fan", "True", "remote")
    api.set("gpu-0", "Fan", "True", "remote")
    with pytest.raises(Exception, match="belongs to"):
        api.set("gpu-0", "Fan", "True", "other")
    with pytest.raises(Exception, match="not found"):
        api.set("absent", "Fan", "True", "other")
    api.set_status("gpu-0", provider_id="remote")
    api.unregister("gpu-0")
    api.unregister("gpu-0")
    assert updates("register") == before["register"] + 2
    assert updates("update_condition") == conditions + 2
    assert updates("update_status") == before["update_status"] + 1
    assert updates("unregister") == before["unregister"] + 2
    assert (events("ADDED"), events("MODIFIED"), events("DELETED")) == (
        added + 1,
        modified + 2,
        deleted + 1,
    )


def test_calls_are_counted_by_code_and_timed_but_watches_are_not(server: Server) -> None:
    api = server.api()

    def calls(method: str, code: str) -> float:
        return server.metric("grpc_requests_total", method=method, code=code)

    ok, missing = calls("GetGpu", "OK"), calls("GetGpu", "NOT_FOUND")
    timed = server.metric("grpc_request_duration_seconds_count", method="GetGpu")
    api.register("gpu-0", "remote")
    api.get("gpu-0")
    with pytest.raises(Exception, match="not found"):
        api.get("absent")
    assert (calls("GetGpu", "OK"), calls("GetGpu", "NOT_FOUND")) == (ok + 1, missing + 1)
    assert server.metric("grpc_request_duration_seconds_count", method="GetGpu") == timed + 2
    watch = api.watch()
    watch.next()
    watch.cancel()
    ends = time.monotonic() + 5
    while not calls("WatchGpus", "CANCELLED"):
        assert time.monotonic() < ends
    api.watch("1").ended()
    assert calls("WatchGpus", "OUT_OF_RANGE") == 1
    api.hold("remote", "gpu-0").cancel()
    labels = [dict(labels) for name, labels in server.metrics() if "duration" in name]
    assert all(label["method"] not in {"WatchGpus", "Update"} for label in labels)
    buckets = {label["le"] for label in labels if "le" in label}
    assert buckets >= {"0.001", "0.005", "0.01", "0.1", "1.0", "10.0", "+Inf"}


def test_calls_have_the_names_that_grpc_dashboards_know(server: Server) -> None:
    api = server.api()
    service = "nvidia.device.v1alpha1.GpuService"
    unary = {"grpc_type": "unary", "grpc_service": service, "grpc_method": "GetGpu"}
    stream = {"grpc_type": "server_stream", "grpc_service": service, "grpc_method": "WatchGpus"}

    def count(name: str, **labels: str) -> float:
        found = server.metrics()
        return found.get((f"grpc_server_{name}", tuple(sorted(labels.items()))), 0.0)

    begun, missing = (
        count("started_total", **unary),
        count("handled_total", grpc_code="NotFound", **unary),
    )
    timed = count("handling_seconds_count", **unary)
    with pytest.raises(Exception, match="not found"):
        api.get("absent")
    assert count("started_total", **unary) == begun + 1
    assert count("handled_total", grpc_code="NotFound", **unary) == missing + 1
    assert count("handling_seconds_count", **unary) == timed + 1
    opened = count("started_total", **stream)
    ended = count("handled_total", grpc_code="Canceled", **stream)
    watch = api.watch(allow_watch_bookmarks=True, send_initial_events=True)
    watch.next()
    assert count("started_total", **stream) == opened + 1
    watch.cancel()
    ends = time.monotonic() + 5
    while count("handled_total", grpc_code="Canceled", **stream) == ended:
        assert time.monotonic() < ends
    assert count("handling_seconds_count", **stream) == 0


def test_held_updates_and_the_reads_that_wait_are_timed(server: Server) -> None:
    api = server.api()
    api.register("gpu-held", "holder")
    holds = server.metric("update_hold_seconds_count")
    waits = server.metric("read_wait_seconds_count")
    call = api.hold("holder", "gpu-held")
    with pytest.raises(Exception, match="(?i)deadline"):
        api.get("gpu-held", timeout=0.2)
    call.cancel()
    ends = time.monotonic() + 5
    while server.metric("updates_held"):
        assert time.monotonic() < ends
    assert server.metric("update_hold_seconds_count") == holds + 1
    assert server.metric("read_wait_seconds_count") == waits + 1
    assert server.metric("read_wait_seconds_sum") > 0.1
    assert server.metric("updates_aborted_total", provider_id="holder") == 1
    assert server.metric("updates_expired_total", provider_id="holder") == 0


def test_a_sick_gpu_can_be_found_by_any_of_its_names(server: Server) -> None:
    api = server.api()
    uuid = "GPU-00000000-0000-0000-0000-0000000000aa"
    api.register("gpu-sick", "finder", spec=gpu_pb2.GpuSpec(uuid=uuid, pci_bus_id="0000:1b:00.0"))
    bad = condition("Pump", "False", reason='Stuck "hard"\n')
    api.set_status("gpu-sick", bad, provider_id="finder", recommended_action="COMPONENT_RESET")
    labels = {"gpu": "gpu-sick", "uuid": uuid, "pci_bus_id": "0000:1b:00.0"}
    labels |= {"reason": 'Stuck "hard"\n', "action": "COMPONENT_RESET"}
    assert server.metric("gpu_unhealthy", **labels) == 1
    assert server.metric("conditions", type="Pump", status="False", provider_id="finder") == 1
    api.set("gpu-sick", "Pump", "True", "finder")
    assert server.metric("gpu_unhealthy", **labels) == 0


def test_the_names_follow_prometheus_conventions(nvml_server: Server, promtool: str) -> None:
    api = nvml_server.api()
    api.register("gpu-0", "remote")
    api.set("gpu-0", "Pump", "False", "remote")
    api.heartbeat("remote")
    api.hold("remote").cancel()
    _, text = nvml_server.http("/metrics")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    findings = (checked.stdout + checked.stderr).splitlines()
    # Gauges whose names are the reference's; nothing else is excused.
    assert {finding.split()[0] for finding in findings} == {
        "device_api_server_cache_gpus_total",
        "device_api_server_nvml_gpu_count",
    }


def test_providers_are_shown_one_by_one(server: Server) -> None:
    api = server.api()
    api.register("gpu-1", "seen")
    api.set("gpu-1", "Fan", "True", "seen")
    api.heartbeat("seen")

    def of(name: str) -> float:
        return server.metric(f"provider_{name}", provider_id="seen")

    assert (of("connection_state"), of("gpus_managed"), of("heartbeat_total")) == (1, 1, 1)
    names = {name for name, labels in server.metrics() if ("provider_id", "seen") in labels}
    for counter in ("updates_expired", "updates_aborted", "provider_heartbeat_timeout"):
        # At 0, so that a rate sees the first one.
        assert f"device_api_server_{counter}_total" in names
    first = of("last_heartbeat_timestamp_seconds")
    assert abs(first - time.time()) < 60
    api.heartbeat("seen")
    assert of("heartbeat_total") == 2
    assert of("last_heartbeat_timestamp_seconds") > first
