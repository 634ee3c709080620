"""From scrapes to conditions: what is a fault, and what ends it. Time is a number here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from device_api_dcgm import series
from device_api_dcgm.exposition import Key, Reading, Watch, parse
from device_api_dcgm.gpu import DcgmGpu, Doubt
from device_api_dcgm.health import TYPES, WATCHES, Judge
from device_api_dcgm.options import DcgmOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from device_api_core.errors import SettingsError
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

DBE, SBE = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"
XID, RECOVERY = "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION"
MEM, ALL = "DCGMMemHealthy", "DCGMAllHealthy"


class Story:
    """One GPU from scrape to scrape, ten seconds apart."""

    def __init__(self, scene, known=(), overruled="", **options):
        self.scene = scene
        self.options = DcgmOptions(**options)
        self.gpu = DcgmGpu(scene.name(0), Judge(self.options), known, overruled)
        self.now = 1000.0

    def step(self, times=1, seconds=10.0):
        [reading] = parse(self.scene.bytes).gpus.values()
        for _ in range(times):
            self.now += seconds
            self.gpu.observe(reading, self.now)
        return self

    def get(self, type_="DCGMHealth"):
        found = {c.type: (str(c.status), c.reason) for c in self.gpu.status.conditions}
        return found.get(type_)

    def message(self, type_="DCGMHealth"):
        return next(c.message for c in self.gpu.status.conditions if c.type == type_)

    @property
    def action(self):
        return self.gpu.status.action

    def restarted(self, **options):
        return Story(self.scene, self.gpu.status.conditions, self.gpu.overruled, **options)


@pytest.fixture
def one(make_scene):
    return make_scene(gpus=1)


@pytest.fixture
def story(one):
    return Story(one).step()


def test_a_healthy_gpu_is_true_in_every_watch(story):
    assert {t: story.get(t) for t in TYPES} == dict.fromkeys(TYPES, ("True", "Pass"))
    assert story.action == ""


@pytest.mark.parametrize(("watch", "type_"), WATCHES.items())
def test_a_failing_watch_is_its_condition_and_the_roll_up(story, watch, type_):
    story.scene.watch(0, watch, 20, "NVLINK_DOWN")
    story.step()
    assert story.get(type_) == story.get() == ("False", "NvlinkDown")
    assert "DCGM_FR_NVLINK_DOWN" in story.message(type_)
    assert story.action == "RESTART_VM"
    others = {story.get(t) for t in TYPES} - {story.get()}
    assert others == {("True", "Pass")}


@pytest.mark.parametrize(
    ("code", "action"),
    [
        ("VOLATILE_DBE_DETECTED", "COMPONENT_RESET"),
        ("FALLEN_OFF_BUS", "RESTART_BM"),
        ("UNCONTAINED_ERROR", "RESTART_VM"),
        ("CLOCKS_EVENT_THERMAL", "CONTACT_SUPPORT"),
        ("CLOCK_THROTTLE_THERMAL", ""),
        ("CONTAINED_ERROR", "CONTACT_SUPPORT"),
        ("UNKNOWN(977)", "CONTACT_SUPPORT"),
        ("", "CONTACT_SUPPORT"),
    ],
)
def test_the_action_of_a_code(story, code, action):
    story.scene.watch(0, "PCIE", 20, code)
    assert story.step().get("DCGMPcieHealthy")[0] == "False"
    assert story.action == action


def test_a_warning_stays_true_and_is_told(story):
    story.scene.watch(0, "PCIE", 10, "PCI_REPLAY_RATE")
    assert story.step().get("DCGMPcieHealthy") == ("True", "PciReplayRate")
    assert story.get() == ("True", "Pass")
    assert "PCI_REPLAY_RATE" in story.message()
    assert story.action == ""


def test_a_level_fault_ends_when_its_watch_passes_for_a_minute(story):
    story.scene.watch(0, "NVLINK", 20, "NVLINK_DOWN")
    story.step().scene.watch(0, "NVLINK")
    assert story.step(6).get("DCGMNvlinkHealthy") == ("False", "NvlinkDown")
    story.scene.watch(0, "NVLINK", 20, "NVLINK_DOWN")
    story.step().scene.watch(0, "NVLINK")
    assert story.step(6).get("DCGMNvlinkHealthy") == ("False", "NvlinkDown")
    assert story.step().get("DCGMNvlinkHealthy") == ("True", "Pass")
    assert story.get() == ("True", "Pass")


def test_a_watch_that_is_not_reported_ends_no_fault(story):
    story.scene.watch(0, "NVLINK", 20, "NVLINK_DOWN")
    story.step().scene.drop("DCGM_EXP_GPU_HEALTH_STATUS")
    assert story.step(20).get("DCGMNvlinkHealthy") == ("False", "NvlinkDown")
    assert story.get("DCGMPcieHealthy") == ("Unknown", "SeriesNotReported")


def test_an_unknown_watch_is_not_lost(story):
    story.scene.watch(0, "FUTURE", 20, "NEW_CODE")
    assert story.step().get() == ("False", "NewCode")


# XIDs


def test_a_fatal_xid_of_the_window_is_a_fault(story):
    story.scene.xid(0, 79)
    assert story.step().get() == ("False", "Xid79")
    assert story.action == "RESTART_BM"


def test_the_first_sight_of_the_last_xid_is_history(one):
    story = Story(one.set(XID, 0, 79)).step()
    assert story.get() == ("True", "Pass")
    one.set(XID, 0, 48)
    assert story.step().get() == ("False", "Xid48")


def test_the_first_sight_of_the_last_xid_counts_if_something_else_is_wrong(one):
    one.set(XID, 0, 79).watch(0, "ALL", 20, "FALLEN_OFF_BUS")
    story = Story(one).step()
    assert story.get(ALL) == ("False", "FallenOffBus")
    assert story.get() == ("False", "Xid79")


def test_the_first_sight_of_the_window_is_news(one):
    assert Story(one.xid(0, 48)).step().get() == ("False", "Xid48")


def test_a_last_xid_that_becomes_another_is_seen_and_ends_nothing(story):
    story.scene.set(XID, 0, 79)
    story.step().scene.set(XID, 0, 45)
    assert story.step(20).get() == ("False", "Xid79")
    story.scene.set(XID, 0, 0)
    assert story.step(20).get() == ("False", "Xid79")


def test_the_window_tells_of_all_xids_of_a_burst(story):
    story.scene.set(XID, 0, 45)
    for xid in (48, 63, 94, 45):
        story.scene.xid(0, xid)
    assert story.step().get() == ("False", "Xid48")
    assert story.action == "COMPONENT_RESET"


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68])
def test_ignored_xids_say_nothing(story, xid):
    story.scene.set(XID, 0, xid).xid(0, xid, 3)
    assert story.step().get() == ("True", "Pass")
    assert story.message() == "DCGM finds no fault."


def test_informational_xids_are_told(story):
    story.scene.xid(0, 63)
    assert story.step().get() == ("True", "Pass")
    assert "XID 63" in story.message()
    assert Story(story.scene, fatal_xids=(63,)).step().get() == ("False", "Xid63")
    assert Story(story.scene.xid(0, 79), ignored_xids=(79,)).step().get() == ("True", "Pass")


def test_xids_that_nobody_lists_ask_for_support(story):
    story.scene.xid(0, 999)
    assert story.step().get() == ("False", "Xid999")
    assert story.action == "CONTACT_SUPPORT"


def test_an_empty_window_ends_nothing(story):
    story.scene.xid(0, 48)
    story.step().scene.drop("DCGM_EXP_XID_ERRORS_COUNT", xid="48")
    assert story.step(100).get() == ("False", "Xid48")


def test_a_fault_from_before_is_not_news_when_cleared_but_the_next_is(story):
    story.scene.xid(0, 48, 2)
    story.step().gpu.clear("DCGMHealth")
    assert story.get() == ("Unknown", "Cleared")
    assert story.step(2).get() == ("True", "Pass")
    story.scene.xid(0, 48, 3)
    assert story.step().get() == ("False", "Xid48")


# ECC, and what a reset looks like


@pytest.fixture
def broken(story):
    """An uncorrectable error, seen three ways."""
    story.scene.set(DBE, 0, 1).xid(0, 48).watch(0, "ALL", 20, "XID_ERROR")
    story.scene.watch(0, "MEM", 20, "VOLATILE_DBE_DETECTED")
    story.step()
    assert story.get(MEM)[0] == story.get(ALL)[0] == story.get()[0] == "False"
    return story


def test_an_uncorrectable_error_is_an_increase(one):
    story = Story(one.set(DBE, 0, 3)).step()
    assert story.get(MEM) == ("True", "UncorrectableEccBefore")
    one.set(DBE, 0, 4)
    assert story.step().get(MEM) == ("False", "UncorrectableEcc")
    assert story.action == "COMPONENT_RESET"


def test_a_watch_that_passes_ends_no_ecc_fault(broken):
    broken.scene.watch(0, "MEM").watch(0, "ALL")
    broken.step(100)
    assert broken.get(MEM)[0] == broken.get(ALL)[0] == broken.get()[0] == "False"


def reset_by_counters(scene):
    scene.set(DBE, 0, 0)


def reset_by_recovery(scene):
    scene.set(RECOVERY, 0, 0)


@pytest.mark.parametrize("reset", [reset_by_counters, reset_by_recovery])
def test_a_seen_reset_and_a_clean_minute_end_it_all(broken, reset):
    broken.scene.set(RECOVERY, 0, 1 if reset is reset_by_recovery else 0)
    broken.step()
    reset(broken.scene)
    broken.scene.watch(0, "MEM")
    broken.step(6)
    assert broken.get()[0] == broken.get(MEM)[0] == broken.get(ALL)[0] == "False"
    broken.step()
    assert broken.get(MEM)[0] == "True"
    assert broken.get() == ("True", "Pass")
    # The window still has it, and the ALL watch never forgets.
    assert broken.get(ALL) == ("True", "Overruled")
    assert broken.step(100).get(ALL) == ("True", "Overruled")
    broken.scene.watch(0, "ALL", 20, "FALLEN_OFF_BUS")
    assert broken.step().get(ALL) == ("False", "FallenOffBus")


def test_an_overruled_watch_that_passed_is_believed_again(broken):
    broken.scene.set(DBE, 0, 0).watch(0, "MEM")
    assert broken.step(8).get(ALL) == ("True", "Overruled")
    again = broken.restarted().step()
    assert again.get(ALL) == ("True", "Overruled")
    again.scene.watch(0, "ALL")
    again.step().scene.watch(0, "ALL", 20, "XID_ERROR")
    assert again.step().get(ALL) == ("False", "XidError")


def test_a_reset_of_before_does_not_end_what_came_after(story):
    story.scene.set(SBE, 0, 5)
    story.step().scene.set(SBE, 0, 0)
    story.step().scene.xid(0, 79)
    assert story.step(100).get() == ("False", "Xid79")


def test_new_errors_after_a_reset_begin_it_all_again(broken):
    broken.scene.set(DBE, 0, 0).watch(0, "MEM")
    broken.step(3).scene.xid(0, 48, 2)
    assert broken.step(100).get() == ("False", "Xid48")


def test_a_counter_that_fell_but_counts_again_has_news(broken):
    broken.scene.set(DBE, 0, 5)
    broken.step().scene.set(DBE, 0, 2)
    assert broken.step(100).get(MEM)[0] == "False"


def test_a_watch_that_still_fails_is_not_overruled_by_a_reset(broken):
    broken.scene.set(DBE, 0, 0)
    assert broken.step(100).get(MEM) == ("False", "VolatileDbeDetected")


def test_an_interrupted_minute_begins_anew(broken):
    broken.scene.set(DBE, 0, 0).watch(0, "MEM")
    broken.step(5).gpu.fail(None)
    assert broken.step(6).get()[0] == "False"
    assert broken.step().get()[0] == "True"


def test_a_recovery_that_is_wanted_is_a_fault_and_no_clean_minute(broken):
    broken.scene.set(RECOVERY, 0, 2)
    broken.step()
    assert broken.get("DCGMDriverHealthy") == ("False", "NodeRebootRequired")
    assert broken.action == "RESTART_BM"
    broken.scene.set(DBE, 0, 0)
    assert broken.step(100).get()[0] == "False"


@pytest.mark.parametrize(
    ("value", "action"),
    [(1, "COMPONENT_RESET"), (3, "COMPONENT_RESET"), (7, "RESTART_BM"), (9, "CONTACT_SUPPORT")],
)
def test_recovery_actions(story, value, action):
    story.scene.set(RECOVERY, 0, value)
    assert story.step().get("DCGMDriverHealthy")[0] == "False"
    assert story.action == action
    story.scene.set(RECOVERY, 0, 0)
    assert story.step(7).get("DCGMDriverHealthy") == ("True", "Pass")


def test_mig_instances_that_are_cut_anew_are_no_reset(story):
    story.scene.drop(SBE).set(SBE, 0, 9, GPU_I_ID="1").xid(0, 79)
    story.step().scene.set(SBE, 0, 0, GPU_I_ID="1")
    assert story.step(100).get() == ("False", "Xid79")


# Memory rows, temperature, power, links


def test_a_failed_remap_is_a_fault_while_it_lasts(story):
    story.scene.set("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0, 1)
    assert story.step().get(MEM) == ("False", "RowRemapFailure")
    assert story.action == "CONTACT_SUPPORT"
    story.scene.set("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0, 2147483632)
    assert story.step(100).get(MEM) == ("False", "RowRemapFailure")
    story.scene.set("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0, 0)
    assert story.step(7).get(MEM) == ("True", "Pass")


@pytest.mark.parametrize("name", ["DCGM_FI_DEV_ROW_REMAP_PENDING", "DCGM_FI_DEV_RETIRED_PENDING"])
def test_a_pending_remap_is_a_warning_or_a_fault(one, name):
    one.set(name, 0, 1)
    story = Story(one).step()
    assert story.get(MEM) == ("True", "RowRemapPending")
    assert "waits for a reset" in story.message()
    strict = Story(one, row_remap_pending="fault").step()
    assert strict.get(MEM) == ("False", "RowRemapPending")
    assert strict.action == "COMPONENT_RESET"


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ({"DCGM_FI_DEV_GPU_TEMP": 90, "DCGM_FI_DEV_SLOWDOWN_TEMP": 89}, "False"),
        ({"DCGM_FI_DEV_GPU_TEMP": 88, "DCGM_FI_DEV_SLOWDOWN_TEMP": 89}, "True"),
        ({"DCGM_FI_DEV_GPU_TEMP": 90, "DCGM_FI_DEV_SLOWDOWN_TEMP": 0}, "True"),
        ({"DCGM_FI_DEV_GPU_TEMP_LIMIT": -4}, "False"),
        ({"DCGM_FI_DEV_GPU_TEMP_LIMIT": -3}, "True"),
    ],
)
def test_temperatures(story, rows, status):
    for name, value in rows.items():
        story.scene.set(name, 0, value)
    assert story.step().get("DCGMThermalHealthy")[0] == status


@pytest.mark.parametrize(
    ("event", "type_", "reason"),
    [
        ("hw_thermal", "DCGMThermalHealthy", "HwThermalSlowdown"),
        ("hw_power_brake", "DCGMPowerHealthy", "HwPowerBrake"),
    ],
)
def test_clock_events(story, event, type_, reason):
    story.scene.set("DCGM_EXP_CLOCK_EVENTS_COUNT", 0, 2, clock_event=event)
    assert story.step().get(type_) == ("False", reason)
    story.scene.drop("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event=event)
    assert story.step(7).get(type_) == ("True", "Pass")


def test_time_slowed_down_is_a_share_and_not_an_amount(one):
    one.set("DCGM_FI_DEV_THERMAL_VIOLATION", 0, 10**15)
    one.set("DCGM_FI_DEV_POWER_VIOLATION", 0, 10**15)
    story = Story(one).step(10)
    assert story.get("DCGMThermalHealthy") == ("True", "Pass")
    for n in range(1, 8):
        one.set("DCGM_FI_DEV_THERMAL_VIOLATION", 0, 10**15 + n * 2_000_000_000)
        one.set("DCGM_FI_DEV_POWER_VIOLATION", 0, 10**15 + n * 2_000_000_000)
        story.step()
    assert story.get("DCGMThermalHealthy") == ("False", "ThermalViolation")
    assert story.get("DCGMPowerHealthy") == ("True", "PowerViolation")
    assert story.step(14).get("DCGMThermalHealthy") == ("True", "Pass")


@pytest.mark.parametrize(("per_second", "status"), [(90, "True"), (110, "False")])
def test_nvlink_errors_count_by_their_rate(story, per_second, status):
    name = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"
    for second in range(0, 120, 10):
        # The exporter looks every 30 s only: the counter moves in steps.
        story.scene.set(name, 0, second // 30 * 30 * per_second)
        story.step()
    assert story.get("DCGMNvlinkHealthy")[0] == status


def test_a_counter_that_restarts_is_no_error_and_no_rate(one):
    name = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"
    story = Story(one.set(name, 0, 10**9)).step(8)
    story.scene.set(name, 0, 0)
    assert story.step(8).get("DCGMNvlinkHealthy") == ("True", "Pass")


# Missing is not healthy


def test_a_gpu_that_is_not_reported_is_unknown_after_three_scrapes(story):
    for _ in range(2):
        story.gpu.miss()
        assert story.get() == ("True", "Pass")
    story.gpu.miss()
    assert {story.get(t) for t in TYPES} == {("Unknown", "GpuNotReported")}
    assert story.step().get() == ("True", "Pass")


def test_a_fault_stays_when_the_gpu_is_gone(story):
    story.scene.xid(0, 79)
    story.step()
    for _ in range(5):
        story.gpu.miss()
    story.gpu.fail(Doubt("ScrapeFailed", "x"))
    assert story.get() == ("False", "Xid79")
    assert story.get(MEM) == ("Unknown", "ScrapeFailed")


def test_a_series_that_is_gone_is_a_doubt(story):
    story.scene.drop("DCGM_EXP_GPU_HEALTH_STATUS", health_watch="SM")
    assert story.step(2).get("DCGMSmHealthy") == ("True", "Pass")
    assert story.step().get("DCGMSmHealthy") == ("Unknown", "SeriesNotReported")
    assert story.get() == ("Unknown", "SeriesNotReported")
    assert "watch:SM" in story.message()
    story.gpu.clear("DCGMHealth")  # the operator took it out of the counters file
    assert story.step(9).get() == ("True", "Pass")


def test_without_health_series_the_roll_up_says_so(one):
    one.drop("DCGM_EXP_GPU_HEALTH_STATUS")
    story = Story(one).step()
    assert [c.type for c in story.gpu.status.conditions] == ["DCGMHealth"]
    assert story.get() == ("True", "PartialSeries")
    one.set("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0, 1)
    assert story.step().get(MEM) == ("False", "RowRemapFailure")


def test_without_any_series_of_health_nothing_is_known(one):
    one.drop().set("DCGM_FI_DEV_GPU_TEMP", 0, 40)
    assert Story(one).step().get() == ("Unknown", "NoHealthSeries")


# Restarts


FAULTS = {
    "xid": lambda s: s.xid(0, 79),
    "two": lambda s: s.xid(0, 48).xid(0, 79).watch(0, "ALL", 20, "FALLEN_OFF_BUS"),
    "ecc": lambda s: s.set(DBE, 0, 1),
    "dbe": lambda s: s.watch(0, "MEM", 20, "VOLATILE_DBE_DETECTED"),
    "all": lambda s: s.watch(0, "ALL", 20, "NO_SUCH_CODE"),
}


@pytest.mark.parametrize("cause", FAULTS)
def test_latched_faults_outlast_a_restart(story, make_scene, cause):
    FAULTS[cause](story.scene)
    story.step()
    before, action = story.gpu.status
    assert "False" in {str(c.status) for c in before}
    story.scene = make_scene(gpus=1)
    again = story.restarted()
    assert again.gpu.silent
    again.step(50)
    false = {c.type: (c.reason, c.message) for c in before if c.status is ConditionStatus.FALSE}
    for type_, (reason, message) in false.items():
        assert again.get(type_) == ("False", reason)
        assert again.message(type_) == message
    assert again.action == action
    again.scene.set(RECOVERY, 0, 1)
    again.step().scene.set(RECOVERY, 0, 0)
    again.step(7)
    assert {again.get(t)[0] for t in TYPES} == {"True"}


@pytest.mark.parametrize(
    ("change", "type_"),
    [
        (lambda s: s.watch(0, "PCIE", 20, "PCI_REPLAY_RATE"), "DCGMPcieHealthy"),
        (lambda s: s.set("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0, 1), MEM),
        (lambda s: s.set(RECOVERY, 0, 4), "DCGMDriverHealthy"),
        (
            lambda s: s.set("DCGM_EXP_CLOCK_EVENTS_COUNT", 0, 2, clock_event="hw_thermal"),
            "DCGMThermalHealthy",
        ),
    ],
)
def test_level_faults_end_after_a_restart_as_before(story, make_scene, change, type_):
    change(story.scene)
    story.step()
    story.scene = make_scene(gpus=1)
    again = story.restarted().step(6)
    assert again.get(type_)[0] == again.get()[0] == "False"
    again.step()
    assert again.get(type_) == again.get() == ("True", "Pass")


def test_a_false_nobody_can_explain_is_kept(one):
    known = [Condition("DCGMHealth", ConditionStatus.FALSE, "Mystery", "Who knows.")]
    story = Story(one, known).step(20)
    assert story.get() == ("False", "Mystery")
    story.gpu.clear("DCGMHealth")
    assert story.step().get() == ("True", "Pass")


def test_clearing_a_watch_leaves_the_others(broken):
    broken.gpu.clear(ALL)
    broken.step()
    assert broken.get(ALL) == ("True", "Overruled")
    assert broken.get(MEM)[0] == broken.get()[0] == "False"


def test_clearing_does_not_hide_what_still_fails(story):
    story.scene.watch(0, "NVLINK", 20, "NVLINK_DOWN")
    story.step().gpu.clear("DCGMNvlinkHealthy")
    assert story.step().get("DCGMNvlinkHealthy") == ("False", "NvlinkDown")


def test_the_sample(sample):
    seen = {}
    for name, reading in parse(sample).gpus.items():
        gpu = DcgmGpu(name, Judge(DcgmOptions()))
        gpu.observe(reading, 0.0)
        conditions, action = gpu.status
        false = {c.type: c.reason for c in conditions if c.status is ConditionStatus.FALSE}
        seen[reading.spec.index] = (false, action)
    healthy = ({}, "")
    assert [seen[n] for n in (0, 1, 2, 5, 7)] == [healthy] * 5
    thermal = "HwThermalSlowdown"
    assert seen[3] == ({"DCGMHealth": thermal, "DCGMThermalHealthy": thermal}, "CONTACT_SUPPORT")
    assert seen[4] == ({"DCGMHealth": "Xid79", ALL: "FallenOffBus"}, "RESTART_BM")
    dbe = "VolatileDbeDetected"
    assert seen[6] == ({"DCGMHealth": dbe, MEM: dbe}, "COMPONENT_RESET")


# Any history


VALUES = {
    series.XID: st.sampled_from([0, 31, 48, 63, 79, 999]),
    series.DBE: st.integers(0, 3),
    series.REMAP_FAILED: st.integers(0, 1),
    series.REMAP_PENDING: st.integers(0, 1),
    series.THERMAL_VIOLATION: st.floats(0, 1e12),
    series.NVLINK_ERRORS[0]: st.floats(0, 1e6),
    series.TEMPERATURE: st.integers(0, 100),
    series.MARGIN: st.integers(-10, 50),
}
CODES = st.sampled_from(["OK", "XID_ERROR", "FALLEN_OFF_BUS", "NVLINK_DOWN", "UNKNOWN(3)"])
readings = st.builds(
    Reading,
    st.just(GpuSpec()),
    st.fixed_dictionaries({}, optional={Key(n): v for n, v in VALUES.items()}),
    st.dictionaries(
        st.sampled_from(list(WATCHES)),
        st.builds(Watch, st.sampled_from([0, 10, 20]), CODES.map("DCGM_FR_{}".format)),
    ),
    st.none() | st.dictionaries(st.sampled_from([31, 48, 63, 79]), st.integers(1, 3)),
    st.none() | st.dictionaries(st.sampled_from(["hw_thermal", "gpu_idle"]), st.integers(1, 3)),
)
steps = st.lists(readings | st.sampled_from(["miss", "fail", "restart"]), max_size=12)


def latched_types(false):
    """Those that only a reset may make True: the reasons of XIDs, of ECC, of the ALL watch."""
    for type_, reason in false.items():
        if type_ == ALL or reason.startswith("Xid") or reason == "UncorrectableEcc":
            yield from (type_, "DCGMHealth")


@given(steps)
@settings(max_examples=200, deadline=None)
def test_without_a_reset_no_xid_or_ecc_fault_ever_ends(history):
    judge = Judge(DcgmOptions())
    gpu, now, latched, count = DcgmGpu("gpu", judge), 0.0, set(), 0
    for step in history:
        now += 100.0
        if step == "miss":
            gpu.miss()
        elif step == "fail":
            gpu.fail(Doubt("ScrapeFailed", "x"))
        elif step == "restart":
            gpu = DcgmGpu("gpu", judge, gpu.status.conditions, gpu.overruled)
        else:
            # A count that goes down is what a reset looks like.
            count = max(count, step.values.get(Key(series.DBE), 0))
            gpu.observe(replace(step, values={**step.values, Key(series.DBE): count}), now)
        conditions, action = gpu.status
        false = {c.type: c.reason for c in conditions if c.status is ConditionStatus.FALSE}
        assert latched <= set(false)
        assert false or not action
        assert ("DCGMHealth" in false) == bool(false)
        latched |= set(latched_types(false))


def test_the_settings_are_checked():
    for wrong in (
        {"interval_seconds": 0.0},
        {"failed_scrapes": 0},
        {"row_remap_pending": "maybe"},
        {"user": "me"},
        {"user": "m:e", "password_file": "f"},
        {"user": "me", "password_file": "f", "bearer_token_file": "t"},
        {"key_file": "k"},
        {"url": "ftp://localhost/"},
        {"url": "http://"},
        {"url": "http://localhost:99999/"},
        {"url": "localhost:9400"},
    ):
        with pytest.raises(SettingsError):
            DcgmOptions(**wrong)
    with pytest.raises(SettingsError, match="XID 79 is listed"):
        Judge(DcgmOptions(ignored_xids=(79,), fatal_xids=(79,)))


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@localhost:9400/metrics",
        "http://s3cret@localhost/",
        "http://me:s3cret/s3cret@localhost/",
        "http://me:s3cret?s3cret@localhost/",
        "me:s3cret@localhost",
        "ftp://localhost/?token=s3cret",
    ],
)
def test_credentials_in_the_url_are_refused_and_not_repeated(url):
    with pytest.raises(SettingsError) as refused:
        DcgmOptions(url=url)
    assert "s3cret" not in str(refused.value)
