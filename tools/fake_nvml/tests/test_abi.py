from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_uint, sizeof

import pynvml
import pytest
from device_api_fake_nvml import FakeNode, functions
from device_api_fake_nvml.errors import FunctionNotFound

REQUIRED = [
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlErrorString",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetAttributes_v2",
    "nvmlEventSetCreate",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
    "nvmlEventSetFree",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetMemoryErrorCounter",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetRetiredPages",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetRepairStatus",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkErrorCounter",
    "nvmlDeviceGetNvLinkVersion",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetSupportedClocksEventReasons",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetViolationStatus",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetUtilizationRates",
]

# The C side asserts the same sizes when it is compiled.
SIZES = {
    pynvml.c_nvmlEventData_t: 32,
    pynvml.nvmlPciInfo_t: 68,
    pynvml.c_nvmlMemory_t: 24,
    pynvml.c_nvmlMemory_v2_t: 40,
    pynvml.c_nvmlFieldValue_t: 40,
    pynvml.c_nvmlRowRemapperHistogramValues: 20,
    pynvml.c_nvmlViolationTime_t: 16,
    pynvml.c_nvmlMarginTemperature_v1_t: 8,
    pynvml.c_nvmlTemperature_v1_t: 12,
    pynvml.c_nvmlUtilization_t: 8,
    pynvml.c_nvmlGpuFabricInfo_v2_t: 36,
    pynvml.c_nvmlGpuFabricInfo_v3_t: 40,
    pynvml.c_nvmlEccSramErrorStatus_v1_t: 104,
    pynvml.c_nvmlRepairStatus_t: 12,
    pynvml.c_nvmlDeviceAttributes: 40,
}


@pytest.mark.parametrize("name", REQUIRED)
def test_library_exports(node, name):
    assert hasattr(ctypes.CDLL(str(node.library)), name)
    assert name in functions()


@pytest.mark.parametrize("struct", SIZES, ids=lambda struct: struct.__name__)
def test_struct_size_is_what_pynvml_has(struct):
    assert sizeof(struct) == SIZES[struct]


def test_every_name_of_a_function_is_exported(node):
    library = ctypes.CDLL(str(node.library))
    assert [name for name in functions() if not hasattr(library, name)] == []


def test_nothing_but_nvml_is_exported(node):
    library = ctypes.CDLL(str(node.library))
    assert not hasattr(library, "fake_nvml_set")
    assert not hasattr(library, "node_open")


def test_calls_before_init_are_refused(node):
    library = ctypes.CDLL(str(node.library))
    count = c_uint()
    assert library.nvmlDeviceGetCount_v2(byref(count)) == 1
    assert library.nvmlShutdown() == 0


def test_initialisations_are_counted(nvml, error_of):
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetCount() == 8
    nvml.nvmlShutdown()
    assert error_of(nvml.nvmlDeviceGetCount) == 1


@pytest.mark.parametrize("length", [0, 1, 40, 41, 96])
def test_string_fits_or_is_refused(nvml, length):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    buffer = (c_char * 96)()
    result = nvml.nvmlLib.nvmlDeviceGetUUID(handle, buffer, c_uint(length))
    assert result == (0 if length > 40 else 7)


@pytest.mark.parametrize(
    ("function", "struct"),
    [
        ("nvmlDeviceGetMemoryInfo_v2", pynvml.c_nvmlMemory_v2_t),
        ("nvmlDeviceGetMarginTemperature", pynvml.c_nvmlMarginTemperature_v1_t),
        ("nvmlDeviceGetTemperatureV", pynvml.c_nvmlTemperature_v1_t),
        ("nvmlDeviceGetSramEccErrorStatus", pynvml.c_nvmlEccSramErrorStatus_v1_t),
        ("nvmlDeviceGetRepairStatus", pynvml.c_nvmlRepairStatus_t),
        ("nvmlDeviceGetGpuFabricInfoV", pynvml.c_nvmlGpuFabricInfo_v3_t),
    ],
)
def test_wrong_struct_version_is_refused(nvml, function, struct):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    argument = struct()
    argument.version = 7 << 24
    assert getattr(nvml.nvmlLib, function)(handle, byref(argument)) == 25


@pytest.mark.parametrize("error", [*range(1, 31), 999, 12345])
def test_every_error_has_a_text(nvml, error):
    assert str(nvml.NVMLError(error))


def test_hidden_symbol_is_absent(tmp_path, attach, error_of):
    with FakeNode.create(tmp_path / "old", without_symbols=["nvmlDeviceGetGpuFabricInfoV"]) as node:
        nvml = attach(node)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        info = nvml.c_nvmlGpuFabricInfo_v3_t()
        assert error_of(nvml.nvmlDeviceGetGpuFabricInfoV, handle, byref(info)) == 13
        assert nvml.nvmlDeviceGetTemperature(handle, 0) == 34


def test_unknown_symbol_cannot_be_hidden(tmp_path):
    with pytest.raises(FunctionNotFound, match="nvmlFoo"):
        FakeNode.create(tmp_path / "old", without_symbols=["nvmlFoo"])
