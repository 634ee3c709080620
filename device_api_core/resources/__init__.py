"""The resources of the API as immutable values: Gpu, GpuSpec, GpuStatus, Condition, ObjectMeta.

They mirror the messages of ``proto/nvidia/device/v1alpha1``. All of them are frozen and hold only
immutable values, so one object may be shared by the cache, every reader and every thread. Times are
integers: nanoseconds since the Unix epoch, UTC. A text that is empty and a number that is ``None``
were not said.

The kinds are generated from their .proto; what they share is in :mod:`.meta`.
"""

from __future__ import annotations

from device_api_core.resources import _generated
from device_api_core.resources._generated import *  # noqa: F403  (its __all__ names the kinds)
from device_api_core.resources.meta import (
    READY,
    Condition,
    Conditions,
    ConditionStatus,
    Device,
    HasConditions,
    Object,
    ObjectMeta,
)

__all__ = [
    "READY",
    "Condition",
    "ConditionStatus",
    "Conditions",
    "Device",
    "HasConditions",
    "Object",
    "ObjectMeta",
]
__all__ += _generated.__all__
