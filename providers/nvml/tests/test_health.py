"""The rules, alone: whatever comes, a fault stays until an operator or a reset ends it."""

from __future__ import annotations

from dataclasses import replace

from device_api_nvml.health import (
    AWAITED,
    LOST,
    NOT_FOUND,
    RESET_REQUIRED,
    Doubt,
    Fault,
    Health,
    Story,
    unresponsive,
)
from device_api_nvml.xid import Effect, XidPolicy, builtin_table
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.actions import action_strength
from device_api_core.resources import ConditionStatus
from device_api_core.validation import check_condition

POLICY = XidPolicy()
BUILTIN = {row.code: row for row in builtin_table()}
STORY = Story(burst_seconds=60.0, notice_seconds=10.0)
WELL = Health(probe=None, watch=None)
CODES = st.sampled_from([*BUILTIN, 999, 3, 180])
BENIGN = CODES.filter(lambda code: POLICY[code].effect is not Effect.FATAL)
FATAL = CODES.filter(lambda code: POLICY[code].effect is Effect.FATAL)


def restarted(health: Health) -> Health:
    return Health.resumed(health.condition, BUILTIN) if not health.pending else Health()


def doubts(health: Health, doubt: Doubt | None) -> Health:
    return replace(health, probe=doubt)


AWKWARD = st.one_of(
    BENIGN.map(lambda code: lambda h: h.hit(POLICY[code], 0.0, STORY)),
    FATAL.map(lambda code: lambda h: h.hit(POLICY[code], 0.0, STORY)),
    st.sampled_from([LOST, NOT_FOUND, RESET_REQUIRED]).map(lambda f: lambda h: h.struck(f)),
    st.sampled_from([None, AWAITED, unresponsive("GPU", 1), Doubt("NvmlError", "999")]).map(
        lambda d: lambda h: doubts(h, d)
    ),
    st.sampled_from([None, AWAITED]).map(lambda d: lambda h: replace(h, watch=d)),
    st.just(lambda h: h.current(99.0)),
    st.just(restarted),
)


@given(FATAL, st.lists(AWKWARD, max_size=30))
def test_nothing_but_evidence_turns_false_into_anything_else(code, steps):
    health = WELL.hit(POLICY[code], 0.0, STORY)
    power = action_strength(health.action)
    for step in steps:
        health = step(health)
        condition = health.condition
        check_condition(condition)
        assert condition.status is ConditionStatus.FALSE
        assert len(condition.message) < 4_000
        power = max(power, action_strength(health.action)) if step is not restarted else power
    assert action_strength(restarted(health).action) <= power


@given(st.lists(BENIGN, max_size=20))
def test_benign_codes_never_make_a_gpu_unready(codes):
    health = WELL
    for code in codes:
        health = health.hit(POLICY[code], 0.0, STORY)
    assert health.condition.status is ConditionStatus.TRUE
    assert health.current(11.0).condition == WELL.condition


@given(st.lists(FATAL, min_size=1, max_size=12))
def test_the_strongest_action_wins_and_the_first_of_it_keeps_the_reason(codes):
    health = WELL
    for code in codes:
        health = health.hit(POLICY[code], 0.0, STORY)
    best = max(action_strength(POLICY[code].action) for code in codes)
    first = next(code for code in codes if action_strength(POLICY[code].action) == best)
    assert health.condition.reason == f"Xid{first}"
    assert action_strength(health.action) == best


@given(st.lists(CODES, max_size=12), st.sampled_from([Fault.of(POLICY[79]), LOST, NOT_FOUND]))
def test_a_restart_changes_nothing_about_a_fault(codes, fault):
    health = WELL.struck(fault)
    for code in codes:
        health = health.hit(POLICY[code], 0.0, STORY)
    again = replace(restarted(health), probe=None)
    assert again.condition == health.condition
    assert again.action == health.action


@given(st.lists(AWKWARD, max_size=10), FATAL)
def test_after_an_operators_word_a_good_look_makes_it_true(steps, code):
    health = WELL.hit(POLICY[code], 0.0, STORY)
    for step in steps:
        health = step(health)
    lifted = health.lifted()
    assert lifted.pending or lifted.condition.status is not ConditionStatus.FALSE
    good = replace(lifted, probe=None, watch=None)
    assert good.condition.status is ConditionStatus.TRUE


def test_a_known_true_is_not_believed_after_a_restart():
    assert Health.resumed(WELL.condition, BUILTIN).pending


def test_a_fault_of_an_unknown_kind_is_kept_too():
    fault = Fault("SomethingOlder", "Said by an earlier version.", "")
    again = Health.resumed(Health(fault).condition, BUILTIN)
    assert again.condition.reason == "SomethingOlder"
    assert again.action == ""
