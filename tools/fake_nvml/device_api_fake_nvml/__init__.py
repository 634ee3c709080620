"""A simulated NVML: nodes of GPUs that any NVML client can use and that fail on command."""

from device_api_fake_nvml.calls import Fault, FaultKind
from device_api_fake_nvml.errors import FakeNodeError
from device_api_fake_nvml.health import Bank, Location, RecoveryAction
from device_api_fake_nvml.identity import Gpu
from device_api_fake_nvml.library import functions, library_path
from device_api_fake_nvml.mig import MigDevice
from device_api_fake_nvml.models import model_names
from device_api_fake_nvml.node import FakeNode

__all__ = [
    "Bank",
    "FakeNode",
    "FakeNodeError",
    "Fault",
    "FaultKind",
    "Gpu",
    "Location",
    "MigDevice",
    "RecoveryAction",
    "functions",
    "library_path",
    "model_names",
]
