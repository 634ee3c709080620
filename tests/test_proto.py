"""The generated code: where it lives and what it puts on the wire."""

from __future__ import annotations

import subprocess
import sys

import pytest

from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2


def test_generated_code_brings_no_top_level_package_of_its_own():
    imports = (
        "import sys; from device_api_core._proto import "
        "admin_pb2_grpc, gpu_pb2_grpc, provider_pb2_grpc; "
        "print('nvidia' in sys.modules, 'device_api' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", imports], check=True, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("module", [admin_pb2, gpu_pb2, provider_pb2], ids=lambda m: m.__name__)
def test_messages_know_the_module_they_are_imported_from(module):
    for name in module.DESCRIPTOR.message_types_by_name:
        assert getattr(module, name).__module__ == module.__name__


@pytest.mark.parametrize("field", ["index", "minor", "memory_bytes"])
def test_zero_is_told_from_unknown(field):
    assert not gpu_pb2.GpuSpec().HasField(field)
    zero = gpu_pb2.GpuSpec(**{field: 0})
    assert gpu_pb2.GpuSpec.FromString(zero.SerializeToString()).HasField(field)


def test_the_published_numbers_of_a_registration_are_kept():
    # initial_status comes after provider_id, unlike in the other requests.
    request = provider_pb2.RegisterGpuRequest(
        name="a",
        provider_id="b",
        initial_status=gpu_pb2.GpuStatus(recommended_action="c"),
    )
    assert request.SerializeToString() == b"\x0a\x01a\x1a\x01b\x22\x03\x12\x01c"
