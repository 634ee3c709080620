"""Providers that crash, fall silent, hang or come back, in a daemon whose clocks are short."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from inside import AsyncApi, Puppet, plugin, until

from device_api_core._proto import admin_pb2
from device_api_core.daemon import Tuning
from device_api_core.errors import InvalidArgument, LimitExceeded, NotFound, SinkClosed
from device_api_core.plugins import Sink
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

pytestmark = pytest.mark.once("it is about plugins; test_sink_conformance.py has their calls")

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
TUNING = Tuning(first_pause_seconds=0.05)


def report(status: ConditionStatus = TRUE) -> Callable[[Any], None]:
    def act(sink: Any) -> None:
        for name in ("good", "bad"):
            sink.register(name, GpuSpec())
        sink.set_condition("good", Condition("PuppetHealthy", TRUE))
        sink.set_condition("bad", Condition("PuppetHealthy", status, "Seen", "by the puppet"))
        sink.synced()

    return act


async def row(api: AsyncApi, name: str = "puppet") -> admin_pb2.Provider:
    listed = await api.admin.ListProviders(admin_pb2.ListProvidersRequest(), timeout=10)
    return next(p for p in listed.providers if p.name == name)


async def conditions(api: AsyncApi, name: str) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in (await api.get(name)).status.conditions}


def sample(running: Any, name: str, **labels: str) -> float:
    value = running.registry.get_sample_value(f"device_api_server_{name}", labels)
    return value or 0.0


@pytest.mark.parametrize(
    "crash", [RuntimeError("broken"), SystemExit(3), KeyboardInterrupt(), None], ids=repr
)
async def test_a_crash_makes_true_unknown_and_keeps_false(
    run_daemon: Callable[..., Any], crash: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    api = running.api()
    first = await puppet.started()
    await first.do(report(FALSE))
    fault = await api.get("bad")
    watch = api.watch(str((await api.list()).metadata.resource_version))
    first.end(crash)
    event = await watch.read()
    # One event per GPU that changes, and the fault stays to the letter.
    assert event.object.metadata.name == "good"
    assert (await conditions(api, "good"))["PuppetHealthy"] == ("Unknown", "ProviderFailed")
    assert await api.get("bad") == fault
    again = await puppet.started()
    known = await again.do(lambda sink: sink.known())
    assert {n: [(c.status, c.reason) for c in cs] for n, cs in known.items()} == {
        "good": [(UNKNOWN, "ProviderFailed")],
        "bad": [(FALSE, "Seen")],
    }
    assert (await row(api)).restarts == 1
    assert sample(running, "provider_restarts_total", provider_id="puppet") == 1
    await again.do(report(FALSE))
    assert (await row(api)).state == "running"
    assert (await conditions(api, "good"))["PuppetHealthy"][0] == "True"
    assert await api.get("bad") == fault
    states = [r.getMessage() for r in caplog.records if "provider puppet is " in r.getMessage()]
    assert [s.split(" is ")[1].split(":")[0] for s in states] == ["running", "failed", "running"]
    watch.cancel()


async def test_restarts_pause_longer_and_longer(run_daemon: Callable[..., Any]) -> None:
    puppet = Puppet()
    await run_daemon(plugin(puppet), tuning=TUNING)
    times = []
    for _ in range(5):
        start = await puppet.started()
        times.append(time.monotonic())
        start.end(RuntimeError("again"))
    pauses = [b - a for a, b in zip(times, times[1:], strict=False)]
    for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.4), strict=True):
        # A busy machine starts it later, but not by the next pauses.
        assert least <= pause < least + 2


async def test_silence_makes_true_unknown_and_a_new_run_heals_it(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet(interval_seconds=0.3)
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    api = running.api()
    first = await puppet.started()
    await first.do(report(FALSE))
    fault = await api.get("bad")
    puppet.interval_seconds = 10.0  # the next run is not to be lost
    blocked = threading.Event()
    stuck = first.order(lambda sink: (blocked.wait(), sink.set_condition("good", None)))
    await until(lambda: sample(running, "provider_heartbeat_timeout_total", provider_id="puppet"))
    assert (await conditions(api, "good"))["PuppetHealthy"] == ("Unknown", "ProviderLost")
    assert await api.get("bad") == fault
    again = await puppet.started()
    await again.do(report(FALSE))
    assert (await conditions(api, "good"))["PuppetHealthy"][0] == "True"
    blocked.set()
    # What comes back from the hang finds its sink closed and can say nothing any more.
    with pytest.raises((SinkClosed, AttributeError)):
        await asyncio.wrap_future(stuck)
    assert (await conditions(api, "good"))["PuppetHealthy"][0] == "True"


async def test_signs_of_life_hold_the_lease_without_a_change(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet(interval_seconds=0.5)
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(report())
    ends = time.monotonic() + 2 * 1.5  # two leases
    while time.monotonic() < ends:
        await start.do(lambda sink: sink.alive("still here"))
        await asyncio.sleep(0.1)
    shown = await row(running.api())
    assert (shown.state, shown.summary) == ("running", "still here")
    assert not sample(running, "provider_heartbeat_timeout_total", provider_id="puppet")


class Hanging(Puppet):
    """Hangs in each run until it is released."""

    def __init__(self) -> None:
        super().__init__(interval_seconds=0.02)
        self.release = threading.Event()
        self.hung = 0

    def run(self, sink: Sink, stop: threading.Event) -> None:
        if self.release.is_set():
            super().run(sink, stop)
        else:
            self.hung += 1
            self.release.wait()


async def test_only_a_few_hanging_threads_may_pile_up(run_daemon: Callable[..., Any]) -> None:
    puppet = Hanging()
    running = await run_daemon(plugin(puppet), tuning=Tuning(first_pause_seconds=0.01))
    try:
        await until(lambda: sample(running, "provider_restarts_total", provider_id="puppet") == 3)
        await asyncio.sleep(0.5)  # time in which a fifth one would start
        assert puppet.hung == 4
        assert (await row(running.api())).state == "silent"
    finally:
        puppet.interval_seconds = 10.0  # the next run is not to be lost
        puppet.release.set()
    start = await puppet.started()
    await start.do(report())
    assert (await row(running.api())).state == "running"


async def test_a_hook_that_fails_at_a_restart_is_one_more_failed_start(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet()
    failures: list[BaseException] = []

    def hook() -> Puppet:
        if failures:
            raise failures.pop(0)
        return puppet

    running = await run_daemon(plugin(hook), tuning=TUNING)
    start = await puppet.started()
    await start.do(report())
    failures += [RuntimeError("no device"), SystemExit("enough")]
    start.end(RuntimeError("crash"))
    again = await puppet.started()
    await again.do(report())
    shown = await row(running.api())
    assert (shown.state, shown.restarts) == ("running", 3)


async def test_clear_reaches_the_running_provider(run_daemon: Callable[..., Any]) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    api = running.api()
    start = await puppet.started()
    await start.do(report(FALSE))
    request = admin_pb2.ClearConditionRequest(gpu_name="bad", type="PuppetHealthy")
    await api.admin.ClearCondition(request, timeout=10)
    assert await asyncio.to_thread(puppet.cleared.get, timeout=5) == ("bad", "PuppetHealthy")
    assert (await conditions(api, "bad"))["PuppetHealthy"] == ("Unknown", "ClearedByOperator")
    await start.do(report(TRUE))
    assert (await conditions(api, "bad"))["PuppetHealthy"][0] == "True"


async def test_a_provider_whose_clear_fails_goes_on(
    run_daemon: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    puppet = Puppet()

    def clear(gpu: str, type_: str) -> None:
        raise RuntimeError("cannot")

    vars(puppet)["clear"] = clear
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(report(FALSE))
    request = admin_pb2.ClearConditionRequest(gpu_name="bad", type="PuppetHealthy")
    await running.api().admin.ClearCondition(request, timeout=10)
    await until(lambda: "clear failed" in caplog.text)
    await start.do(lambda sink: sink.alive())


async def test_the_sink_refuses_what_a_caller_would_be_refused(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet(types=("PuppetHealthy", "example.com/*"))
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    api = running.api()
    start = await puppet.started()
    await start.do(report())
    await api.set("good", "Fan", "True", "remote")
    before = await api.list()

    async def refused(error: type[Exception], act: Callable[[Any], object]) -> None:
        with pytest.raises(error):
            await start.do(act)
        assert await api.list() == before

    healthy = Condition("PuppetHealthy", TRUE)
    await refused(InvalidArgument, lambda s: s.register("", GpuSpec()))
    await refused(InvalidArgument, lambda s: s.register("x", GpuSpec(index=-1)))
    await refused(InvalidArgument, lambda s: s.set_condition("g pu", healthy))
    await refused(NotFound, lambda s: s.set_condition("absent", healthy))
    await refused(InvalidArgument, lambda s: s.set_condition("good", Condition("Fan", TRUE)))
    await refused(
        InvalidArgument, lambda s: s.set_condition("good", Condition("PuppetHealthy", "Maybe"))
    )
    await refused(InvalidArgument, lambda s: s.set_status("good", [healthy, healthy]))
    await refused(
        InvalidArgument, lambda s: s.set_condition("good", healthy, recommended_action="a" * 1_025)
    )
    many = [Condition(f"example.com/T{i}", TRUE) for i in range(64)]
    await refused(LimitExceeded, lambda s: s.set_status("good", many))
    await start.do(lambda s: s.set_condition("good", Condition("example.com/Any", TRUE)))


async def test_another_owners_type_is_a_conflict_for_a_plugin_too(
    run_daemon: Callable[..., Any],
) -> None:
    left, right = Puppet("left", ("Left",)), Puppet("right", ("Right",))
    running = await run_daemon(plugin(left), plugin(right), tuning=TUNING)
    runs = [await left.started(), await right.started()]
    await runs[0].do(lambda s: s.register("good", GpuSpec()))
    with pytest.raises(InvalidArgument):
        await runs[1].do(lambda s: s.set_condition("good", Condition("Left", FALSE)))
    # Both may have an opinion of Ready.
    await runs[0].do(lambda s: s.set_condition("good", Condition("Ready", FALSE, "No")))
    await runs[1].do(lambda s: s.set_condition("good", Condition("Ready", TRUE, "Yes")))
    assert (await row(running.api(), "left")).gpus == 1
    await runs[0].do(lambda s: s.synced())
    await runs[1].do(lambda s: s.synced())
    assert (await conditions(running.api(), "good"))["Ready"] == ("False", "No")


async def test_withdrawing_keeps_a_fault(run_daemon: Callable[..., Any]) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(report(FALSE))
    await start.do(lambda s: (s.withdraw("good"), s.withdraw("bad")))
    assert [g.metadata.name for g in (await running.api().list()).items] == ["bad"]


async def test_initial_state_is_not_served_before_every_plugin_has_synced(
    run_daemon: Callable[..., Any],
) -> None:
    puppet, other = Puppet(), Puppet("other", ("Other",))
    running = await run_daemon(plugin(puppet), plugin(other), tuning=TUNING)
    first, second = await puppet.started(), await other.started()
    await first.do(report())
    consumer = running.api("consumer")
    with pytest.raises(Exception, match="waiting for provider other to report once"):
        await consumer.list()
    await second.do(lambda s: s.synced())
    assert len((await consumer.list()).items) == 2


async def test_the_end_stops_providers_in_good_order(run_daemon: Callable[..., Any]) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(report(FALSE))
    before = await running.api().list()
    await running.stop()
    assert start.stop.is_set()
    with pytest.raises(SinkClosed):
        start.sink.alive()
    # Stopping is neither withdrawal nor a loss.
    assert running.daemon.cache.version == int(before.metadata.resource_version)


async def test_a_call_that_waits_is_released_when_the_sink_closes(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING, shutdown_timeout=0.2)
    start = await puppet.started()
    await start.do(report())
    inside, leave = threading.Event(), threading.Event()

    def hang(sink: Any) -> None:
        with sink.update("good"):
            inside.set()
            leave.wait()

    done = start.order(hang)
    assert await asyncio.to_thread(inside.wait, 5)
    await running.stop()
    leave.set()
    with pytest.raises(SinkClosed):
        await asyncio.wait_for(asyncio.wrap_future(done), 5)


async def test_many_threads_of_one_provider_may_call_at_once(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet(types=("example.com/*",))
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(lambda s: (s.register("good", GpuSpec()), s.synced()))

    def hammer(index: int) -> None:
        for i in range(100):
            status = TRUE if i % 2 else FALSE
            start.sink.set_condition("good", Condition(f"example.com/T{index}", status, f"R{i}"))

    before = running.daemon.cache.version
    await asyncio.gather(*(asyncio.to_thread(hammer, i) for i in range(8)))
    assert running.daemon.cache.version == before + 800
    assert len((await running.api().get("good")).status.conditions) == 9


async def test_remote_status_of_a_plugin_is_left_alone_by_set_status_of_another(
    run_daemon: Callable[..., Any],
) -> None:
    puppet = Puppet()
    running = await run_daemon(plugin(puppet), tuning=TUNING)
    start = await puppet.started()
    await start.do(report(FALSE))
    api = running.api()
    await api.set("bad", "Fan", "False", "remote", reason="Stuck")
    await start.do(lambda s: s.set_status("bad", GpuStatus().conditions))
    assert await conditions(api, "bad") == {
        "Ready": ("False", "Stuck"),
        "Fan": ("False", "Stuck"),
    }
