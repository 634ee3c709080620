"""Informers of asyncio on a fake node."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from waiting import SECONDS

from device_api_core.client import AsyncGpuInformer, AsyncGpus
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.errors import (
    NotSynced,
    Unreachable,
)
from device_api_core.client.fake import FakeAsyncClientset, FakeClientset, FakeNode, gpu
from device_api_core.client.fake.aio import FakeAsyncCaller
from device_api_core.resources import ConditionStatus, Gpu

pytestmark = pytest.mark.once("it is about the fake server")

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@pytest.fixture
def clients() -> FakeClientset:
    return FakeClientset(
        gpu("gpu-a", uuid="GPU-AbC", pci_bus_id="0000:1b:00.0"), gpu("gpu-b", A="False")
    )


@pytest.fixture
def node(clients) -> FakeNode:
    return clients.node


async def eventually(holds) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
async def async_clients(node):
    async with FakeAsyncClientset(node=node) as clients:
        yield clients


async def test_an_informer_of_asyncio_does_the_same(async_clients, node):
    told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    async def on_update(old: Gpu, new: Gpu) -> None:
        await asyncio.sleep(0)
        await told.put(("update", new.name, old.ready, new.ready))

    def fail(gpu: Gpu) -> None:
        raise ValueError(gpu.name)

    async with AsyncGpuInformer(
        async_clients.v1alpha1.gpus, probe_seconds=0.02, resync_seconds=30
    ) as informer:
        informer.add_handler(
            on_add=lambda gpu: told.put_nowait(("add", gpu.name)),
            on_update=on_update,
            on_delete=lambda gpu: told.put_nowait(("delete", gpu.name)),
        )
        failing = informer.add_handler(on_add=fail)
        await informer.wait_for_sync(SECONDS)
        assert {(await told.get())[1] for _ in range(2)} == {"gpu-a", "gpu-b"}
        assert informer.lister.by_uuid("gpu-abc").name == "gpu-a"
        node.set_condition("gpu-a", "Healthy", "False")
        assert await told.get() == ("update", "gpu-a", TRUE, FALSE)
        await eventually(lambda: failing.failures == 2)
        node.stop()
        await eventually(lambda: informer.is_stale(0.05))
        node.start(keep=["gpu-b"])
        assert await told.get() == ("delete", "gpu-a")
        await eventually(lambda: not informer.is_stale(0.5))
        assert informer.lister.list() == node.gpus()
    await informer.stop()
    assert informer.add_handler().ended
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_not_known_yet_is_not_empty_with_asyncio(async_clients, node):
    node.unready("waiting for provider nvml to report once")
    async with AsyncGpuInformer(async_clients.v1alpha1.gpus) as informer:
        with pytest.raises(NotSynced, match="waiting for provider nvml"):
            await informer.wait_for_sync(0.05)
        with pytest.raises(NotSynced):
            informer.lister.list()
        assert informer.last_synced is None


async def test_a_resync_with_asyncio_tells_everything_again(async_clients):
    told: asyncio.Queue[str] = asyncio.Queue()
    async with AsyncGpuInformer(async_clients.v1alpha1.gpus, resync_seconds=0.02) as informer:
        informer.add_handler(on_update=lambda old, new: told.put_nowait(new.name))
        async with asyncio.timeout(SECONDS):
            assert {await told.get(), await told.get()} == {"gpu-a", "gpu-b"}


async def test_a_task_that_is_cancelled_leaves_its_watch(async_clients):
    watch = async_clients.v1alpha1.gpus.watch()
    await anext(watch), await anext(watch)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    watch.close()
    assert [e async for e in watch] == []


async def test_closing_an_async_clientset_breaks_its_watches(async_clients):
    watch = async_clients.v1alpha1.gpus.watch()
    await anext(watch), await anext(watch)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    await async_clients.close()
    with pytest.raises(Unreachable):
        await waiting
    with pytest.raises(Unreachable):
        await async_clients.v1alpha1.gpus.list()


class Deaf(FakeAsyncCaller):
    """Its first stream hears nothing."""

    streams = 0

    def stream(self, streaming):
        self.streams += 1
        if self.streams > 1:
            return super().stream(streaming)
        return AsyncWatch(Silence(), None, None)


class Silence:
    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def read(self) -> Any:
        await self.over.wait()
        return grpc.aio.EOF

    def cancel(self) -> None:
        self.over.set()


async def test_a_watch_that_owes_what_a_probe_saw_is_ended_and_resumed(node):
    async with AsyncGpuInformer(AsyncGpus(Deaf(node)), probe_seconds=0.02) as informer:
        await informer.wait_for_sync(SECONDS)
        await eventually(lambda: informer.progress.watches)
        node.set_condition("gpu-a", "Healthy", "False")
        await eventually(lambda: informer.lister.get("gpu-a").ready is FALSE)
        assert "owed changes" in str(informer.progress.last_error)
