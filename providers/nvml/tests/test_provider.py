"""What the daemon is told: enumeration, XIDs, lost and missing GPUs, restarts."""

from __future__ import annotations

import statistics
import time

import pytest
from device_api_fake_nvml.health import RecoveryAction

from device_api_core.resources import ConditionStatus


def names(node):
    return [gpu.uuid.lower() for gpu in node.gpus()]


def test_every_gpu_is_registered_with_its_facts(bench):
    node = bench.node(gpus=2, model="h100")
    sink = bench.ready(node).sink
    gpu = node.gpu(1)
    spec = sink.specs[gpu.uuid.lower()]
    assert len(sink.specs) == 2
    assert spec.uuid == gpu.uuid
    assert (spec.index, spec.minor) == (1, 1)
    assert spec.pci_bus_id == gpu.bus_id.lower()[-12:]
    assert spec.product_name == gpu.name
    assert spec.architecture == "hopper"
    assert spec.memory_bytes > 80e9
    assert spec.serial == gpu.serial
    assert spec.mig_mode == "disabled"
    assert [sink.status(n) for n in names(node)] == [("True", "Initialized", "")] * 2
    sink.wait(lambda: node.driver_version in sink.summary)
    assert str(node.library) in sink.summary


def test_a_board_without_mig_or_recovery_action_is_healthy(bench):
    node = bench.node(
        model="t4", gpus=1, without_symbols=["nvmlDeviceGetMigMode", "nvmlDeviceGetFieldValues"]
    )
    sink = bench.ready(node).sink
    [gpu] = names(node)
    assert sink.specs[gpu].mig_mode == ""
    assert sink.specs[gpu].architecture == "turing"
    assert sink.status(gpu) == ("True", "Initialized", "")


def test_a_node_without_gpus_is_synced_and_empty(bench):
    sink = bench.ready(bench.node(gpus=0)).sink
    assert sink.specs == {}
    sink.wait(lambda: "0 GPUs" in sink.summary)


def test_a_fatal_xid_reaches_the_sink_within_milliseconds(bench):
    node = bench.node(gpus=8)
    sink = bench.ready(node, poll_seconds=5.0).sink
    gpus = names(node)
    took = []
    for number, gpu in enumerate(gpus):
        began = time.monotonic()
        node.inject_xid(number, 79)
        sink.wait_for(gpu, "False")
        took.append(next(s.at for s in sink.said if (s.gpu, s.status) == (gpu, "False")) - began)
    assert sink.status(gpus[0]) == ("False", "Xid79", "RESTART_BM")
    assert "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS" in sink.message(gpus[0])
    assert "reboot" in sink.message(gpus[0])
    assert statistics.median(took) < 0.05
    assert max(took) < 1.0


def test_only_the_gpu_of_the_xid_is_marked(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    a, b, c = names(node)
    node.inject_xid(1, 48)
    sink.wait_for(b, "False", "Xid48")
    sink.polls()
    assert sink.status(b)[2] == "COMPONENT_RESET"
    assert [sink.status(n)[0] for n in (a, c)] == ["True", "True"]


def test_an_ignored_xid_says_nothing(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    for code in (13, 31, 43, 45, 68):
        node.inject_xid(0, code)
    sink.polls()
    assert [(s.status, s.reason) for s in sink.said] == [("True", "Initialized")]
    assert "XID 31" not in sink.message(gpu)


def test_an_informational_xid_is_a_warning_for_a_while(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node, notice_seconds=0.5).sink
    [gpu] = names(node)
    node.inject_xid(0, 63)
    sink.wait(lambda: "Warning: XID 63" in sink.message(gpu))
    assert sink.status(gpu) == ("True", "Initialized", "")
    sink.wait(lambda: "XID 63" not in sink.message(gpu))
    assert sink.status(gpu) == ("True", "Initialized", "")


@pytest.mark.parametrize("code", [999, 3, 180])
def test_an_unknown_xid_is_a_fault(bench, code):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    node.inject_xid(0, code)
    sink.wait_for(names(node)[0], "False", f"Xid{code}")
    assert sink.status(names(node)[0])[2] == "CONTACT_SUPPORT"


def test_settings_change_the_policy(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(
        node, ignored_xids=(79,), informational_xids=(48,), fatal_xids=(13, 109)
    ).sink
    a, b, c = names(node)
    node.inject_xid(0, 79)
    node.inject_xid(0, 48)
    node.inject_xid(1, 13)
    node.inject_xid(2, 109)
    sink.wait_for(b, "False", "Xid13")
    sink.wait_for(c, "False", "Xid109")
    sink.wait(lambda: "XID 48" in sink.message(a))
    assert sink.status(a)[0] == "True"
    assert "XID 79" not in sink.message(a)
    assert sink.status(b)[2] == "CONTACT_SUPPORT"
    assert sink.status(c)[2] == "COMPONENT_RESET"


def test_a_burst_keeps_the_first_reason_and_lists_the_rest(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    for code in (48, 63, 45, 62, 48):
        node.inject_xid(0, code)
    sink.wait(lambda: sink.is_(gpu, "False") and sink.message(gpu).endswith("seen: Xid63, Xid62."))
    assert sink.status(gpu) == ("False", "Xid48", "COMPONENT_RESET")


def test_a_stronger_fault_takes_over_the_reason(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.inject_xid(0, 48)
    node.inject_xid(0, 79)
    sink.wait_for(gpu, "False", "Xid79")
    assert sink.status(gpu)[2] == "RESTART_BM"
    assert sink.message(gpu).endswith("Also seen: Xid48.")


def test_an_xid_names_its_mig_instance(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    node.inject_xid(0, 95, gpu_instance=3, compute_instance=0)
    sink.wait_for(names(node)[0], "False", "Xid95")
    assert "MIG instance 3, compute 0" in sink.message(names(node)[0])


def test_benign_events_and_good_answers_never_clear_a_fault(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.inject_xid(0, 48)
    sink.wait_for(gpu, "False")
    for code in (13, 63, 154, 162):
        node.inject_xid(0, code)
    sink.polls(3)
    assert sink.status(gpu)[:2] == ("False", "Xid48")


def test_an_operator_clears_a_fault_and_the_gpu_proves_itself(bench):
    node = bench.node(gpus=1)
    running = bench.ready(node)
    sink = running.sink
    [gpu] = names(node)
    node.inject_xid(0, 48)
    sink.wait_for(gpu, "False")
    running.provider.clear(gpu, "NVMLReady")
    sink.wait_for(gpu, "True")
    assert [s.reason for s in sink.said] == ["Initialized", "Xid48", "Cleared", "Initialized"]
    assert sink.status(gpu)[2] == ""


def test_clearing_does_not_make_a_lost_gpu_healthy(bench):
    node = bench.node(gpus=1)
    running = bench.ready(node)
    sink = running.sink
    [gpu] = names(node)
    node.lose(0)
    sink.wait_for(gpu, "False", "GpuLost")
    running.provider.clear(gpu, "NVMLReady")
    sink.wait(lambda: [s.reason for s in sink.said].count("GpuLost") >= 2)
    sink.polls()
    assert sink.status(gpu)[:2] == ("False", "GpuLost")


def test_one_lost_gpu_marks_only_itself(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    a, b, c = names(node)
    node.lose(1)
    sink.wait_for(b, "False", "GpuLost")
    sink.polls()
    assert sink.status(b)[2] == "RESTART_BM"
    assert [sink.status(n)[0] for n in (a, c)] == ["True", "True"]
    node.restore(1)
    sink.wait(lambda: "answers again" in sink.message(b))
    assert sink.status(b)[:2] == ("False", "GpuLost")


def test_a_gpu_that_fails_with_unknown_is_unknown_and_heals(bench):
    node = bench.node()
    sink = bench.ready(node).sink
    first, second = names(node)
    node.lose(0, error=999)
    sink.wait_for(first, "Unknown", "NvmlError")
    assert sink.status(second)[0] == "True"
    node.restore(0)
    sink.wait_for(first, "True")


def test_a_gpu_that_needs_a_reset_says_so(bench):
    node = bench.node()
    sink = bench.ready(node).sink
    node.lose(0, error=16)
    sink.wait_for(names(node)[0], "False", "ResetRequired")
    assert sink.status(names(node)[0])[2] == "COMPONENT_RESET"


def test_a_gpu_lost_by_the_wait_is_found_by_asking_all(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node, poll_seconds=30.0).sink
    a, b, c = names(node)
    node.lose(1)
    node.calls.fail("nvmlEventSetWait", 15, times=1)
    sink.wait_for(b, "False", "GpuLost")
    sink.wait(lambda: [set(gpus) for gpus in sink.holds] == [{a, b, c}])
    assert [sink.status(n)[0] for n in (a, c)] == ["True", "True"]
    # The others are still watched.
    sink.keeps(lambda: node.inject_xid(2, 48), lambda: sink.is_(c, "False", "Xid48"))


def test_a_refused_hold_is_done_without(bench):
    node = bench.node(gpus=2)
    sink = bench.ready(node, poll_seconds=30.0).sink
    sink.refuse_holds = True
    node.lose(1)
    node.calls.fail("nvmlEventSetWait", 15, times=1)
    sink.wait_for(names(node)[1], "False", "GpuLost")
    assert sink.holds == []


def test_a_gpu_gone_from_the_enumeration_is_not_found_and_stays_listed(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    a, b, c = names(node)
    node.remove(1)
    sink.wait_for(b, "False", "GpuNotFound")
    sink.wait(lambda: sink.specs[c].index == 1)
    assert b in sink.specs
    assert [sink.status(n)[0] for n in (a, c)] == ["True", "True"]
    node.add(1)
    sink.wait(lambda: "answers again" in sink.message(b))
    assert sink.status(b)[:2] == ("False", "GpuNotFound")
    # It is watched again, as are those whose index moved.
    node.inject_xid(1, 79)
    sink.wait(lambda: "Xid79" in sink.message(b))
    node.inject_xid(2, 79)
    sink.wait_for(c, "False", "Xid79")


def test_what_the_driver_wants_is_a_fault(bench):
    node = bench.node(gpus=2)
    sink = bench.ready(node).sink
    first, second = names(node)
    node.health.ask_for(1, RecoveryAction.NODE_REBOOT)
    sink.wait_for(second, "False", "RecoveryActionRequired", type_="RecoveryActionNone")
    assert sink.status(second) == ("True", "Initialized", "RESTART_BM")
    assert sink.status(first) == ("True", "Initialized", "")


def test_the_drivers_stronger_wish_is_recommended_with_the_xids_reason(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.inject_xid(0, 48)
    sink.wait_for(gpu, "False")
    node.health.ask_for(0, RecoveryAction.NODE_REBOOT)
    sink.wait(lambda: sink.status(gpu) == ("False", "Xid48", "RESTART_BM"))


def test_xid_154_asks_the_driver_at_once(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node, poll_seconds=30.0).sink
    node.health.ask_for(0, RecoveryAction.GPU_RESET)
    node.inject_xid(0, 154)
    sink.wait_for(names(node)[0], "False", type_="RecoveryActionNone")


def test_faults_survive_a_restart_of_the_provider(bench):
    node = bench.node(gpus=3)
    first = bench.ready(node)
    a, b, c = names(node)
    node.inject_xid(0, 48)
    node.inject_xid(0, 62)
    node.remove(1)
    first.sink.wait(lambda: first.sink.is_(a, "False") and "Xid62" in first.sink.message(a))
    first.sink.wait_for(b, "False", "GpuNotFound")
    first.stop()
    before = first.sink.status(a), first.sink.message(a)
    node.add(1)

    sink = first.sink.restarted()
    assert sink.known()[c][0].status is ConditionStatus.UNKNOWN
    bench.start(node, sink)
    sink.wait_for(c, "True")
    sink.polls()
    assert (sink.status(a), sink.message(a)) == before
    assert sink.status(b)[:2] == ("False", "GpuNotFound")
    node.inject_xid(0, 95)
    sink.wait(lambda: "Also seen: Xid62, Xid95." in sink.message(a))


def test_a_gpu_lost_across_a_restart_is_recognised(bench):
    node = bench.node(gpus=3)
    first = bench.ready(node)
    first.stop()
    node.lose(1)
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.wait_for(names(node)[1], "False", "GpuLost")
    sink.wait_for(names(node)[0], "True")


def test_an_unregistered_gpu_that_is_there_comes_back(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    sink.forget(gpu)
    sink.wait_for(gpu, "True")
    assert gpu in sink.specs


def test_an_unregistered_gpu_that_is_gone_stays_gone(bench):
    node = bench.node(gpus=2)
    sink = bench.ready(node).sink
    node.remove(1)
    gone = names(node)[1]
    sink.wait_for(gone, "False")
    sink.forget(gone)
    sink.polls(3)
    assert gone not in sink.specs


def test_without_health_check_xids_are_not_watched(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node, health_check=False).sink
    [gpu] = names(node)
    assert sink.status(gpu)[0] == "True"
    assert "not watched" in sink.message(gpu)
    node.inject_xid(0, 79)
    sink.polls(3)
    assert sink.status(gpu)[0] == "True"


def test_a_closed_sink_ends_the_run(bench):
    running = bench.ready(bench.node(gpus=1))
    running.sink.close()
    deadline = time.monotonic() + 5
    while running.alive:
        assert time.monotonic() < deadline
        running.join(0.1)


def test_a_gpu_that_this_process_may_not_open_is_not_missing(bench):
    node = bench.node(gpus=3)
    node.calls.fail("nvmlDeviceGetHandleByIndex", 4, gpu=0)
    sink = bench.ready(node).sink
    a, b, c = names(node)
    assert set(sink.specs) == {b, c}
    node.calls.fail("nvmlDeviceGetHandleByIndex", 4, gpu=2)
    sink.wait_for(c, "Unknown", "NvmlError")
    assert sink.status(b)[0] == "True"
    assert "no answer" not in sink.summary
    node.calls.clear()
    sink.wait_for(a, "True")
    sink.wait_for(c, "True")


def test_a_storm_of_events_is_bounded_and_repeats_are_silent(bench, caplog):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    for _ in range(20):
        for code in (8, 11, 25, 32, 37, 38, 39, 40, 41):
            node.inject_xid(0, code)
    node.inject_xid(0, 48)
    sink.wait_for(gpu, "False", "Xid48")
    assert max(len(s.message) for s in sink.said) < 1_000
    assert sink.message(gpu).startswith("XID 48")
