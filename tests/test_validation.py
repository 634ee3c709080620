"""Every rule for what comes in, at, below and above its boundary."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.errors import InvalidArgument
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus
from device_api_core.validation import (
    MAX_TIME,
    MIN_TIME,
    check_action,
    check_condition,
    check_conditions,
    check_name,
    check_provider_id,
    check_spec,
    check_status,
    check_type,
    shortened,
)

LONE_SURROGATE = "broken \ud800"


def condition(type_="X", **fields):
    return Condition(type_, ConditionStatus.TRUE, **fields)


def refusal(check, *args):
    with pytest.raises(InvalidArgument) as caught:
        check(*args)
    return caught.value


@pytest.mark.parametrize("name", ["a", "0", "gpu-0", "A.b_c-D", "a" * 253, "GPU-1f-.-x"])
def test_a_name_may_be(name):
    check_name(name)


@pytest.mark.parametrize(
    "name", ["-a", "a-", ".a", "a_", "a b", "a/b", "a\n", "ä", "a" * 254, "a\x00b"]
)
def test_a_name_may_not_be(name):
    assert refusal(check_name, name, "gpu").field == "gpu"


def test_an_empty_name_is_said_to_be_empty():
    assert str(refusal(check_name, "")) == "name: must not be empty"


@given(st.text(max_size=260))
def test_names_follow_the_documented_pattern(name):
    documented = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,251}[A-Za-z0-9])?"
    if re.fullmatch(documented, name):
        check_name(name)
    else:
        refusal(check_name, name)


def test_a_long_refused_value_is_not_repeated_whole():
    assert len(str(refusal(check_name, "-" * 100_000))) < 300


@pytest.mark.parametrize("id_", ["", "nvml", "x" * 128, "a b/ü"])
def test_a_provider_id_may_be(id_):
    check_provider_id(id_)


@pytest.mark.parametrize("id_", ["x" * 129, "a\nb", "\x00", LONE_SURROGATE, "\u200b"])
def test_a_provider_id_may_not_be(id_):
    assert refusal(check_provider_id, id_).field == "provider_id"


@pytest.mark.parametrize(
    "type_",
    [
        "X",
        "MemoryHealthy",
        "X9",
        "example.com/Fan",
        "a-b.c/X",
        "X" * 128,
        "d" * 253 + "/" + "X" * 128,
    ],
)
def test_a_type_may_be(type_):
    check_type(type_, "type")


@pytest.mark.parametrize(
    "type_",
    [
        "", "x", "9X", "X-Y", "X Y", "X\n", "/X", "Example.com/X", "a/b/X", "a/", "a/x", "Ä",
        "X" * 129, "a/" + "X" * 129, "d" * 254 + "/" + "X" * 128,
    ],
)  # fmt: skip
def test_a_type_may_not_be(type_):
    assert refusal(check_type, type_, "c.type").field == "c.type"


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("reason", "r" * 1_024, "r" * 1_025),
        ("reason", "ü" * 1_024, "ü" * 1_025),
        ("message", "m" * 32_768, "m" * 32_769),
        ("message", "ü" * 16_384, "ü" * 16_384 + "m"),
        ("message", "𝄞" * 8_192, "𝄞" * 8_192 + "m"),
        ("message", "line\nbreak\x00", LONE_SURROGATE),
        ("reason", "any text", LONE_SURROGATE),
        ("last_transition_time", MIN_TIME, MIN_TIME - 1),
        ("last_transition_time", MAX_TIME, MAX_TIME + 1),
        ("last_transition_time", None, 1.5),
    ],
)
def test_a_conditions_field_has_a_limit(field, allowed, refused):
    check_condition(condition(**{field: allowed}))
    error = refusal(check_condition, condition(**{field: refused}), "conditions[3]")
    assert error.field == f"conditions[3].{field}"


def test_a_condition_needs_a_valid_type():
    assert refusal(check_condition, condition("x")).field == "condition.type"


def test_a_type_occurs_once_in_a_status():
    check_status(GpuStatus((condition("X"), condition("Y"))))
    error = refusal(check_status, GpuStatus((condition("X"), condition("Y"), condition("X"))))
    assert str(error) == "status.conditions[2].type: X occurs twice in one status"


def test_every_condition_of_a_status_is_checked():
    error = refusal(check_conditions, (condition("X"), condition("y")), "initial_status")
    assert error.field == "initial_status.conditions[1].type"


def test_an_action_has_a_limit():
    check_status(GpuStatus((), "a" * 1_024))
    assert refusal(check_status, GpuStatus((), "a" * 1_025)).field == "status.recommended_action"
    assert refusal(check_action, LONE_SURROGATE).field == "recommended_action"


TEXT_FIELDS = ["uuid", "pci_bus_id", "product_name", "architecture", "serial", "mig_mode"]


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_a_specs_text_has_a_limit(field):
    check_spec(GpuSpec(**{field: "x" * 256}))
    for refused in ("x" * 257, "a\nb"):
        assert refusal(check_spec, GpuSpec(**{field: refused})).field == f"spec.{field}"


@pytest.mark.parametrize(
    ("field", "most"), [("index", 2**31 - 1), ("minor", 2**31 - 1), ("memory_bytes", 2**64 - 1)]
)
def test_a_specs_numbers_fit_the_wire(field, most):
    for allowed in (0, most):
        check_spec(GpuSpec(**{field: allowed}))
    for refused in (-1, most + 1):
        assert refusal(check_spec, GpuSpec(**{field: refused}), "s").field == f"s.{field}"


@given(st.text(st.characters()), st.integers(0, 40))
def test_shortened_text_fits_and_can_be_encoded(text, limit):
    short = shortened(text, limit)
    assert len(short.encode()) <= limit
    if len(text.encode(errors="replace")) <= limit and "\ud800" not in text:
        assert len(short) == len(text)
    assert text.encode(errors="replace").decode().startswith(short)
