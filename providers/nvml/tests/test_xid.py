"""The XID policy."""

from __future__ import annotations

import pytest
from device_api_nvml.recovery import ACTIONS, recovery
from device_api_nvml.xid import Effect, XidPolicy, builtin_table

from device_api_core.actions import action_strength
from device_api_core.plugins import InvalidOption

FATAL = {46, 48, 54, 62, 64, 74, 78, 79, 95, 110, 119, 120, 136, 140, 142, 143, 151, 155, 156}
FATAL |= {158, 159, 163, 165, 166, 167, 168, 169, 170, 171, 172}
IGNORED = {13, 14, 31, 43, 45, 68, 106, 107}


def test_the_table_has_every_code_in_use_once():
    codes = [row.code for row in builtin_table()]
    assert len(codes) == len(set(codes)) == 111
    assert codes == sorted(codes)
    assert (codes[0], codes[-1]) == (8, 172)


def test_the_effects_are_the_documented_ones():
    effects = {effect: set() for effect in Effect}
    for row in builtin_table():
        effects[row.effect].add(row.code)
    assert effects[Effect.FATAL] == FATAL
    assert effects[Effect.IGNORE] == IGNORED


@pytest.mark.parametrize("row", builtin_table(), ids=lambda row: row.code)
def test_every_row_is_complete(row):
    assert row.mnemonic.isupper()
    assert row.meaning
    assert row.todo
    assert set(row.boards) <= set("AHBG")
    assert row.source in {"catalog", "device-plugin", "device-api"}
    assert (row.effect is not Effect.FATAL) or action_strength(row.action) > 0


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (79, "RESTART_BM"),
        (48, "COMPONENT_RESET"),
        (74, "CONTACT_SUPPORT"),
        (151, "RESTART_VM"),
        (999, "CONTACT_SUPPORT"),
        (61, "CONTACT_SUPPORT"),
    ],
)
def test_a_fatal_code_recommends_an_action(code, action):
    row = XidPolicy()[code]
    assert (row.effect, row.action) == (Effect.FATAL, action)


def test_settings_win_and_say_so():
    policy = XidPolicy(ignored=(79,), informational=(999,), fatal=(31,))
    assert (policy[79].effect, policy[79].source) == (Effect.IGNORE, "settings")
    assert policy[999].effect is Effect.INFORM
    assert (policy[31].effect, policy[31].action) == (Effect.FATAL, "CONTACT_SUPPORT")
    assert [row.code for row in policy.rows] == [*sorted([*map(_code, builtin_table()), 999]), 0]


def _code(row):
    return row.code


@pytest.mark.parametrize(
    "lists", [{"ignored": (79,), "fatal": (79,)}, {"informational": (0,)}, {"fatal": (-1,)}]
)
def test_contradictions_are_refused(lists):
    with pytest.raises(InvalidOption, match="XID"):
        XidPolicy(**lists)


def test_every_recovery_action_has_a_recommendation():
    reset, reboot = "COMPONENT_RESET", "RESTART_BM"
    assert {value: r.action for value, r in ACTIONS.items()} == {
        1: reset, 2: reboot, 3: reset, 4: reset, 5: "CONTACT_SUPPORT", 6: reset, 7: reboot
    }  # fmt: skip
    assert recovery(99).action == "CONTACT_SUPPORT"
