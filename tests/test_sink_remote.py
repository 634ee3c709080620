"""What only a sink elsewhere has to get right: servers that go, forget or come back."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from device_api_core.client.clientset import Clientset
from device_api_core.client.endpoint import Endpoint
from device_api_core.client.options import Options
from device_api_core.client.presence import Presence
from device_api_core.client.retry import NO_RETRY
from device_api_core.entries import SetCondition, SetStatus
from device_api_core.errors import (
    AlreadyExists,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    SinkClosed,
    UpdateAborted,
)
from device_api_core.plugins.mirror import Mirror
from device_api_core.plugins.remote import RemoteSink
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
FAN, PUMP = "FanHealthy", "PumpHealthy"
SECONDS = 20.0


@pytest.fixture
def node(device_api_node):
    return device_api_node(expect=["fan"])


class Elsewhere:
    """A sink, and the clock that it lives by."""

    def __init__(self, node, clock, mirror=None):
        endpoint = Endpoint(f"unix://{node.provider_socket}", Options(retry=NO_RETRY))
        self.clock = clock
        self.cleared = queue.Queue()
        self.mirror = mirror or Mirror()
        self.sink = RemoteSink(
            "fan",
            (FAN, PUMP),
            Clientset(endpoint, endpoint),
            interval_seconds=10.0,
            mirror=self.mirror,
            cleared=lambda gpu, type_: self.cleared.put((gpu, type_)),
            monotonic=clock.monotonic,
        )
        self.here = queue.Queue()
        self.presence = Presence(endpoint, self._changed)

    def _changed(self, here):
        self.sink.server_changed(here)
        self.here.put(here)

    def await_server(self):
        """Until the sink has dealt with the server's return."""
        while not self.here.get(timeout=SECONDS):
            pass

    def close(self):
        self.presence.close()
        self.sink.close("the test is over")


@pytest.fixture
def elsewhere(node, fake_clock):
    it = Elsewhere(node, fake_clock)
    it.await_server()
    yield it
    it.close()


def state(node):
    return {
        (gpu.name, c.type): (str(c.status), c.reason)
        for gpu in node.clients.v1alpha1.gpus.list(provider_id="fan").items
        for c in gpu.status.conditions
        if c.provider_id == "fan"
    }


def say(sink, gpu="gpu-0", fan=TRUE, pump=FALSE):
    sink.register(gpu, GpuSpec(uuid=f"GPU-{gpu}"))
    sink.set_condition(gpu, Condition(FAN, fan))
    sink.set_condition(gpu, Condition(PUMP, pump), recommended_action="RESTART_VM")


def restart(node, elsewhere):
    node.stop()
    while elsewhere.here.get(timeout=SECONDS):
        pass
    node.start()
    elsewhere.await_server()


def test_a_new_server_knows_everything_before_the_next_call(node, elsewhere):
    say(elsewhere.sink)
    elsewhere.sink.synced()
    before = state(node)
    restart(node, elsewhere)
    assert state(node) == before == {("gpu-0", FAN): ("True", ""), ("gpu-0", PUMP): ("False", "")}
    assert node.clients.v1alpha1.gpus.get("gpu-0").status.recommended_action == "RESTART_VM"
    [row] = [p for p in node.clients.admin.list_providers().providers if p.name == "fan"]
    assert (row.synced, row.lease_seconds) == (True, 30.0)


def test_a_provider_that_hangs_is_not_spoken_for(node, elsewhere):
    say(elsewhere.sink)
    elsewhere.clock.advance(31)
    restart(node, elsewhere)
    assert state(node) == {}
    # It is heard again, but what it last saw is too old; its fault is not.
    elsewhere.sink.alive()
    assert state(node) == {
        ("gpu-0", FAN): ("Unknown", "ProviderLost"),
        ("gpu-0", PUMP): ("False", ""),
    }
    elsewhere.sink.set_condition("gpu-0", Condition(FAN, TRUE))
    elsewhere.clock.advance(5)
    elsewhere.sink.alive()
    assert state(node)["gpu-0", FAN] == ("True", "")


def test_nothing_is_said_to_a_server_before_the_provider_says_it(node, elsewhere):
    assert "fan" not in [p.name for p in node.clients.admin.list_providers().providers]
    assert not elsewhere.sink.is_silent
    elsewhere.clock.advance(31)
    assert elsewhere.sink.is_silent


def test_a_call_waits_for_a_server(node, elsewhere):
    say(elsewhere.sink)
    node.stop()
    done = threading.Event()

    def call():
        elsewhere.sink.set_condition("gpu-0", Condition(FAN, FALSE))
        done.set()

    threading.Thread(target=call, daemon=True).start()
    assert not done.wait(0.5)
    assert not elsewhere.sink.is_silent
    node.start()
    assert done.wait(SECONDS)
    assert state(node)["gpu-0", FAN] == ("False", "")


def test_a_call_that_comes_too_fast_is_made_again(node, elsewhere):
    say(elsewhere.sink)
    node.stop()
    node.settings = replace(node.settings, max_writes_per_second=1)
    node.start()
    writes, greedy = node.clients.v1alpha1.providers, queue.Queue()

    def write(_):
        try:
            writes.register("gpu-1", provider_id="greedy")
        except LimitExceeded as error:
            greedy.put(error.reason)

    with ThreadPoolExecutor(16) as pool:
        for each in range(300):
            pool.submit(write, each)
        assert greedy.get(timeout=SECONDS) == "rate"
        elsewhere.sink.set_condition("gpu-0", Condition(FAN, FALSE))
    assert state(node)["gpu-0", FAN] == ("False", "")


@pytest.mark.parametrize("how", [lambda s: s.close("enough"), lambda s: s.wait_no_more()])
def test_a_call_that_waits_can_be_ended(node, elsewhere, how):
    node.stop()
    ended = queue.Queue()

    def call():
        try:
            elsewhere.sink.alive()
        except SinkClosed as error:
            ended.put(error.message)

    threading.Thread(target=call, daemon=True).start()
    with pytest.raises(queue.Empty):
        ended.get(timeout=0.3)
    how(elsewhere.sink)
    assert ended.get(timeout=SECONDS)


def test_a_closed_sink_takes_nothing(elsewhere):
    elsewhere.sink.close("the provider has ended")
    with pytest.raises(SinkClosed, match="the provider has ended"):
        elsewhere.sink.alive()


def test_a_forgotten_gpu_is_registered_again(node, elsewhere):
    say(elsewhere.sink)
    node.clients.admin.forget_gpu("gpu-0")
    elsewhere.sink.set_condition("gpu-0", Condition(FAN, FALSE))
    assert state(node) == {("gpu-0", FAN): ("False", ""), ("gpu-0", PUMP): ("False", "")}
    assert node.clients.v1alpha1.gpus.get("gpu-0").spec.uuid == "GPU-gpu-0"


def test_a_gpu_of_another_provider_is_not_registered_for_it(node, elsewhere):
    node.clients.v1alpha1.providers.register("theirs", provider_id="nvml")
    elsewhere.sink.set_condition("theirs", Condition(FAN, FALSE))
    restart(node, elsewhere)
    assert state(node) == {}
    with pytest.raises(NotFound):
        elsewhere.sink.set_condition("theirs", Condition(PUMP, FALSE))
    node.clients.v1alpha1.providers.register("theirs", provider_id="nvml")
    elsewhere.clock.advance(5)
    elsewhere.sink.alive()
    assert state(node) == {("theirs", FAN): ("False", "")}


def test_what_was_never_said_in_this_run_is_left_alone(node, fake_clock, elsewhere):
    say(elsewhere.sink, fan=FALSE)
    again = Elsewhere(node, fake_clock)
    assert {c.type for c in again.sink.known()["gpu-0"]} == {FAN, PUMP}
    again.sink.register("gpu-0", GpuSpec())
    again.sink.set_condition("gpu-0", Condition(FAN, TRUE))
    again.sink.fail("ProviderFailed", "it crashed")
    assert state(node) == {
        ("gpu-0", FAN): ("Unknown", "ProviderFailed"),
        ("gpu-0", PUMP): ("False", ""),
    }
    again.close()


def test_a_server_that_goes_during_an_update_has_aborted_it(node, elsewhere):
    say(elsewhere.sink)

    def update():
        with elsewhere.sink.update("gpu-0") as held:
            held.set_condition("gpu-0", Condition(FAN, FALSE))
            node.stop()

    with pytest.raises(UpdateAborted):
        update()
    node.start()
    elsewhere.sink.alive()
    assert state(node)["gpu-0", FAN] == ("Unknown", "UpdateAborted")


def test_what_an_operator_cleared_is_not_said_again(node, elsewhere):
    say(elsewhere.sink)
    node.clients.admin.clear_condition("gpu-0", PUMP)
    for _ in range(3):
        elsewhere.clock.advance(5)
        elsewhere.sink.alive()
        assert state(node)["gpu-0", PUMP] == ("Unknown", "ClearedByOperator")
    assert elsewhere.cleared.get(timeout=SECONDS) == ("gpu-0", PUMP)
    assert elsewhere.cleared.empty()
    assert not elsewhere.sink.operator_cleared("gpu-0", PUMP)
    elsewhere.sink.set_condition("gpu-0", Condition(PUMP, FALSE))
    node.clients.admin.clear_condition("gpu-0", PUMP)
    elsewhere.clock.advance(5)
    elsewhere.sink.alive()
    assert elsewhere.cleared.get(timeout=SECONDS) == ("gpu-0", PUMP)


def test_a_refused_change_is_not_said_again(node, elsewhere):
    say(elsewhere.sink)
    uuid = GpuSpec(uuid="GPU-other")
    for refused in (
        lambda: elsewhere.sink.register("gpu-0", uuid),
        lambda: elsewhere.sink.set_condition("gpu-9", Condition(FAN, TRUE)),
        lambda: elsewhere.sink.set_condition("gpu-0", Condition("Other", TRUE)),
    ):
        with pytest.raises((AlreadyExists, NotFound, InvalidArgument)):
            refused()
    before = state(node)
    restart(node, elsewhere)
    assert state(node) == before
    assert node.clients.v1alpha1.gpus.get("gpu-0").spec.uuid == "GPU-gpu-0"


# --- the mirror


def fan(status, reason=""):
    return Condition(FAN, status, reason, provider_id="fan")


def test_the_mirror_sends_a_whole_status_only_if_it_knows_the_whole():
    mirror = Mirror()
    mirror.register("g", GpuSpec(uuid="GPU-1"))
    mirror.register("g", GpuSpec(index=3))
    mirror.apply(SetCondition("g", fan(TRUE)))
    said = mirror.gpus["g"]
    assert said.spec == GpuSpec(uuid="GPU-1", index=3)
    assert list(said.changes("g")) == [SetCondition("g", fan(TRUE))]
    mirror.apply(SetStatus("g", (fan(FALSE),), "RESTART_VM"))
    mirror.apply(SetCondition("g", Condition(PUMP, TRUE)))
    [change] = mirror.gpus["g"].changes("g")
    assert change == SetStatus("g", (fan(FALSE), Condition(PUMP, TRUE)), "RESTART_VM")


def test_the_mirror_lapses_as_the_server_does():
    mirror = Mirror()
    mirror.apply(SetStatus("g", (fan(TRUE), Condition(PUMP, FALSE))))
    mirror.apply(SetStatus("h", (fan(TRUE),)))
    mirror.lapse("UpdateAborted", "why", ["g", "unknown"])
    assert mirror.gpus["g"].conditions[FAN].status is UNKNOWN
    assert mirror.gpus["g"].conditions[PUMP].status is FALSE
    assert mirror.gpus["h"].conditions[FAN].status is TRUE
    mirror.lapse("ProviderLost", "why")
    assert mirror.gpus["h"].conditions[FAN].reason == "ProviderLost"
    mirror.drop("h")
    assert "h" not in mirror
