from __future__ import annotations

import threading
import time

import pytest
from device_api_fake_nvml import FaultKind
from device_api_fake_nvml.errors import FunctionNotFound, GpuNotFound


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("function", "gpu"),
    [(None, None), ("nvmlDeviceGetUUID", None), ("nvmlDeviceGetUUID", 3), (None, 3)],
)
def test_call_hangs_until_released(node, nvml, function, gpu):
    handle = nvml.nvmlDeviceGetHandleByIndex(3)
    node.calls.hang(function, gpu)
    call = in_thread(nvml.nvmlDeviceGetUUID, handle)
    call.join(0.1)
    assert call.is_alive()
    assert node.calls.unhang() == 1
    call.join(5)
    assert not call.is_alive()


def test_hang_spares_other_gpus_and_functions(node, nvml):
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
    node.calls.hang("nvmlDeviceGetUUID", 0)
    nvml.nvmlDeviceGetUUID(handles[1])
    nvml.nvmlDeviceGetName(handles[0])


def test_hang_ends_by_itself(node, nvml):
    node.calls.hang("nvmlDeviceGetCount", seconds=0.2)
    begin = time.perf_counter()
    nvml.nvmlDeviceGetCount()
    assert 0.15 < time.perf_counter() - begin < 5
    assert node.calls.faults() == []


def test_hang_catches_a_wait_in_progress(node, nvml, error_of):
    events = nvml.nvmlEventSetCreate()
    wait = in_thread(error_of, nvml.nvmlEventSetWait_v2, events, 100)
    node.calls.hang()
    wait.join(0.3)
    assert wait.is_alive()
    node.calls.unhang()
    wait.join(5)
    assert not wait.is_alive()


def test_lookup_of_a_hanging_gpu_hangs(node, nvml):
    node.calls.hang(gpu=2)
    nvml.nvmlDeviceGetHandleByIndex(1)
    lookup = in_thread(nvml.nvmlDeviceGetHandleByIndex, 2)
    lookup.join(0.1)
    assert lookup.is_alive()
    node.calls.unhang(gpu=2)
    lookup.join(5)
    assert not lookup.is_alive()


def test_call_fails_so_many_times(node, nvml, error_of):
    handle = nvml.nvmlDeviceGetHandleByIndex(3)
    node.calls.fail("nvmlDeviceGetUUID", 999, gpu=3, times=2)
    assert [error_of(nvml.nvmlDeviceGetUUID, handle) for _ in range(3)] == [999, 999, 0]


def test_call_fails_until_cleared(node, nvml, error_of):
    node.calls.fail("nvmlDeviceGetCount", 4)
    assert [error_of(nvml.nvmlDeviceGetCount) for _ in range(3)] == [4, 4, 4]
    assert node.calls.clear(FaultKind.FAIL) == 1
    assert nvml.nvmlDeviceGetCount() == 8


@pytest.mark.parametrize("error", [9, 4, 18, 999])
def test_init_fails(node, nvml, error_of, error):
    nvml.nvmlShutdown()
    node.calls.fail("nvmlInit", error, times=1)
    assert error_of(nvml.nvmlInit) == error
    assert error_of(nvml.nvmlInit) == 0


def test_call_is_slow(node, nvml):
    node.calls.slow("nvmlDeviceGetCount", 100)
    begin = time.perf_counter()
    nvml.nvmlDeviceGetCount()
    assert time.perf_counter() - begin >= 0.1


def test_faults_are_listed_and_replaced(node):
    node.calls.fail("nvmlDeviceGetName", 3, gpu=1)
    node.calls.fail("nvmlDeviceGetName", 4, gpu=1)
    (fault,) = node.calls.faults()
    assert (fault.kind, fault.function, fault.gpu, fault.error) == (
        FaultKind.FAIL,
        "nvmlDeviceGetName",
        1,
        4,
    )
    assert str(fault) == "nvmlDeviceGetName returns 4"


def test_unknown_names_are_refused(node):
    with pytest.raises(FunctionNotFound, match="nvmlFoo"):
        node.calls.hang("nvmlFoo")
    with pytest.raises(GpuNotFound, match="8"):
        node.calls.hang(gpu=8)
