"""What needs neither a daemon nor a kubelet: the wire, the settings, what a device is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from device_api_device_plugin._proto import deviceplugin_pb2 as pb
from device_api_device_plugin.cli import main
from device_api_device_plugin.devices import Device, device_of
from device_api_device_plugin.settings import InvalidSetting, Settings
from google.protobuf import descriptor_pb2, descriptor_pool

from device_api_core.client.fake import gpu
from device_api_core.resources import Condition, ConditionStatus, GpuStatus

# As published in k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1.
FIELDS = {
    "DevicePluginOptions": {"pre_start_required": 1, "get_preferred_allocation_available": 2},
    "RegisterRequest": {"version": 1, "endpoint": 2, "resource_name": 3, "options": 4},
    "ListAndWatchResponse": {"devices": 1},
    "Device": {"ID": 1, "health": 2, "topology": 3},
    "AllocateRequest": {"container_requests": 1},
    "ContainerAllocateRequest": {"devices_ids": 1},
    "AllocateResponse": {"container_responses": 1},
    "ContainerAllocateResponse": {
        "envs": 1,
        "mounts": 2,
        "devices": 3,
        "annotations": 4,
        "cdi_devices": 5,
    },
    "CDIDevice": {"name": 1},
}
METHODS = {
    "Registration": ["Register"],
    "DevicePlugin": [
        "GetDevicePluginOptions",
        "ListAndWatch",
        "GetPreferredAllocation",
        "Allocate",
        "PreStartContainer",
    ],
}


@pytest.mark.parametrize("message", FIELDS)
def test_the_numbers_are_those_of_kubernetes(message):
    fields = pb.DESCRIPTOR.message_types_by_name[message].fields
    assert {field.name: field.number for field in fields} == FIELDS[message]


@pytest.mark.parametrize("service", METHODS)
def test_the_methods_are_those_of_kubernetes(service):
    found = pb.DESCRIPTOR.services_by_name[service]
    assert found.full_name == f"v1beta1.{service}"
    assert [method.name for method in found.methods] == METHODS[service]


def test_another_copy_of_the_api_may_live_in_the_same_process():
    copy = descriptor_pb2.FileDescriptorProto(name="api.proto", package="v1beta1", syntax="proto3")
    copy.message_type.add(name="Device").field.add(name="other", number=1, type=9, label=1)
    descriptor_pool.Default().Add(copy)
    theirs = descriptor_pool.Default().FindMessageTypeByName("v1beta1.Device")
    assert [field.name for field in theirs.fields] == ["other"]
    assert pb.Device(ID="GPU-0").SerializeToString() == b"\n\x05GPU-0"


def ready(status, reason="", message=""):
    condition = Condition("Ready", ConditionStatus(status), reason, message)
    return replace(gpu("gpu-0", uuid="GPU-0"), status=GpuStatus((condition,)))


@pytest.mark.parametrize(
    ("found", "device"),
    [
        (ready("True"), Device("GPU-0", healthy=True)),
        (ready("False", "Xid79", "Lost."), Device("GPU-0", healthy=False, reason="Xid79: Lost.")),
        (ready("Unknown", "ProviderLost"), Device("GPU-0", healthy=False, reason="ProviderLost")),
        (ready("False"), Device("GPU-0", healthy=False, reason="Ready is False")),
        (
            replace(ready("True"), status=GpuStatus()),
            Device("GPU-0", healthy=False, reason="Ready is Unknown"),
        ),
    ],
)
def test_only_a_ready_that_is_true_is_healthy(found, device):
    assert device_of(found) == device


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_age_seconds": 0.0}, "max_age_seconds must be more than 0"),
        ({"max_age_seconds": float("nan")}, "max_age_seconds must be more than 0"),
        ({"poll_seconds": -1.0}, "poll_seconds must be more than 0"),
        ({"resource_name": "gpu"}, 'must be like "nvidia.com/gpu", not "gpu"'),
        ({"cdi_kind": "nvidia.com/gpu=0"}, "cdi_kind must be like"),
        ({"plugin_dir": Path("/" + "d" * 90)}, "at most 107 bytes"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, complaint):
    with pytest.raises(InvalidSetting, match=complaint):
        Settings(**settings)


def test_the_command_says_what_is_wrong(monkeypatch):
    monkeypatch.setenv("DEVICE_PLUGIN_RESOURCE_NAME", "gpu")
    result = CliRunner().invoke(main)
    assert result.exit_code == 1
    assert result.output == 'Error: resource_name must be like "nvidia.com/gpu", not "gpu"\n'


@pytest.mark.parametrize(
    "option", [p for p in main.params if p.name not in ("version", "help")], ids=lambda p: p.name
)
def test_every_option_is_in_the_readme_with_its_variable(option):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{option.opts[0]}` |"))
    assert f"`DEVICE_PLUGIN_{option.name.upper()}`" in row
