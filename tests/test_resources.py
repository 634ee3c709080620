"""Resources are immutable values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest

from device_api_core.resources import (
    READY,
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)
from device_api_core.validation import MAX_TIME, MIN_TIME


@pytest.mark.parametrize(
    ("nanoseconds", "time"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000_123_456_999, datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        (MIN_TIME, datetime(1, 1, 1, tzinfo=UTC)),
        (MAX_TIME, datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)),
    ],
)
def test_every_time_of_the_wire_is_a_datetime(nanoseconds, time):
    condition = Condition("X", ConditionStatus.TRUE, last_transition_time=nanoseconds)
    assert condition.last_transition == time


def test_no_time_is_no_datetime():
    assert Condition("X", ConditionStatus.TRUE).last_transition is None


def test_a_gpu_finds_its_conditions():
    fan = Condition("Fan", ConditionStatus.FALSE)
    gpu = Gpu(ObjectMeta("g"), status=GpuStatus((fan,)))
    assert gpu.name == "g"
    assert gpu.condition("Fan") is fan
    assert gpu.condition("fan") is None
    assert gpu.ready is ConditionStatus.UNKNOWN, "nothing said is not healthy"
    ready = Condition(READY, ConditionStatus.FALSE)
    assert Gpu(ObjectMeta("g"), status=GpuStatus((ready,))).ready is ConditionStatus.FALSE


@pytest.mark.parametrize(
    "value",
    [
        Condition("X", ConditionStatus.TRUE),
        GpuSpec(),
        GpuStatus(),
        ObjectMeta("g"),
        Gpu(ObjectMeta("g")),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_cannot_be_changed_and_can_be_shared(value):
    field = next(iter(type(value).__slots__))
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, "other")
    assert hash(value) == hash(value)
