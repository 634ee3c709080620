"""What is believed after a restart, and what may not be lost: rules, for any health."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "support"))

from kept import NOW, entries, healths

from device_api_core import conditions
from device_api_core.conditions import Action, assembled
from device_api_core.entries import Entry
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.restoring import must_be_kept, restored

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
LATER = 2 * NOW
PROOF = {("alpha", "FanHealthy"), ("beta", "FanHealthy"), ("", "XidHealthy")}


def proof(provider_id, type_):
    return (provider_id, type_) in PROOF


def after_restart(health, *, rebooted=False):
    return restored(health, rebooted=rebooted, reboot_proof=proof, now=LATER)


def pairs(health, rebooted):
    after = after_restart(health, rebooted=rebooted)
    key = [(c.type, c.provider_id) for c in health.conditions]
    assert key == [(c.type, c.provider_id) for c in after.conditions]
    return zip(health.conditions, after.conditions, strict=True)


@given(healths(), st.booleans())
def test_nothing_that_was_good_is_believed(health, rebooted):
    for before, after in pairs(health, rebooted):
        assert after.status is not TRUE
        if before.status is TRUE:
            assert (after.status, after.reason) == (UNKNOWN, "ServerRestarted")
            assert after.last_transition_time == LATER


@given(healths(), st.booleans())
def test_what_was_unknown_stays_as_it_was(health, rebooted):
    for before, after in pairs(health, rebooted):
        if before.status is UNKNOWN:
            assert after is before


@given(healths())
def test_a_fault_stays_with_time_and_text_while_the_node_was_not_booted(health):
    for before, after in pairs(health, False):
        if before.status is FALSE:
            assert after is before


@given(healths())
def test_a_boot_clears_the_faults_that_are_not_declared_to_survive_it(health):
    for before, after in pairs(health, True):
        if before.status is not FALSE:
            continue
        if proof(before.provider_id, before.type):
            assert after is before
        else:
            assert (after.status, after.reason) == (UNKNOWN, "NodeRebooted")
            assert after.last_transition_time == LATER


@given(healths(), st.booleans())
def test_a_second_restart_changes_nothing(health, rebooted):
    once = after_restart(health, rebooted=rebooted)
    assert after_restart(once) == once


@given(healths(), st.booleans())
def test_an_action_needs_a_cause_that_has_survived(health, rebooted):
    after = after_restart(health, rebooted=rebooted)
    for action in health.actions:
        said = list(pairs(health, rebooted))
        causes = [
            b.status
            for b, a in said
            if b is a and b.status is not TRUE and b.provider_id == action.provider_id
        ]
        expected = FALSE in causes if rebooted else bool(causes)
        assert (action in after.actions) == expected
    assert set(after.actions) <= set(health.actions)


@given(healths())
def test_ready_keeps_its_time_while_its_status_stays(health):
    after = after_restart(health)
    if after.ready.status is health.ready.status:
        assert after.ready.last_transition_time == health.ready.last_transition_time
    else:
        assert after.ready.last_transition_time == LATER


def test_an_action_for_a_fault_that_is_over_does_not_come_back():
    well = Condition("FanHealthy", TRUE, "", "", NOW, "alpha")
    health = assembled([well], (Action("alpha", "RESTART_BM"),), None, NOW)
    assert health.recommended_action == ""
    assert after_restart(health).recommended_action == ""


# --- what may not be lost


def gpu(*conditions_, actions=(), registrants=("alpha",)):
    health = assembled(conditions_, tuple(actions), None, NOW)
    return Entry("g", GpuSpec(), frozenset(registrants), health)


def fan(status, reason="", message=""):
    return Condition("FanHealthy", status, reason, message, NOW, "alpha")


BROKEN, WELL = fan(FALSE), fan(TRUE)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (None, gpu(), True),
        (gpu(), gpu(WELL), False),
        (gpu(), gpu(fan(UNKNOWN)), True),
        (gpu(WELL), gpu(fan(UNKNOWN)), True),
        (gpu(WELL), gpu(BROKEN), True),
        (gpu(fan(UNKNOWN)), gpu(BROKEN), True),
        (gpu(BROKEN), gpu(WELL), False),
        (gpu(BROKEN), gpu(fan(UNKNOWN)), False),
        (gpu(BROKEN), gpu(fan(FALSE, "Other", "text")), False),
        (gpu(BROKEN), gpu(fan(UNKNOWN, conditions.CLEARED)), True),
        (gpu(BROKEN), gpu(), True),
        (gpu(WELL), gpu(), True),
        (gpu(BROKEN), gpu(BROKEN, actions=[Action("alpha", "RESTART_VM")]), True),
        (gpu(BROKEN, actions=[Action("alpha", "RESTART_VM")]), gpu(BROKEN), False),
        (gpu(), gpu(registrants=()), True),
        (gpu(), gpu(registrants=("alpha", "beta")), False),
        (gpu(WELL), None, True),
        (None, None, False),
    ],
)
def test_what_takes_back_or_worsens_must_be_kept_and_what_betters_may_wait(before, after, kept):
    assert must_be_kept(before, after) is kept


@given(entries("g"), entries("g"))
def test_what_may_be_lost_leaves_no_less_after_a_restart(before, after):
    """If the change is lost, nothing bad that it said is missing."""
    if must_be_kept(before, after):
        return
    shown = {(c.type, c.provider_id): c for c in after_restart(before.health).conditions}
    for c in after_restart(after.health).conditions:
        if c.status is FALSE:
            assert shown[c.type, c.provider_id].status is FALSE


@given(entries("g"))
def test_no_change_need_not_be_kept(entry):
    assert not must_be_kept(entry, replace(entry))
