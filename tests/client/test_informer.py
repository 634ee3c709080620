"""Informers, of threads and of asyncio, on a fake node."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from waiting import SECONDS, wait_until

from device_api_core.client import AsyncGpuInformer, GpuInformer, Indexer, condition_is
from device_api_core.client.delivery import Handler, PendingChanges, Registration
from device_api_core.client.errors import (
    ConfigurationError,
    DeadlineExceeded,
    LimitExceeded,
    NotFound,
    NotServed,
    NotSynced,
    Unavailable,
    Unreachable,
)
from device_api_core.client.fake import FakeAsyncClientset, FakeClientset, FakeNode, gpu
from device_api_core.client.store import Change
from device_api_core.resources import ConditionStatus, Gpu, ObjectMeta

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class Told:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.handlers = {
            "on_add": lambda gpu: self.queue.put(("add", gpu.name, gpu.ready)),
            "on_update": lambda old, new: self.queue.put(
                ("update", new.name, old.ready, new.ready)
            ),
            "on_delete": lambda gpu: self.queue.put(("delete", gpu.name)),
        }

    def next(self) -> tuple[Any, ...]:
        return self.queue.get(timeout=SECONDS)


@pytest.fixture
def clients() -> FakeClientset:
    return FakeClientset(
        gpu("gpu-a", uuid="GPU-AbC", pci_bus_id="0000:1b:00.0"), gpu("gpu-b", A="False")
    )


@pytest.fixture
def node(clients) -> FakeNode:
    return clients.node


@pytest.fixture
def informer(clients):
    with GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.02) as running:
        running.wait_for_sync(SECONDS)
        yield running


# --- reading


def test_a_lister_finds_by_name_and_by_every_index(informer):
    lister = informer.lister
    a, b = lister.list()
    assert (a.name, b.name) == ("gpu-a", "gpu-b")
    assert lister.get("gpu-a") is a
    assert lister.by_uuid("gpu-aBC") is a
    assert lister.by_uuid("GPU-none") is None
    assert lister.by_pci_bus_id("00000000:1B:00.0") is a
    assert lister.by_pci_bus_id("1b:00.0") is a
    assert lister.by_ready(FALSE) == (b,)
    assert lister.index_keys("ready") == ("False", "True")
    with pytest.raises(NotFound, match='gpu "gpu-c" not found'):
        lister.get("gpu-c")


def test_a_snapshot_is_immutable_and_stays_as_it_was(informer, node):
    before = informer.lister.snapshot
    with pytest.raises(TypeError):
        before.objects["gpu-a"] = None
    node.remove("gpu-a")
    wait_until(lambda: len(informer.lister.list()) == 1)
    assert len(before.objects) == 2


def test_indexes_follow_and_more_can_be_given(clients, node):
    reasons = Indexer(lambda gpu: [c.reason for c in gpu.status.conditions])
    with GpuInformer(clients.v1alpha1.gpus, indexers={"reason": reasons}) as informer:
        informer.wait_for_sync(SECONDS)
        assert informer.lister.by_index("reason", "Xid79") == ()
        node.set_condition("gpu-a", "Healthy", "False", reason="Xid79")
        wait_until(lambda: informer.lister.by_index("reason", "Xid79"))
        assert [g.name for g in informer.lister.by_ready(FALSE)] == ["gpu-a", "gpu-b"]
        node.set_condition("gpu-a", "Healthy", "True")
        wait_until(lambda: informer.lister.by_index("reason", "Xid79") == ())
        assert "Xid79" not in informer.lister.index_keys("reason")


def test_what_is_not_known_yet_is_not_empty(clients, node):
    node.unready("waiting for provider nvml to report once")
    with GpuInformer(clients.v1alpha1.gpus) as informer:
        with pytest.raises(NotSynced, match="waiting for provider nvml"):
            informer.wait_for_sync(0.05)
        with pytest.raises(NotSynced):
            informer.lister.list()
        assert not informer.has_synced
        assert informer.is_stale(60)
        assert informer.last_synced is None
        node.unready("")
        informer.wait_for_sync(SECONDS)
        assert len(informer.lister.list()) == 2


# --- handlers


def test_handlers_are_told_in_order_of_everything(informer, node):
    told = Told()
    registration = informer.add_handler(**told.handlers)
    assert {told.next(), told.next()} == {("add", "gpu-a", TRUE), ("add", "gpu-b", FALSE)}
    wait_until(lambda: registration.has_synced)
    node.set_condition("gpu-a", "Healthy", "False")
    node.set_condition("gpu-a", "Healthy", "True")
    node.remove("gpu-a")
    assert told.next() == ("update", "gpu-a", TRUE, FALSE)
    assert told.next() == ("update", "gpu-a", FALSE, TRUE)
    assert told.next() == ("delete", "gpu-a")


def test_a_handler_that_joins_before_the_start_has_synced_with_the_first_list(clients):
    informer = GpuInformer(clients.v1alpha1.gpus)
    told = Told()
    registration = informer.add_handler(**told.handlers)
    assert not registration.has_synced
    with informer:
        assert {told.next()[1], told.next()[1]} == {"gpu-a", "gpu-b"}
        wait_until(lambda: registration.has_synced)


def test_a_handler_that_raises_harms_nobody_and_is_seen(informer, node, caplog):
    def fail(gpu: Gpu) -> None:
        raise ValueError(gpu.name)

    told = Told()
    failing = informer.add_handler(on_add=fail, on_delete=fail)
    informer.add_handler(**told.handlers)
    told.next(), told.next()
    node.remove("gpu-b")
    assert told.next() == ("delete", "gpu-b")
    wait_until(lambda: failing.failures == 3)
    assert failing.delivered == 3
    assert str(failing.last_error) == "gpu-b"
    assert "fail raised" in caplog.text


def test_a_slow_handler_delays_nobody_and_learns_the_newest_state(informer, node):
    release, told, slow = threading.Event(), Told(), Told()

    def wait(old: Gpu, new: Gpu) -> None:
        release.wait(SECONDS)
        slow.handlers["on_update"](old, new)

    informer.add_handler(**told.handlers)
    registration = informer.add_handler(on_update=wait, queue_changes=2)
    told.next(), told.next()
    wait_until(lambda: registration.has_synced)
    for i in range(21):
        node.set_condition("gpu-a", "Healthy", "False" if i % 2 == 0 else "True", reason=f"R{i}")
        assert told.next()[0] == "update"
    wait_until(lambda: registration.coalesced > 10)
    assert registration.pending <= 4
    release.set()
    seen = [slow.next()]
    while seen[-1][3] is not FALSE or registration.pending:
        seen.append(slow.next())
    assert len(seen) < 21
    assert all(a[3] is b[2] for a, b in zip(seen, seen[1:], strict=False))


def test_a_handler_that_is_removed_is_told_nothing_more(informer, node):
    told, other = Told(), Told()
    registration = informer.add_handler(**told.handlers)
    informer.add_handler(**other.handlers)
    for _ in range(2):
        told.next(), other.next()
    registration.remove()
    node.remove("gpu-a")
    assert other.next() == ("delete", "gpu-a")
    assert told.queue.empty()


def test_a_resync_tells_everything_again(clients):
    told = Told()
    with GpuInformer(clients.v1alpha1.gpus, resync_seconds=0.05) as informer:
        informer.add_handler(**told.handlers)
        first = [told.next() for _ in range(4)]
    assert {t[:2] for t in first[:2]} == {("add", "gpu-a"), ("add", "gpu-b")}
    assert {t for t in first[2:]} <= {
        ("update", "gpu-a", TRUE, TRUE),
        ("update", "gpu-b", FALSE, FALSE),
    }


def named(name: str, version: int) -> Gpu:
    return Gpu(ObjectMeta(name, version))


def test_coalescing_keeps_the_ends_of_the_chain():
    a = [named("a", v) for v in range(5)]
    b = [named("b", v) for v in range(3)]
    pending: PendingChanges[Gpu] = PendingChanges(5)
    for change in (
        Change(a[0], a[1]),
        Change(None, b[0]),
        Change(a[1], None),
        Change(b[0], b[1]),
        Change(None, a[2]),
        Change(b[1], None),
    ):
        pending.push(change)
    assert (len(pending), pending.coalesced) == (1, 5)
    assert pending.pop() == Change(a[0], a[2])
    with pytest.raises(ConfigurationError):
        PendingChanges(0)


def test_a_registration_that_ended_takes_nothing():
    registration = Registration(Handler(), name="n", capacity=1, wake=lambda: None)
    registration.remove()
    registration.push([Change(None, named("a", 1))])
    assert registration.pop() is None


# --- going on


def test_a_broken_watch_is_resumed_and_nothing_is_missed(informer, node):
    told = Told()
    informer.add_handler(**told.handlers)
    told.next(), told.next()
    node.end_watches()
    node.set_condition("gpu-a", "Healthy", "False")
    node.set_condition("gpu-a", "Healthy", "True")
    assert told.next() == ("update", "gpu-a", TRUE, FALSE)
    assert told.next() == ("update", "gpu-a", FALSE, TRUE)
    assert informer.progress.lists == 1
    assert informer.progress.watches > 1


def test_what_vanished_during_an_outage_is_deleted_afterwards(informer, node):
    told = Told()
    informer.add_handler(**told.handlers)
    told.next(), told.next()
    node.stop()
    wait_until(lambda: isinstance(informer.progress.last_error, Unreachable))
    node.start(keep=["gpu-a"])
    assert told.next() == ("delete", "gpu-b")
    assert told.next() == ("update", "gpu-a", TRUE, UNKNOWN)
    assert informer.lister.list() == node.gpus()


def test_an_expired_version_and_a_slow_watcher_lead_to_a_list_at_once(informer, node):
    for i, break_ in enumerate(
        (node.expire, lambda: node.end_watches(LimitExceeded("slow", reason="slow-watcher")))
    ):
        node.set_condition("gpu-a", "Healthy", "False", reason=f"R{i}")
        wait_until(
            lambda r=f"R{i}": condition_is("Healthy", FALSE, reason=r)(informer.lister.get("gpu-a"))
        )
        break_()
        wait_until(lambda n=i: informer.progress.lists == n + 2)
    wait_until(lambda: informer.progress.watches == 3)


def test_an_indexer_that_raises_makes_the_store_stale_and_is_seen(clients, node, caplog):
    def keys(gpu: Gpu) -> list[str]:
        return ["x"] if gpu.ready is not UNKNOWN else 1 / 0

    with GpuInformer(
        clients.v1alpha1.gpus, indexers={"odd": Indexer(keys)}, probe_seconds=0.02
    ) as informer:
        informer.wait_for_sync(SECONDS)
        node.set_condition("gpu-a", "Healthy", "Unknown")
        wait_until(lambda: isinstance(informer.progress.last_error, ZeroDivisionError))
        wait_until(lambda: informer.is_stale(0.05))
        node.set_condition("gpu-a", "Healthy", "False")
        wait_until(lambda: informer.lister.get("gpu-a").ready is FALSE)
        wait_until(lambda: not informer.is_stale(SECONDS))
    assert "a defect" in caplog.text


# --- freshness


def test_a_store_stays_fresh_while_nothing_changes_and_grows_stale_without_a_server(informer, node):
    first = informer.last_synced
    wait_until(lambda: informer.last_synced > first)
    assert not informer.is_stale(SECONDS)
    assert informer.progress.events == 0
    node.stop()
    wait_until(lambda: informer.is_stale(0.05))
    assert len(informer.lister.list()) == 2
    node.start()
    wait_until(lambda: not informer.is_stale(0.5))


def test_a_server_that_is_not_sure_makes_nobody_fresh(informer, node):
    node.unready("waiting")
    wait_until(lambda: informer.is_stale(0.05))
    node.unready("")
    wait_until(lambda: not informer.is_stale(0.5))


# --- ending


def test_stopping_ends_every_thread_and_keeps_the_last_state(clients):
    before = threading.active_count()
    informer = GpuInformer(clients.v1alpha1.gpus)
    informer.add_handler()
    with informer:
        informer.start()
        informer.wait_for_sync(SECONDS)
        assert threading.active_count() > before
    informer.stop()
    assert threading.active_count() == before
    assert len(informer.lister.list()) == 2
    assert informer.add_handler().ended
    wait_until(lambda: threading.active_count() == before)
    informer.start()
    assert threading.active_count() == before


def test_a_handler_may_stop_its_informer(clients):
    stopped = threading.Event()
    informer = GpuInformer(clients.v1alpha1.gpus)

    def stop(gpu: Gpu) -> None:
        informer.stop()
        stopped.set()

    informer.add_handler(on_add=stop)
    informer.start()
    assert stopped.wait(SECONDS)


def test_a_clientset_that_is_closed_is_unreachable(clients):
    watch = clients.v1alpha1.gpus.watch()
    next(watch), next(watch)
    timer = threading.Timer(0.05, clients.close)
    timer.start()
    with pytest.raises(Unreachable):
        next(watch)
    timer.join()
    with pytest.raises(Unreachable):
        clients.v1alpha1.gpus.list()


# --- waiting


@pytest.mark.parametrize(("name", "state"), [("gpu-a", "it exists"), ("gpu-c", "does not exist")])
def test_waiting_in_vain_says_how_far_it_came(clients, name, state):
    with pytest.raises(DeadlineExceeded, match=state):
        clients.v1alpha1.gpus.wait_for(name, condition_is("B"), timeout_seconds=0.2)


def test_waiting_for_a_server_in_vain_says_what_it_answers(clients, node):
    node.unready("waiting for nvml")
    with pytest.raises(DeadlineExceeded, match="waiting for nvml"):
        clients.v1alpha1.gpus.wait_for_deletion("gpu-a", timeout_seconds=0.05)


# --- the fake


def test_a_fake_refuses_what_it_is_told_to(clients, node):
    node.refuse("ListGpus", Unavailable("not now"), times=1)
    with pytest.raises(Unavailable, match="not now"):
        clients.v1alpha1.gpus.list()
    assert len(clients.v1alpha1.gpus.list().items) == 2
    with pytest.raises(NotServed):
        clients.v1alpha1.providers.update("p")
    with pytest.raises(NotServed):
        clients.admin.list_events()
    clients.v1alpha1.providers.register("gpu-a", provider_id="p")
    [provider] = clients.admin.list_providers().providers
    assert (provider.name, provider.gpus) == ("p", 1)


def test_a_fake_sends_bookmarks_after_silence(node):
    node.bookmark_seconds = 0.01
    with FakeClientset(node=node).v1alpha1.gpus.watch(
        node.resource_version, allow_bookmarks=True
    ) as watch:
        assert next(watch).resource_version == node.resource_version


def test_a_fake_ends_a_slow_watcher(clients, node):
    node.limit_queues(2)
    with clients.v1alpha1.gpus.watch(node.resource_version) as watch:
        for i in range(3):
            node.set_condition("gpu-a", "Healthy", "True", reason=f"R{i}")
        with pytest.raises(LimitExceeded) as caught:
            next(watch)
    assert caught.value.reason == "slow-watcher"


def test_a_fake_gpu_carries_advice_and_owners(node):
    node.set_condition("gpu-a", "B", "False", provider_id="q", recommended_action="RESTART_BM")
    seen = next(g for g in node.gpus() if g.name == "gpu-a")
    copied = FakeNode(seen).gpus()
    assert copied[0].status.recommended_action == ""
    assert {c.provider_id for c in copied[0].status.conditions} == {"", "fake", "q"}
    node.lapse("fake")
    assert {g.ready for g in node.gpus()} == {FALSE}


# --- asyncio


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
