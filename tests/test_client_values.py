"""Targets, and conversions between messages and values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core import conversion
from device_api_core._proto import gpu_pb2
from device_api_core.client import Clientset, GpuList, admin, convert, targets
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.none() | st.integers(-(10**18), 4 * 10**18)
CONDITIONS = st.builds(
    Condition, TEXTS, st.sampled_from(ConditionStatus), TEXTS, TEXTS, TIMES, TEXTS
)
SMALL = st.none() | st.integers(0, 2**31 - 1)
SPECS = st.builds(
    GpuSpec,
    uuid=TEXTS,
    index=SMALL,
    minor=SMALL,
    pci_bus_id=TEXTS,
    product_name=TEXTS,
    architecture=TEXTS,
    memory_bytes=st.none() | st.integers(0, 2**64 - 1),
    serial=TEXTS,
    mig_mode=TEXTS,
)
GPUS = st.builds(
    Gpu,
    st.builds(ObjectMeta, TEXTS, st.integers(0, 2**63 - 1), TEXTS),
    SPECS,
    st.builds(GpuStatus, st.lists(CONDITIONS, max_size=3).map(tuple), TEXTS),
)
COUNTS = st.integers(0, 2**31 - 1)
PROVIDERS = st.builds(
    admin.ProviderInfo,
    *[TEXTS] * 7,
    contract_version=COUNTS,
    restarts=COUNTS,
    gpus=COUNTS,
    last_sign_of_life=TIMES,
    lease_seconds=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    synced=st.booleans(),
    summary=TEXTS,
    condition_types=st.lists(TEXTS, max_size=3).map(tuple),
)
SERVERS = st.builds(admin.ServerInfo, TEXTS, TEXTS, TIMES, COUNTS, st.booleans(), TEXTS)
EVENTS = st.builds(admin.Event, COUNTS, TIMES, *[TEXTS] * 5)


@given(GPUS)
def test_a_gpu_survives_the_wire(gpu):
    message = conversion.gpu_to_proto(gpu)
    assert conversion.gpu_from_proto(gpu_pb2.Gpu.FromString(message.SerializeToString())) == gpu


@given(PROVIDERS)
def test_a_provider_survives_the_wire(provider):
    assert admin.provider_from_proto(admin.provider_to_proto(provider)) == provider


@given(SERVERS)
def test_the_server_info_survives_the_wire(server):
    assert admin.server_from_proto(admin.server_to_proto(server)) == server


@given(EVENTS)
def test_an_event_survives_the_wire(event):
    assert admin.event_from_proto(admin.event_to_proto(event)) == event


def test_a_status_of_another_vocabulary_is_unknown_and_never_good():
    message = gpu_pb2.Condition(type="FanHealthy", status="true")
    assert conversion.condition_from_proto(message).status is ConditionStatus.UNKNOWN


@pytest.mark.parametrize(
    ("number", "text", "version"),
    [(5, "", 5), (0, "6", 6), (0, "opaque", 0), (0, "", 0), (0, "9" * 5_000, 0)],
)
def test_the_version_is_read_from_either_place(number, text, version):
    meta = gpu_pb2.ObjectMeta(name="gpu-a", resource_version=text)
    gpu = conversion.gpu_from_proto(gpu_pb2.Gpu(metadata=meta, resource_version=number))
    assert gpu.metadata.resource_version == version


TIME = 1_700_000_000_500_000_000


def test_json_is_that_of_the_api():
    condition = Condition(
        "XidHealthy", ConditionStatus.FALSE, "Xid79", "", 1_700_000_000_500_000_000
    )
    gpu = Gpu(
        ObjectMeta("gpu-a", 12),
        GpuSpec(index=0, memory_bytes=2**33),
        GpuStatus((condition,), "RESTART_BM"),
    )
    assert convert.gpu_as_json(gpu) == {
        "metadata": {"name": "gpu-a", "resourceVersion": "12"},
        "spec": {"index": 0, "memoryBytes": "8589934592"},
        "status": {
            "conditions": [
                {
                    "type": "XidHealthy",
                    "status": "False",
                    "lastTransitionTime": "2023-11-14T22:13:20.500Z",
                    "reason": "Xid79",
                }
            ],
            "recommendedAction": "RESTART_BM",
        },
        "resourceVersion": "12",
    }


def test_an_empty_list_has_items_in_json():
    assert GpuList((), 3).as_json() == {"items": [], "metadata": {"resourceVersion": "3"}}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("/run/a.sock", "unix:///run/a.sock"),
        ("/run/odd:name.sock", "unix:///run/odd:name.sock"),
        (" /run/a.sock ", "unix:///run/a.sock"),
        ("localhost:50051", "localhost:50051"),
        ("dns:///node:50051", "dns:///node:50051"),
        ("run/a.sock", f"unix://{Path.cwd()}/run/a.sock"),
        ("./a.sock", f"unix://{Path.cwd()}/a.sock"),
    ],
)
def test_a_target_may_be_a_bare_path(text, target):
    assert targets.parse_target(text) == target


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({}, "unix:///var/run/device-api/device.sock"),
        ({"NVIDIA_DEVICE_API_PATH": "/c"}, "unix:///c"),
        ({"NVIDIA_DEVICE_API_SOCK": "/b", "NVIDIA_DEVICE_API_PATH": "/c"}, "unix:///b"),
        ({"NVIDIA_DEVICE_API": "h:1", "NVIDIA_DEVICE_API_SOCK": "/b"}, "h:1"),
        ({"NVIDIA_DEVICE_API": " ", "NVIDIA_DEVICE_API_SOCK": "/b"}, "unix:///b"),
    ],
)
def test_the_default_target_comes_from_the_environment(environ, target):
    assert targets.default_target(environ) == target


def test_one_target_serves_all_unless_another_is_given():
    with Clientset.connect("/run/a.sock") as clients:
        assert repr(clients) == "<Clientset ['unix:///run/a.sock']>"
    with Clientset.connect("/run/a.sock", provider_target="/run/p.sock") as clients:
        assert repr(clients) == "<Clientset ['unix:///run/a.sock', 'unix:///run/p.sock']>"


def test_without_a_target_the_environment_names_both(monkeypatch):
    monkeypatch.setenv("NVIDIA_DEVICE_API", "/run/a.sock")
    monkeypatch.setenv("DEVICE_API_PROVIDER_SOCKET", "/run/p.sock")
    with Clientset.connect() as clients:
        assert repr(clients) == "<Clientset ['unix:///run/a.sock', 'unix:///run/p.sock']>"


@pytest.mark.parametrize(
    ("target", "path"),
    [("unix:///run/a", Path("/run/a")), ("unix:a", Path("a")), ("localhost:1", None)],
)
def test_only_unix_targets_have_a_file(target, path):
    assert targets.socket_path(target) == path
