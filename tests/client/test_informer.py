"""Informers of threads on a fake node: reading, handlers, ending."""

from __future__ import annotations

import threading

import pytest
from told import Told
from waiting import SECONDS, wait_until

from device_api_core.client import GpuInformer, Indexer
from device_api_core.client.delivery import Handler, PendingChanges, Registration
from device_api_core.client.errors import (
    ConfigurationError,
    NotFound,
    NotSynced,
    Unreachable,
)
from device_api_core.client.fake import FakeClientset, FakeNode, gpu
from device_api_core.client.store import Change
from device_api_core.resources import ConditionStatus, Gpu, ObjectMeta

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
