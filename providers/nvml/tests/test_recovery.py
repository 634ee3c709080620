"""Verified recovery: what ends a fault, after how long, and what does not."""

from __future__ import annotations

import pytest
from device_api_fake_nvml import RecoveryAction


def name(node, number=0):
    return node.gpu(number).uuid.lower()


@pytest.fixture(autouse=True)
def patient(bench):
    """Nothing hangs here; a busy machine must not look like it."""
    bench.call_seconds = 5.0


@pytest.fixture
def told(caplog):
    """The evidence of recoveries, as logged."""
    caplog.set_level("INFO")

    def evidence():
        return [r.evidence for r in caplog.records if r.message.endswith(" recovered")]

    return evidence


def struck(bench, code=48, **how):
    """A node whose only GPU has a fault, and its sink."""
    node = bench.node(gpus=1, **how)
    sink = bench.ready(node).sink
    node.inject_xid(0, code)
    sink.wait_for(name(node), "False", f"Xid{code}")
    sink.polls()
    return node, sink


def test_a_fault_ends_when_the_driver_asks_for_nothing_for_the_hold(bench, told):
    node, sink = struck(bench)
    bench.clock.add(50)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(11)
    sink.wait_for(name(node), "True", "Initialized")
    assert sink.status(name(node))[2] == ""
    assert told() == [
        "the driver's recovery action was none and every look was good, "
        "without a new fatal XID, for 60 s"
    ]


def test_a_new_fatal_xid_starts_the_hold_again(bench):
    node, sink = struck(bench)
    bench.clock.add(50)
    sink.polls()
    node.inject_xid(0, 62)
    sink.wait(lambda: "Xid62" in sink.message(name(node)))
    sink.polls()
    bench.clock.add(50)
    sink.polls(3)
    assert sink.is_(name(node), "False")
    bench.clock.add(11)
    sink.wait_for(name(node), "True")


def test_a_failing_query_starts_the_hold_again(bench):
    node, sink = struck(bench)
    bench.clock.add(50)
    sink.polls()
    node.calls.fail("nvmlDeviceGetMemoryInfo", 999, times=1)
    sink.polls(3)
    bench.clock.add(50)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(11)
    sink.wait_for(name(node), "True")


@pytest.mark.parametrize("function", ["nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEccErrors"])
def test_while_a_query_fails_a_fault_stays(bench, function):
    node, sink = struck(bench)
    node.calls.fail(function, 999)
    for _ in range(3):
        bench.clock.add(1000)
        sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")


def test_while_the_driver_wants_something_both_conditions_are_false(bench):
    node, sink = struck(bench)
    node.health.ask_for(0, RecoveryAction.GPU_RESET)
    sink.wait_for(name(node), "False", type_="RecoveryActionNone")
    for _ in range(3):
        bench.clock.add(1000)
        sink.polls(2)
    assert sink.is_(name(node), "False", "Xid48")
    assert sink.is_(name(node), "False", "RecoveryActionRequired", "RecoveryActionNone")
    node.health.ask_for(0, RecoveryAction.NONE)
    sink.polls(3)
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    sink.wait_for(name(node), "True", type_="RecoveryActionNone")


def test_without_the_field_only_a_reset_ends_a_fault(bench, told):
    node, sink = struck(bench, model="t4")
    bench.clock.add(10_000)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    node.health.count_ecc_errors(0, 2, corrected=True)
    sink.polls(3)
    node.reset(0)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    [evidence] = told()
    assert "volatile corrected ECC errors fell from 2 to 0" in evidence


def test_without_the_field_an_operator_ends_a_fault(bench):
    node = bench.node(gpus=1, model="t4")
    running = bench.ready(node)
    node.inject_xid(0, 48)
    running.sink.wait_for(name(node), "False")
    running.provider.clear(name(node), "NVMLReady")
    running.sink.wait_for(name(node), "True")


def test_a_reset_before_the_last_fault_proves_nothing(bench):
    node = bench.node(gpus=1, model="t4")
    sink = bench.ready(node).sink
    node.health.count_ecc_errors(0, 2, corrected=True)
    sink.polls(3)
    node.reset(0)
    sink.polls(3)
    node.inject_xid(0, 48)
    sink.wait_for(name(node), "False")
    for _ in range(3):
        bench.clock.add(1000)
        sink.polls(2)
    assert sink.is_(name(node), "False", "Xid48")


@pytest.mark.parametrize("model", ["h100", "t4"])
def test_a_lost_gpu_that_is_back_has_to_stay(bench, model, told):
    node = bench.node(gpus=1, model=model)
    sink = bench.ready(node).sink
    node.lose(0)
    sink.wait_for(name(node), "False", "GpuLost")
    sink.polls(3)
    node.restore(0)
    sink.wait(lambda: "prove itself" in sink.message(name(node)))
    sink.polls()
    assert sink.is_(name(node), "False", "GpuLost")
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    [evidence] = told()
    assert "is back" in evidence


def test_one_lost_answer_is_no_reset(bench):
    node, sink = struck(bench, model="t4")
    node.calls.fail("nvmlDeviceGetMemoryInfo", 15, times=1)
    sink.wait(lambda: "GpuLost" in sink.message(name(node)) + sink.status(name(node))[1])
    sink.polls(3)
    bench.clock.add(1000)
    sink.polls(3)
    assert sink.is_(name(node), "False")


def test_a_new_driver_version_is_a_reset(bench, told):
    node, sink = struck(bench, model="t4")
    node.reload_driver("600.1.2")
    sink.wait(lambda: "600.1.2" in sink.summary)
    sink.polls(3)
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    [evidence] = told()
    assert "became 600.1.2" in evidence


def unloaded(bench, number):
    """A node of an old driver whose GPU was struck, then the driver left for a while."""
    node, sink = struck(bench, model="t4")
    node.calls.fail("nvmlInit", number)
    node.reload_driver()
    sink.wait(lambda: f"NVML error {number}" in sink.summary)
    assert sink.is_(name(node), "False", "Xid48")
    node.calls.clear()
    sink.wait(lambda: "1 GPUs" in sink.summary)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48"), "it has to be well for the hold"
    return node, sink


@pytest.mark.parametrize("number", [9, 18])
def test_a_driver_that_was_not_there_in_between_is_a_reset(bench, told, number):
    node, sink = unloaded(bench, number)
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    [evidence] = told()
    assert "the driver was reloaded (before, initialising failed: " in evidence


@pytest.mark.parametrize("number", [4, 999])
def test_an_init_that_failed_otherwise_is_no_reset(bench, number):
    node, sink = unloaded(bench, number)
    bench.clock.add(1000)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")


def test_a_session_that_only_broke_is_no_reset(bench):
    node, sink = struck(bench, model="t4")
    node.reload_driver()
    sink.polls(4)
    bench.clock.add(1000)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")


def test_the_drivers_wish_may_grow(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    node.health.ask_for(0, RecoveryAction.GPU_RESET)
    sink.wait_for(name(node), "False", type_="RecoveryActionNone")
    node.health.ask_for(0, RecoveryAction.NODE_REBOOT)
    sink.wait(lambda: sink.status(name(node))[2] == "RESTART_BM")
    assert "reboot" in sink.message(name(node), "RecoveryActionNone")


def test_each_relapse_doubles_the_hold(bench):
    node, sink = struck(bench)
    bench.clock.add(61)
    sink.wait_for(name(node), "True")
    for hold in (120, 240):
        node.inject_xid(0, 48)
        sink.wait_for(name(node), "False")
        sink.polls()
        bench.clock.add(hold - 5)
        sink.polls(3)
        assert sink.is_(name(node), "False"), hold
        bench.clock.add(6)
        sink.wait_for(name(node), "True")
    bench.clock.add(3700)
    node.inject_xid(0, 48)
    sink.wait_for(name(node), "False")
    sink.polls()
    bench.clock.add(61)
    sink.wait_for(name(node), "True")


def relapsed(bench):
    """A node whose only GPU has recovered once and is faulty again, and its provider."""
    node = bench.node(gpus=1)
    running = bench.ready(node)
    node.inject_xid(0, 48)
    running.sink.wait_for(name(node), "False")
    running.sink.polls()
    bench.clock.add(61)
    running.sink.wait_for(name(node), "True")
    node.inject_xid(0, 48)
    running.sink.wait_for(name(node), "False")
    return node, running


@pytest.mark.parametrize(
    ("keeps", "hold"), [("", 60), ("state", 120), ("rubbish", 60), ("cleared", 60)]
)
def test_a_relapse_counts_after_a_restart_if_there_is_state(bench, tmp_path, keeps, hold, caplog):
    bench.state_dir = tmp_path / "state" if keeps else None
    node, first = relapsed(bench)
    file = tmp_path / "state" / "recoveries.json"
    if keeps == "cleared":
        first.provider.clear(name(node), "NVMLReady")
        first.sink.wait_for(name(node), "True")
        node.inject_xid(0, 48)
        first.sink.wait_for(name(node), "False")
    first.stop()
    assert file.exists() is bool(keeps)
    if keeps == "rubbish":
        file.write_text('{"gpu": [1]}', encoding="utf-8")
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.polls(3)
    assert ("earlier recoveries are forgotten" in caplog.text) is (keeps == "rubbish")
    bench.clock.add(hold - 5)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(6)
    sink.wait_for(name(node), "True")


def test_a_signals_relapse_counts_after_a_restart(bench, tmp_path):
    bench.state_dir = tmp_path / "state"
    node = bench.node(gpus=1)
    first = bench.ready(node)
    type_ = "NVLinkHealthy"
    first.sink.wait_for(name(node), "True", type_=type_)
    node.health.set_nvlink(0, 3, up=False)
    first.sink.wait_for(name(node), "False", type_=type_)
    node.health.set_nvlink(0, 3, up=True)
    first.sink.polls(3)
    bench.clock.add(61)
    first.sink.wait_for(name(node), "True", type_=type_)
    first.stop()
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.wait_for(name(node), "True", type_=type_)
    node.health.set_nvlink(0, 3, up=False)
    sink.wait_for(name(node), "False", type_=type_)
    node.health.set_nvlink(0, 3, up=True)
    sink.polls(3)
    bench.clock.add(115)
    sink.polls(3)
    assert sink.is_(name(node), "False", type_=type_)
    bench.clock.add(6)
    sink.wait_for(name(node), "True", type_=type_)


def test_an_old_recovery_is_no_reason_for_a_longer_hold(bench, tmp_path):
    bench.state_dir = tmp_path / "state"
    node, first = relapsed(bench)
    first.stop()
    bench.clock.add(3700)
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.polls(3)
    bench.clock.add(61)
    sink.wait_for(name(node), "True")


def test_state_that_cannot_be_written_is_said_and_done_without(bench, tmp_path, caplog):
    (tmp_path / "file").write_text("", encoding="utf-8")
    bench.state_dir = tmp_path / "file" / "state"
    relapsed(bench)
    assert "recoveries cannot be stored" in caplog.text


def test_after_a_restart_the_same_evidence_is_needed(bench):
    node = bench.node(gpus=1)
    first = bench.ready(node)
    node.inject_xid(0, 48)
    first.sink.wait_for(name(node), "False")
    first.stop()
    bench.clock.add(1000)
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(50)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")
    bench.clock.add(11)
    sink.wait_for(name(node), "True")


def test_a_gap_in_the_watch_starts_the_hold_again(bench):
    node, sink = struck(bench)
    bench.clock.add(50)
    sink.polls()
    node.kill_event_sets()
    sink.polls(3)
    bench.clock.add(50)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")


def test_without_watching_xids_only_a_reset_counts(bench):
    node = bench.node(gpus=1)
    first = bench.ready(node)
    node.inject_xid(0, 48)
    first.sink.wait_for(name(node), "False")
    first.stop()
    sink = first.sink.restarted()
    bench.start(node, sink, health_check=False)
    sink.polls(3)
    bench.clock.add(1000)
    sink.polls(3)
    assert sink.is_(name(node), "False", "Xid48")


def test_after_the_window_a_fatal_xid_is_a_story_of_its_own(bench):
    node, sink = struck(bench, 48)
    node.health.ask_for(0, RecoveryAction.GPU_RESET)
    bench.clock.add(61)
    node.inject_xid(0, 62)
    sink.wait_for(name(node), "False", "Xid62")
    assert sink.message(name(node)).endswith("Also seen: Xid48.")
    node.inject_xid(0, 48)
    sink.polls()
    assert sink.is_(name(node), "False", "Xid62")


def test_the_summary_counts_xids(bench):
    node, sink = struck(bench, 48)
    node.inject_xid(0, 63)
    node.inject_xid(0, 63)
    sink.wait(lambda: sink.summary.endswith("; XIDs 48 (1), 63 (2)"))
    counted = {tuple(v for _, v in s.labels): n for s, n in sink.tally.read().counts.items()}
    assert counted == {("48", name(node)): 1, ("63", name(node)): 2}


def test_a_replaced_board_is_retired_and_the_new_one_registered(bench):
    node = bench.node(gpus=2)
    sink = bench.ready(node).sink
    old = name(node)
    new = node.replace(0).lower()
    sink.wait_for(old, "False", "GpuReplaced")
    sink.wait_for(new, "True")
    assert new in sink.message(old)
    assert sink.status(old)[2] == ""
    assert sink.specs[new].pci_bus_id == sink.specs[old].pci_bus_id
    for _ in range(3):
        bench.clock.add(1000)
        sink.polls()
    assert sink.is_(old, "False", "GpuReplaced")


def test_a_board_replaced_while_nobody_looked_is_recognised(bench):
    node = bench.node(gpus=2)
    first = bench.ready(node)
    old = name(node)
    first.stop()
    new = node.replace(0).lower()
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.wait_for(old, "False", "GpuReplaced")
    sink.wait_for(new, "True")


def test_a_reset_that_moves_index_and_minor_is_no_new_gpu(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    moved = name(node)
    node.reset(0, index=2, minor=7)
    sink.wait(lambda: (sink.specs[moved].index, sink.specs[moved].minor) == (2, 7))
    sink.polls()
    assert len(sink.specs) == 3
    assert {sink.status(name(node, n))[0] for n in range(3)} == {"True"}


def test_a_mig_mode_change_is_seen_and_an_xid_of_no_instance_concerns_all(bench, caplog):
    caplog.set_level("INFO")
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    node.mig.set_mode(0, on=True)
    sink.wait(lambda: sink.specs[name(node)].mig_mode == "enabled")
    assert "MIG mode is enabled" in caplog.messages
    node.inject_xid(0, 48)
    sink.wait_for(name(node), "False")
    assert "concerns all MIG instances" in sink.message(name(node))
