"""What the conformant provider does when it is told to: the same calls in every home."""

from __future__ import annotations

import threading

from device_api_core.resources import Condition, ConditionStatus, GpuSpec

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
FAN, PUMP, FOREIGN = "FanHealthy", "conformant.example.com/PumpHealthy", "ForeignHealthy"
go_on = threading.Event()


def fan(status=TRUE, reason="", message=""):
    return Condition(FAN, status, reason, message)


def register(sink, gpu="gpu-0", **spec):
    return sink.register(gpu, GpuSpec(**spec))


def set_fan(sink, status=TRUE, gpu="gpu-0", action=None, **text):
    sink.set_condition(gpu, fan(status, **text), recommended_action=action)


def set_type(sink, type_, status="True", gpu="gpu-0", **more):
    sink.set_condition(gpu, Condition(type_, status, **more))


def set_status(sink, statuses, gpu="gpu-0", action=""):
    conditions = [Condition(type_, status) for type_, status in statuses]
    sink.set_status(gpu, conditions, recommended_action=action)


def withdraw(sink, gpu="gpu-0"):
    sink.withdraw(gpu)


def known(sink):
    return dict(sink.known())


def gpus(sink):
    return sorted(sink.gpus(), key=lambda gpu: gpu.name)


def synced(sink):
    sink.synced()


def alive(sink, summary=""):
    sink.alive(summary)


def count(sink, *args, **labels):
    sink.count(*args, **labels)


def count_many(sink, series):
    for number in range(series):
        sink.count("noise", number=number)
        sink.gauge("hum", number, number=number)


def gauge(sink, *args, **labels):
    sink.gauge(*args, **labels)


def held(sink, *gpus, status=FALSE, wait=False, error=None, also=None, early=None):
    """One update: hold, wait if asked to, then set the fan, or raise."""
    go_on.clear()
    with sink.update(*gpus) as update:
        if early is not None:
            early = globals()[early](sink)
        if wait:
            assert go_on.wait(20)
        if error is not None:
            raise RuntimeError(error)
        update.set_condition("gpu-0", fan(status, "Stopped"), recommended_action="RESTART_VM")
        if also is not None:
            update.set_status(also, [fan(status, "Stopped")])
    return early


def held_twice(sink):
    with sink.update(), sink.update():
        pass


def held_at_once_again(sink):
    with sink.update():
        threading.Event().wait(0.3)
    with sink.update():
        pass


def release(sink):
    go_on.set()
