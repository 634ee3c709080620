"""Reads wait while a provider finds out what is wrong; writes never do."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from inside import AsyncApi, Hold, Puppet, plugin, until

from device_api_core.daemon import Tuning
from device_api_core.errors import LimitExceeded, NotFound, UpdateAborted
from device_api_core.exposition import registry_of
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
HEALTHY = Condition("PuppetHealthy", TRUE)
BROKEN = Condition("PuppetHealthy", FALSE, "Broken")


class Stage:
    """A daemon with one puppet that reports two healthy GPUs."""

    def __init__(self, running: Any, puppet: Puppet, run: Any) -> None:
        self.daemon = running.daemon
        self.api: AsyncApi = running.api()
        self.consumer: AsyncApi = running.api("consumer")
        self.puppet = puppet
        self.run = run

    async def parked(self, count: int) -> None:
        await until(lambda: self.daemon.intake.gate.parked == count)

    def hold(self, *gpus: str) -> Hold:
        return Hold(self.run, *gpus)


@pytest.fixture
async def set_stage(run_daemon: Callable[..., Any]) -> Callable[..., Any]:
    async def set_up(**tuning: Any) -> Stage:
        puppet = Puppet()
        running = await run_daemon(plugin(puppet), tuning=Tuning(**tuning))
        run = await puppet.started()

        def report(sink: Any) -> None:
            for name in ("a", "b"):
                sink.register(name, GpuSpec())
                sink.set_condition(name, HEALTHY)
            sink.synced()

        await run.do(report)
        return Stage(running, puppet, run)

    return set_up


@pytest.fixture
async def stage(set_stage: Callable[..., Any]) -> Any:
    return await set_stage()


def set_to(name: str, condition: Condition) -> Callable[[Any], None]:
    return lambda update: update.set_condition(name, condition)


def ready_of(gpu: Any) -> tuple[str, str]:
    ready = next(c for c in gpu.status.conditions if c.type == "Ready")
    return ready.status, ready.reason


async def test_reads_wait_and_then_see_all_changes_at_once(stage: Stage) -> None:
    async with stage.hold("a") as held:
        reads = [
            asyncio.ensure_future(stage.consumer.get("a")),
            asyncio.ensure_future(stage.consumer.get("b")),
            asyncio.ensure_future(stage.consumer.list()),
            asyncio.ensure_future(stage.api.get("a")),
        ]
        await stage.parked(4)
        assert not any(read.done() for read in reads)
        await held.commit(set_to("a", BROKEN), set_to("b", BROKEN))
    a, b, listed, own = await asyncio.gather(*reads)
    assert ready_of(a) == ready_of(b) == ready_of(own) == ("False", "Broken")
    assert [ready_of(g) for g in listed.items] == [("False", "Broken")] * 2


async def test_a_new_watch_waits_and_begins_with_what_was_found(stage: Stage) -> None:
    async with stage.hold("a") as held:
        watch = stage.consumer.watch()
        first = asyncio.ensure_future(watch.read())
        await stage.parked(1)
        assert stage.daemon.metrics is not None
        await held.commit(set_to("a", BROKEN))
    event = await first
    assert event.type == "ADDED"
    assert ready_of(event.object) == ("False", "Broken")
    watch.cancel()


async def test_an_open_watch_gets_events_while_an_update_is_held(stage: Stage) -> None:
    watch = stage.consumer.watch()
    await watch.read()
    await watch.read()
    async with stage.hold("a") as held:
        version = await stage.api.set("b", "Fan", "True", "remote")
        assert (await watch.read()).object.resource_version == version
        await held.commit(set_to("a", BROKEN))
    assert ready_of((await watch.read()).object) == ("False", "Broken")
    watch.cancel()


async def test_a_waiting_read_honours_its_deadline(stage: Stage) -> None:
    async with stage.hold("a") as held:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.consumer.get("a", timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        watch = stage.consumer.watch(timeout=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await stage.parked(0)
        await held.commit()
    assert ready_of(await stage.consumer.get("a"))[0] == "True"


async def test_a_cancelled_read_harms_no_other(stage: Stage) -> None:
    async with stage.hold("a") as held:
        reads = [asyncio.ensure_future(stage.consumer.get("a")) for _ in range(3)]
        await stage.parked(3)
        reads[1].cancel()
        await stage.parked(2)
        await held.commit(set_to("a", BROKEN))
    assert ready_of(await reads[0]) == ready_of(await reads[2]) == ("False", "Broken")


async def test_writes_never_wait(stage: Stage) -> None:
    async with stage.hold("a") as held:
        await stage.api.register("c", "remote")
        await stage.api.set("a", "Fan", "False", "remote", reason="Stuck")
        assert await stage.api.heartbeat("remote")
        waiting = asyncio.ensure_future(stage.consumer.get("a"))
        await stage.parked(1)
        await stage.api.set("a", "Fan", "True", "remote")
        await held.commit()
    assert ready_of(await waiting)[0] == "True"


async def test_its_own_provider_writes_too_while_it_holds(set_stage: Callable[..., Any]) -> None:
    stage = await set_stage()

    def act(sink: Any) -> None:
        with sink.update("a") as update:
            sink.set_condition("b", BROKEN)
            update.set_condition("a", BROKEN)

    await stage.run.do(act)
    assert {ready_of(g)[1] for g in (await stage.consumer.list()).items} == {"Broken"}


async def test_a_read_waits_only_for_updates_held_when_it_came(
    run_daemon: Callable[..., Any],
) -> None:
    first, second = Puppet("first", ("First",)), Puppet("second", ("Second",))
    running = await run_daemon(plugin(first), plugin(second))
    api = running.api()
    runs = [await first.started(), await second.started()]
    for run in runs:
        await run.do(lambda sink: (sink.register("a", GpuSpec()), sink.synced()))
    async with Hold(runs[0], "a") as earlier:
        read = asyncio.ensure_future(api.get("a"))
        await until(lambda: running.daemon.intake.gate.parked == 1)
        async with Hold(runs[1], "a") as later:
            await earlier.commit(set_to("a", Condition("First", FALSE, "Found")))
            assert ready_of(await read) == ("False", "Found")
            blocked = asyncio.ensure_future(api.get("a"))
            await until(lambda: running.daemon.intake.gate.parked == 1)
            await later.commit()
    await blocked


async def test_an_update_held_too_long_is_aborted(set_stage: Callable[..., Any]) -> None:
    stage = await set_stage(max_hold_seconds=0.2)
    async with stage.hold("a") as held:
        gpu = await stage.consumer.get("a")
        assert ready_of(gpu) == ("Unknown", "UpdateAborted")
        assert "more than 0.2 s" in gpu.status.conditions[0].message
        assert ready_of(await stage.consumer.get("b"))[0] == "True"
        with pytest.raises(UpdateAborted):
            await held.commit(set_to("a", BROKEN))
    assert ready_of(await stage.consumer.get("a")) == ("Unknown", "UpdateAborted")
    registry = registry_of(stage.daemon.metrics, stage.daemon.intake.tallies)
    labels = {"provider_id": "puppet"}
    assert registry.get_sample_value("device_api_server_updates_aborted_total", labels) == 1
    await stage.run.do(lambda sink: sink.set_condition("a", HEALTHY))
    assert ready_of(await stage.consumer.get("a"))[0] == "True"


async def test_an_update_without_names_puts_all_its_gpus_in_doubt(stage: Stage) -> None:
    async with stage.hold() as held:
        with pytest.raises(ValueError, match="confused"):
            await held.fail(ValueError("confused"))
    gpus = (await stage.consumer.list()).items
    assert [ready_of(g) for g in gpus] == [("Unknown", "UpdateAborted")] * 2
    assert "confused" in gpus[0].status.conditions[0].message


async def test_a_refused_change_drops_the_others_too(stage: Stage) -> None:
    before = await stage.consumer.list()
    async with stage.hold("b") as held:
        with pytest.raises(NotFound):
            await held.commit(set_to("a", BROKEN), set_to("absent", BROKEN))
    a, b = (await stage.consumer.list()).items
    assert a == before.items[0]
    assert ready_of(b) == ("Unknown", "UpdateAborted")


async def test_an_aborted_update_leaves_a_fault_alone(stage: Stage) -> None:
    await stage.run.do(lambda sink: sink.set_condition("a", BROKEN))
    before = await stage.consumer.get("a")
    async with stage.hold("a") as held:
        with pytest.raises(ValueError, match="confused"):
            await held.fail(ValueError("confused"))
    assert await stage.consumer.get("a") == before


async def test_a_provider_cannot_park_readers_for_good(stage: Stage) -> None:
    async with stage.hold("a") as held:
        waiting = asyncio.ensure_future(stage.consumer.get("a"))
        await stage.parked(1)
        await asyncio.sleep(0.2)  # the time that it lasts is what matters here
        await held.commit()
    await waiting
    with pytest.raises(LimitExceeded, match="no sooner"):
        await stage.run.do(lambda sink: sink.update("a").__enter__())


async def test_a_provider_holds_one_update_at_a_time(stage: Stage) -> None:
    def twice(sink: Any) -> None:
        with sink.update("a"), pytest.raises(LimitExceeded, match="already holds"):
            sink.update("b").__enter__()

    await stage.run.do(twice)


async def test_holding_an_unknown_gpu_is_refused(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.run.do(lambda sink: sink.update("absent").__enter__())
    assert ready_of(await stage.consumer.get("a"))[0] == "True"


async def test_a_provider_that_dies_holding_lets_readers_pass_as_unknown(stage: Stage) -> None:
    block: list[Any] = []

    def enter(sink: Any) -> None:
        block.append(sink.update("a"))
        block[0].__enter__()

    await stage.run.do(enter)
    waiting = asyncio.ensure_future(stage.consumer.get("a"))
    await stage.parked(1)
    stage.run.end(RuntimeError("dead"))
    assert ready_of(await waiting)[0] == "Unknown"


async def test_a_held_update_ends_with_the_daemon(set_stage: Callable[..., Any]) -> None:
    stage = await set_stage()
    async with stage.hold("a"):
        waiting = asyncio.ensure_future(stage.consumer.get("a"))
        await stage.parked(1)
        stage.daemon.begin_shutdown()
        assert not waiting.done()
    # Ended without a word: nothing was staged, the reader sees the state as it is.
    assert ready_of(await waiting)[0] == "True"


async def test_a_thousand_parked_readers_are_let_through_together(stage: Stage) -> None:
    async with stage.hold("a") as held:
        reads = [asyncio.ensure_future(stage.consumer.get("a")) for _ in range(1_000)]
        await stage.parked(1_000)
        await held.commit(set_to("a", BROKEN))
    assert {ready_of(gpu) for gpu in await asyncio.gather(*reads)} == {("False", "Broken")}
