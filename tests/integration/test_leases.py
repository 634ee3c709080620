"""Remote providers: leases, expectations, the grace, and what strictness refuses."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from inside import AsyncApi, until

from device_api_core._proto import admin_pb2, gpu_pb2, provider_pb2
from device_api_core.daemon import Tuning
from device_api_core.leases import MAX_PROVIDERS

SHORT = Tuning(heartbeat_lease_seconds=0.3)


async def health(api: AsyncApi, name: str, type_: str) -> tuple[str, str]:
    gpu = await api.get(name)
    return next((c.status, c.reason) for c in gpu.status.conditions if c.type == type_)


async def rows(api: AsyncApi) -> dict[str, admin_pb2.Provider]:
    listed = await api.admin.ListProviders(admin_pb2.ListProvidersRequest(), timeout=10)
    return {p.name: p for p in listed.providers}


def sample(running: Any, name: str, **labels: str) -> float | None:
    value = running.registry.get_sample_value(f"device_api_server_{name}", labels)
    return value if value is None else float(value)


async def beating(api: AsyncApi, provider_id: str) -> None:
    await api.register("gpu-0", provider_id)
    await api.set("gpu-0", "Good", "True", provider_id)
    await api.set("gpu-0", "Bad", "False", provider_id, reason="Stuck")
    assert await api.heartbeat(provider_id)


async def test_a_lease_that_runs_out_makes_true_unknown_and_keeps_false(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=SHORT)
    api = running.api()
    await beating(api, "remote")
    assert (await rows(api))["remote"].lease.nanos == 300_000_000
    watch = api.watch(str((await api.list()).metadata.resource_version))
    await watch.read()
    assert await health(api, "gpu-0", "Good") == ("Unknown", "ProviderLost")
    assert await health(api, "gpu-0", "Bad") == ("False", "Stuck")
    assert sample(running, "provider_heartbeat_timeout_total", provider_id="remote") == 1
    lost = (await rows(api))["remote"]
    assert (lost.state, lost.home) == ("lost", "remote")
    # It is told to say everything again, and until it has, nothing is believed.
    assert not await api.heartbeat("remote")
    assert not await api.heartbeat("remote", "gpu-0")
    assert await health(api, "gpu-0", "Good") == ("Unknown", "ProviderLost")
    await api.set("gpu-0", "Good", "True", "remote")
    assert await api.heartbeat("remote")
    watch.cancel()


async def test_watchers_are_told_within_100_ms_of_the_end_of_a_lease(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=SHORT)
    api = running.api()
    late = []
    for round_ in range(5):
        provider = f"remote-{round_}"
        await api.register(f"gpu-{round_}", provider)
        await api.set(f"gpu-{round_}", "Good", "True", provider)
        watch = api.watch(str((await api.list()).metadata.resource_version))
        beaten = time.monotonic()
        assert await api.heartbeat(provider)
        event = await watch.read()
        late.append(time.monotonic() - beaten - 0.3)
        assert event.object.status.conditions[-1].reason == "ProviderLost"
        watch.cancel()
    assert min(late) >= 0
    # A shared machine has slow moments of its own.
    assert sorted(late)[1] <= 0.1, late


async def test_heartbeats_and_writes_renew_a_lease(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(tuning=SHORT)
    api = running.api()
    await beating(api, "remote")
    for i in range(12):  # 1.2 seconds, four leases
        await asyncio.sleep(0.1)
        if i % 2:
            await api.set("gpu-0", "Good", "True", "remote")  # changes nothing, is a sign of life
        else:
            assert await api.heartbeat("remote")
    assert not sample(running, "provider_heartbeat_timeout_total", provider_id="remote")
    assert sample(running, "provider_heartbeat_total", provider_id="remote") == 7


async def test_a_refused_write_is_no_sign_of_life(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(tuning=SHORT)
    api = running.api()
    await beating(api, "remote")

    async def nag() -> None:
        while True:
            with pytest.raises(grpc.aio.AioRpcError):
                await api.set("absent", "Good", "True", "remote")

    nagging = asyncio.ensure_future(nag())
    await until(lambda: sample(running, "provider_heartbeat_timeout_total", provider_id="remote"))
    nagging.cancel()


async def test_a_writer_that_never_beats_has_no_lease(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(tuning=SHORT)
    api = running.api()
    await api.register("gpu-0", "quiet")
    await api.set("gpu-0", "Good", "True", "quiet")
    await asyncio.sleep(0.7)  # more than two leases
    assert await health(api, "gpu-0", "Good") == ("True", "")
    assert not (await rows(api))["quiet"].HasField("lease")


async def test_require_heartbeat_gives_every_writer_a_lease(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=SHORT, require_heartbeat=True)
    api = running.api()
    await api.register("gpu-0", "quiet")
    await api.set("gpu-0", "Good", "True", "quiet")
    await api.register("gpu-1")
    await api.set("gpu-1", "Anonymous", "True")
    await until(lambda: sample(running, "provider_heartbeat_timeout_total", provider_id="quiet"))
    await until(lambda: sample(running, "provider_heartbeat_timeout_total", provider_id=""))
    assert await health(api, "gpu-0", "Good") == ("Unknown", "ProviderLost")
    assert await health(api, "gpu-1", "Anonymous") == ("Unknown", "ProviderLost")


async def test_a_provider_may_state_its_own_interval_and_summary(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon()
    api = running.api()
    await api.register("gpu-0", "remote")
    await api.set("gpu-0", "Good", "True", "remote")
    request = provider_pb2.HeartbeatRequest(provider_id="remote", summary="driver 570")
    request.interval.FromMilliseconds(100)
    assert (await api.providers.Heartbeat(request, timeout=10)).acknowledged
    row = (await rows(api))["remote"]
    assert (row.lease.nanos, row.summary) == (300_000_000, "driver 570")
    await until(lambda: sample(running, "provider_heartbeat_timeout_total", provider_id="remote"))


async def test_not_ready_before_an_expected_provider_has_reported(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(expect_provider=("one", "two"))
    api, consumer = running.api(), running.api("consumer")

    async def refused(*names: str) -> None:
        for read in (consumer.list(), consumer.get("gpu-0"), consumer.watch().read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            for name in names:
                assert name in caught.value.details()

    await refused("one", "two")
    await api.register("gpu-0", "one")
    await refused("one", "two")
    await api.set("gpu-0", "Good", "True", "one")
    await refused("two")
    await api.set("gpu-0", "Other", "True", "stranger")
    await refused("two")
    await api.set("gpu-0", "Link", "True", "two")
    assert len((await consumer.list()).items) == 1
    assert running.daemon.readiness.ready


async def test_after_the_grace_what_is_known_is_served(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(tuning=Tuning(grace_seconds=0.3), expect_provider=("late",))
    api, consumer = running.api(), running.api("consumer")
    await api.register("gpu-0", "early")
    await api.set("gpu-0", "Good", "True", "early")
    with pytest.raises(grpc.aio.AioRpcError):
        await consumer.list()
    await until(lambda: running.daemon.readiness.ready)
    assert len((await consumer.list()).items) == 1


async def test_after_the_grace_nothing_known_is_not_served_as_nothing_wrong(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(tuning=Tuning(grace_seconds=0.1), expect_provider=("late",))
    api, consumer = running.api(), running.api("consumer")
    await asyncio.sleep(0.2)  # the grace is over
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await consumer.list()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await api.register("gpu-0", "early")
    assert len((await consumer.list()).items) == 1


async def test_strict_unregister_refuses_while_a_fault_is_held(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon(strict_unregister=True)
    api = running.api()
    await api.register("gpu-0", "remote")
    await api.set("gpu-0", "Bad", "False", "remote")
    before = await api.list()
    for call, request in (
        (api.providers.UnregisterGpu, provider_pb2.UnregisterGpuRequest(name="gpu-0")),
        (api.admin.ForgetGpu, admin_pb2.ForgetGpuRequest(name="gpu-0")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "remote" in caught.value.details()
    assert await api.list() == before
    await api.set("gpu-0", "Bad", "True", "remote")
    request = provider_pb2.UnregisterGpuRequest(name="gpu-0")
    assert (await api.providers.UnregisterGpu(request, timeout=10)).deleted


async def test_ids_that_come_and_go_leave_nothing_behind(run_daemon: Callable[..., Any]) -> None:
    running = await run_daemon(tuning=Tuning(heartbeat_lease_seconds=0.05))
    api = running.api()
    await api.register("gpu-0", "keeper")
    for i in range(MAX_PROVIDERS + 20):
        request = provider_pb2.UnregisterGpuRequest(name="gpu-0", provider_id=f"taker-{i}")
        assert not (await api.providers.UnregisterGpu(request, timeout=10)).deleted
    assert set(await rows(api)) == {"keeper"}
    for i in range(20):
        assert not await api.heartbeat(f"beater-{i}")
    leases = running.daemon.intake.leases
    await until(lambda: len(leases.signs) == 1)
    metrics = running.daemon.metrics
    for family in (metrics.heartbeats, metrics.heartbeat_timeouts):
        assert set(family) == {"keeper"}


async def test_more_provider_ids_than_the_limit_are_refused(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon()
    api = running.api()
    for i in range(MAX_PROVIDERS):
        await api.register("gpu-0", f"id-{i}")
    before = await api.list()
    begin = provider_pb2.UpdateRequest(begin=provider_pb2.BeginUpdate(provider_id="more"))
    for call in (
        api.register("gpu-0", "more"),
        api.set("gpu-0", "Good", "True", "more"),
        api.heartbeat("more"),
        api.providers.Update(iter([begin]), timeout=10).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "256 provider ids" in caught.value.details()
    assert await api.list() == before
    request = admin_pb2.ForgetProviderRequest(provider_id="id-0")
    await api.admin.ForgetProvider(request, timeout=10)
    await api.register("gpu-0", "more")


# --- updates held by a provider elsewhere


class RemoteHold:
    """An update held through the stream."""

    def __init__(self, api: AsyncApi) -> None:
        self.call = api.providers.Update(timeout=20)

    async def begin(self, provider_id: str, *names: str) -> provider_pb2.UpdateResponse:
        begin = provider_pb2.BeginUpdate(provider_id=provider_id, gpu_names=names)
        await self.call.write(provider_pb2.UpdateRequest(begin=begin))
        return await self.call.read()

    async def stage(self, name: str, type_: str, status: str, provider_id: str = "") -> None:
        change = provider_pb2.UpdateGpuConditionRequest(
            name=name,
            provider_id=provider_id,
            condition=gpu_pb2.Condition(type=type_, status=status, reason="Found"),
        )
        await self.call.write(provider_pb2.UpdateRequest(condition=change))

    async def finish(self) -> provider_pb2.UpdateResponse:
        """Close; returns the last response."""
        await self.call.done_writing()
        last = None
        while (response := await self.call.read()) is not grpc.aio.EOF:
            last = response
        assert last is not None
        return last


async def two_gpus(api: AsyncApi) -> None:
    for name in ("a", "b"):
        await api.register(name, "remote")
        await api.set(name, "Link", "True", "remote")


async def test_a_remote_update_parks_reads_and_applies_together(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon()
    api, consumer = running.api(), running.api("consumer")
    await two_gpus(api)
    hold = RemoteHold(api)
    assert (await hold.begin("remote", "a")).held
    read = asyncio.ensure_future(consumer.list())
    await until(lambda: running.daemon.intake.gate.parked == 1)
    await hold.stage("a", "Link", "False")
    await hold.stage("b", "Link", "False", "remote")
    assert not read.done()
    last = await hold.finish()
    items = (await read).items
    assert [g.status.conditions[0].reason for g in items] == ["Found", "Found"]
    assert dict(last.resource_versions) == {g.metadata.name: g.resource_version for g in items}


@pytest.mark.parametrize("how", ["cancel", "close", "refused", "expired"])
async def test_a_remote_update_that_breaks_is_aborted(
    run_daemon: Callable[..., Any], how: str
) -> None:
    running = await run_daemon(tuning=Tuning(max_hold_seconds=0.3))
    api, guest = running.api(), running.api()
    await two_gpus(api)
    hold = RemoteHold(guest)
    assert (await hold.begin("remote", "a")).held
    read = asyncio.ensure_future(api.get("a"))
    await until(lambda: running.daemon.intake.gate.parked == 1)
    await hold.stage("a", "Link", "False")
    if how == "cancel":
        hold.call.cancel()
    elif how == "close":
        await guest.close()
    elif how == "refused":
        await hold.stage("absent", "Link", "False")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hold.finish()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    else:
        await read
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hold.finish()
        assert caught.value.code() is grpc.StatusCode.ABORTED
    gpu = await read
    assert [(c.status, c.reason) for c in gpu.status.conditions if c.type == "Link"] == [
        ("Unknown", "UpdateAborted")
    ]
    assert await health(api, "b", "Link") == ("True", "")


async def test_bad_steps_of_a_remote_update_change_nothing(
    run_daemon: Callable[..., Any],
) -> None:
    running = await run_daemon()
    api = running.api()
    await two_gpus(api)
    await api.set("a", "Link", "False", "remote")
    before = await api.get("a")
    stage = provider_pb2.UpdateGpuConditionRequest(
        name="a", condition=gpu_pb2.Condition(type="Link", status="True")
    )
    other = provider_pb2.UpdateGpuConditionRequest(name="a", provider_id="other")
    begin = provider_pb2.UpdateRequest(
        begin=provider_pb2.BeginUpdate(provider_id="remote", gpu_names=["a"])
    )
    absent = provider_pb2.BeginUpdate(provider_id="remote", gpu_names=["absent"])
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    for steps, code in (
        ([], invalid),
        ([provider_pb2.UpdateRequest()], invalid),
        ([provider_pb2.UpdateRequest(condition=stage)], invalid),
        ([begin, begin], invalid),
        ([begin, provider_pb2.UpdateRequest(condition=other)], invalid),
        ([provider_pb2.UpdateRequest(begin=absent)], missing),
    ):
        call = api.providers.Update(iter(steps), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is code
        assert await api.get("a") == before
        assert running.daemon.intake.gate.held == 0
        # The next may begin no sooner than this one lasted.
        await asyncio.sleep(0.02)
