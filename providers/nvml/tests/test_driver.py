"""A driver that is missing, late, mismatching, reloaded, wedged; an event set that fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest


def names(node):
    return [gpu.uuid.lower() for gpu in node.gpus()]


MISSING = """
import sys, pathlib
sys.path.insert(0, {tests!r})
import conftest

bench = conftest.Bench(pathlib.Path({directory!r}))
sink = bench.start(pathlib.Path({directory!r}) / "node").sink
sink.wait(lambda: sink.summary.startswith("driver not loaded: dlopen"))
assert not sink.is_synced
node = bench.node()
sink.wait(lambda: sink.is_synced)
assert [sink.status(gpu.uuid.lower())[0] for gpu in node.gpus()] == ["True", "True"]
bench.close()
"""


def test_a_missing_driver_is_awaited(tmp_path):
    # In a process of its own: in this one the linker knows a library of that name already.
    script = MISSING.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=30)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (9, "DriverNotLoaded"),
        (18, "DriverVersionMismatch"),
        (4, "DriverNotPermitted"),
        (999, "NvmlInitFailed"),
    ],
)
def test_a_failing_init_makes_known_gpus_unknown_but_faults_stay(bench, number, reason):
    node = bench.node()
    first = bench.ready(node)
    well, ill = names(node)
    node.inject_xid(1, 79)
    first.sink.wait_for(ill, "False")
    first.stop()
    node.calls.fail("nvmlInit", number)
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.wait_for(well, "Unknown", reason)
    assert sink.status(ill) == ("False", "Xid79", "RESTART_BM")
    sink.wait(lambda: f"NVML error {number}" in sink.summary)
    assert not sink.is_synced
    node.calls.clear()
    sink.wait(lambda: sink.is_synced)
    assert sink.status(well)[0] == "True"
    assert sink.status(ill)[:2] == ("False", "Xid79")


def test_a_reloaded_driver_is_used_and_faults_stay(bench):
    node = bench.node()
    sink = bench.ready(node).sink
    ill, well = names(node)
    node.inject_xid(0, 48)
    sink.wait_for(ill, "False")
    node.reload_driver("600.1.2")
    sink.wait(lambda: "600.1.2" in sink.summary)
    sink.wait_for(well, "True")
    assert sink.status(ill)[:2] == ("False", "Xid48")
    # Events are registered again.
    node.inject_xid(1, 79)
    sink.wait_for(well, "False", "Xid79")


def test_a_driver_that_goes_and_comes_back(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.calls.fail(None, 9)
    sink.wait_for(gpu, "Unknown", "DriverNotLoaded")
    node.calls.clear()
    sink.wait_for(gpu, "True")


def test_a_hanging_gpu_is_named_and_the_others_stay_watched(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    a, b, c = names(node)
    node.calls.hang(None, gpu=1)
    sink.wait_for(b, "Unknown", "NvmlUnresponsive")
    threads = sum(t.name.startswith("nvml GPU 1") for t in threading.enumerate())
    assert threads == 1
    sink.polls(3)
    assert sum(t.name.startswith("nvml GPU 1") for t in threading.enumerate()) == 1
    node.inject_xid(2, 79)
    sink.wait_for(c, "False", "Xid79")
    assert sink.status(a)[0] == "True"
    node.calls.unhang()
    sink.wait_for(b, "True")


def test_a_gpu_that_hangs_from_the_start_does_not_hide_the_others(bench):
    node = bench.node(gpus=3)
    node.calls.hang("nvmlDeviceGetHandleByIndex", gpu=1)
    running = bench.start(node)
    sink = running.sink
    a, b, c = names(node)
    sink.wait(lambda: sink.is_synced)
    assert [sink.status(n)[0] for n in (a, c)] == ["True", "True"]
    sink.wait(lambda: "index 1" in sink.summary)
    node.inject_xid(2, 79)
    sink.wait_for(c, "False", "Xid79")
    node.calls.unhang()
    sink.wait_for(b, "True")
    sink.wait(lambda: "index 1" not in sink.summary)


def test_a_known_gpu_that_hangs_from_the_start_is_unknown(bench):
    node = bench.node(gpus=2)
    first = bench.ready(node)
    first.stop()
    node.calls.hang(None, gpu=1)
    sink = first.sink.restarted()
    bench.start(node, sink)
    sink.wait_for(names(node)[1], "Unknown", "NvmlUnresponsive")
    sink.wait_for(names(node)[0], "True")


def test_a_hang_while_registering_costs_only_that_gpu(bench):
    node = bench.node(gpus=3)
    node.calls.hang("nvmlDeviceRegisterEvents", gpu=1)
    sink = bench.start(node).sink
    a, b, c = names(node)
    sink.wait_for(b, "Unknown", "NvmlUnresponsive")
    sink.wait_for(a, "True")
    sink.wait_for(c, "True")
    node.inject_xid(2, 79)
    sink.wait_for(c, "False", "Xid79")
    node.calls.unhang()
    sink.wait_for(b, "True")


def test_a_wedged_driver_is_unknown_for_all_and_heals(bench):
    node = bench.node()
    sink = bench.ready(node).sink
    node.calls.hang()
    for gpu in names(node):
        sink.wait_for(gpu, "Unknown", "NvmlUnresponsive")
    node.calls.unhang()
    for gpu in names(node):
        sink.wait_for(gpu, "True")


def test_stopping_does_not_wait_for_a_stuck_call(bench):
    node = bench.node(gpus=2)
    running = bench.ready(node)
    node.calls.hang()
    running.sink.wait_for(names(node)[0], "Unknown", "NvmlUnresponsive")
    assert running.stop() < 3.0


def test_a_stuck_init_does_not_stop_the_signs_of_life(bench):
    node = bench.node(gpus=1)
    node.calls.hang("nvmlInit")
    running = bench.start(node)
    sink = running.sink
    sink.wait(lambda: "does not answer" in sink.summary)
    assert running.stop() < 1.5
    node.calls.unhang()


def test_a_late_init_is_used(bench):
    node = bench.node(gpus=1)
    node.calls.hang("nvmlInit")
    sink = bench.start(node).sink
    sink.wait(lambda: "does not answer" in sink.summary)
    node.calls.unhang()
    sink.wait_for(names(node)[0], "True")


def test_a_dead_event_set_is_replaced(bench):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.kill_event_sets()
    sink.keeps(lambda: node.inject_xid(0, 79), lambda: sink.is_(gpu, "False", "Xid79"))


def test_wait_errors_do_not_spin_and_end_in_doubt(bench, caplog):
    node = bench.node(gpus=1)
    sink = bench.ready(node).sink
    [gpu] = names(node)
    node.calls.fail("nvmlEventSetWait", 999)
    sink.wait_for(gpu, "Unknown", "XidWatchFailed")
    node.calls.clear()
    sink.wait_for(gpu, "True")
    assert [r.message for r in caplog.records if "event watch failed" in r.message][1:] == []
    node.inject_xid(0, 79)
    sink.wait_for(gpu, "False", "Xid79")


def test_a_register_error_that_kills_the_set_is_tried_again(bench):
    node = bench.node(gpus=1)
    node.calls.fail("nvmlDeviceRegisterEvents", 999, times=2)
    sink = bench.start(node).sink
    sink.wait_for(names(node)[0], "True")
    node.inject_xid(0, 79)
    sink.wait_for(names(node)[0], "False", "Xid79")


def test_a_gpu_without_events_is_healthy_and_says_that_it_is_unwatched(bench):
    node = bench.node(gpus=2)
    node.calls.fail("nvmlDeviceGetSupportedEventTypes", 3, gpu=0)
    sink = bench.ready(node).sink
    first, second = names(node)
    assert sink.status(first)[0] == "True"
    assert "no XID events" in sink.message(first)
    assert "watched" in sink.message(second)


def test_a_driver_that_offers_no_events_at_all(bench):
    node = bench.node(gpus=1, without_symbols=["nvmlDeviceRegisterEvents"])
    sink = bench.ready(node).sink
    assert sink.status(names(node)[0])[0] == "True"
