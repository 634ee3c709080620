from __future__ import annotations

import threading
import time

import pytest

XID = 0x8
DOUBLE_BIT = 0x2


@pytest.fixture
def events(nvml):
    """A set that hears of XIDs on every GPU."""
    events = nvml.nvmlEventSetCreate()
    for index in range(nvml.nvmlDeviceGetCount()):
        nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(index), XID, events)
    return events


class Waiter(threading.Thread):
    """Waits in a thread of its own; `outcome` is the event or the error's number."""

    def __init__(self, nvml, events, millis=10_000):
        super().__init__(daemon=True)
        self._arguments = nvml, events, millis
        self.outcome = None
        self.finished_at = 0.0
        self.start()

    def run(self):
        nvml, events, millis = self._arguments
        try:
            self.outcome = nvml.nvmlEventSetWait_v2(events, millis)
        except nvml.NVMLError as error:
            self.outcome = error.value
        self.finished_at = time.perf_counter()

    def result(self):
        self.join(10)
        assert not self.is_alive()
        return self.outcome


def blocked(*waiters):
    """Gives the waiters the time to block. Nothing observable says that they have."""
    time.sleep(0.02)
    assert all(waiter.is_alive() for waiter in waiters)


def test_event_says_all_about_an_xid(node, nvml, events):
    node.inject_xid(3, 79)
    event = nvml.nvmlEventSetWait_v2(events, 0)
    assert nvml.nvmlDeviceGetUUID(event.device) == node.gpu(3).uuid
    assert (event.eventType, event.eventData) == (XID, 79)
    assert (event.gpuInstanceId, event.computeInstanceId) == (0xFFFFFFFF, 0xFFFFFFFF)


def test_event_can_name_a_mig_device(node, nvml, events):
    node.inject_xid(0, 43, gpu_instance=7, compute_instance=1)
    event = nvml.nvmlEventSetWait_v2(events, 0)
    assert (event.gpuInstanceId, event.computeInstanceId) == (7, 1)


def test_events_come_one_by_one_in_order(node, nvml, events):
    for xid in range(50):
        node.inject_xid(xid % 8, xid)
    got = [nvml.nvmlEventSetWait_v2(events, 0).eventData for _ in range(50)]
    assert got == list(range(50))


def test_no_event_is_a_timeout(nvml, events, error_of):
    begin = time.perf_counter()
    assert error_of(nvml.nvmlEventSetWait_v2, events, 50) == 10
    assert 0.05 <= time.perf_counter() - begin < 1
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10


def test_event_before_registration_is_never_delivered(node, nvml, error_of):
    node.inject_xid(0, 1)
    events = nvml.nvmlEventSetCreate()
    node.inject_xid(0, 2)
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(0), XID, events)
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10
    node.inject_xid(0, 3)
    assert nvml.nvmlEventSetWait_v2(events, 0).eventData == 3


def test_other_types_and_gpus_are_never_delivered(node, nvml, error_of):
    events = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(0), XID, events)
    node.inject_event(0, DOUBLE_BIT)
    node.inject_xid(1, 79)
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10


def test_unsupported_type_registers_nothing(node, nvml, error_of):
    events = nvml.nvmlEventSetCreate()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    assert error_of(nvml.nvmlDeviceRegisterEvents, handle, XID | 0x4000, events) == 3
    node.inject_xid(0, 79)
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10
    nvml.nvmlDeviceRegisterEvents(handle, XID, events)


def test_waiting_client_wakes_well_within_a_millisecond(node, nvml, events):
    latencies = []
    for _ in range(30):
        waiter = Waiter(nvml, events)
        blocked(waiter)
        begin = time.perf_counter()
        node.inject_xid(0, 79)
        waiter.result()
        latencies.append(waiter.finished_at - begin)
    # The median: a busy machine may delay single wake-ups.
    assert sorted(latencies)[15] < 0.001


def test_each_event_goes_to_one_waiter_of_a_set(node, nvml, events):
    waiters = [Waiter(nvml, events) for _ in range(4)]
    blocked(*waiters)
    for xid in range(4):
        node.inject_xid(0, xid)
    assert sorted(waiter.result().eventData for waiter in waiters) == [0, 1, 2, 3]


def test_each_set_gets_every_event(node, nvml, events):
    other = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(0), XID, other)
    node.inject_xid(0, 79)
    assert nvml.nvmlEventSetWait_v2(events, 0).eventData == 79
    assert nvml.nvmlEventSetWait_v2(other, 0).eventData == 79


def test_event_of_a_lost_gpu_still_arrives(node, nvml, events, error_of):
    node.lose(3)
    node.inject_xid(3, 79)
    event = nvml.nvmlEventSetWait_v2(events, 0)
    assert event.eventData == 79
    assert error_of(nvml.nvmlDeviceGetUUID, event.device) == 15


def test_waiting_client_gets_an_injected_error(node, nvml, events, error_of):
    waiter = Waiter(nvml, events)
    blocked(waiter)
    node.calls.fail("nvmlEventSetWait", 999, times=2)
    assert waiter.result() == 999
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 999
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10


def test_wait_can_end_early(node, nvml, events):
    waiter = Waiter(nvml, events)
    blocked(waiter)
    node.calls.fail("nvmlEventSetWait", 10, times=1)
    assert waiter.result() == 10


def test_registering_can_fail_and_leave_the_set_usable(node, nvml, events, error_of):
    node.calls.fail("nvmlDeviceRegisterEvents", 3, gpu=2)
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(3)]
    errors = [error_of(nvml.nvmlDeviceRegisterEvents, handle, XID, events) for handle in handles]
    assert errors == [0, 0, 3]
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10


def test_registering_can_break_the_set(node, nvml, events, error_of):
    node.calls.fail("nvmlDeviceRegisterEvents", 999, times=1)
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    assert error_of(nvml.nvmlDeviceRegisterEvents, handle, XID, events) == 999
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 2
    nvml.nvmlEventSetFree(events)


def test_killed_set_ends_its_waits(node, nvml, events):
    waiter = Waiter(nvml, events)
    blocked(waiter)
    node.kill_event_sets()
    assert waiter.result() == 2


def test_reset_can_kill_registrations(node, nvml, events, error_of):
    node.reset(0, kill_registrations=True)
    node.inject_xid(0, 1)
    node.inject_xid(1, 2)
    assert nvml.nvmlEventSetWait_v2(events, 0).eventData == 2
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 10
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(0), XID, events)
    node.inject_xid(0, 3)
    assert nvml.nvmlEventSetWait_v2(events, 0).eventData == 3


def test_freed_set_is_refused(nvml, events, error_of):
    nvml.nvmlEventSetFree(events)
    assert error_of(nvml.nvmlEventSetFree, events) == 2
    assert error_of(nvml.nvmlEventSetWait_v2, events, 0) == 2


def test_freeing_a_set_in_use_aborts(node, spawn):
    process = spawn(
        node,
        "import threading, time\n"
        "nvmlInit()\n"
        "events = nvmlEventSetCreate()\n"
        "threading.Thread(target=nvmlEventSetWait, args=(events, 60000), daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "nvmlEventSetFree(events)\n",
    )
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -6
    assert "nvmlEventSetFree of a set that 1 thread(s) wait on" in errors
