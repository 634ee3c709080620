"""Informers of threads on a fake node: going on, and how fresh the store is."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from told import Told
from waiting import SECONDS, wait_until

from device_api_core.client import GpuInformer, Gpus, Indexer, condition_is
from device_api_core.client.errors import (
    LimitExceeded,
    Unreachable,
)
from device_api_core.client.fake import FakeClientset, FakeNode, gpu
from device_api_core.client.fake.clientset import FakeCaller
from device_api_core.client.watch import Watch
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


@pytest.fixture
def informer(clients):
    with GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.02) as running:
        running.wait_for_sync(SECONDS)
        yield running


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


class Deaf(FakeCaller):
    """Its first stream hears nothing."""

    def __init__(self, node: FakeNode) -> None:
        super().__init__(node)
        self.streams = 0

    def stream(self, streaming):
        self.streams += 1
        return super().stream(streaming) if self.streams > 1 else Watch(Silence(), None, None)


class Silence:
    def __init__(self) -> None:
        self.over = threading.Event()

    def __next__(self) -> Any:
        self.over.wait(SECONDS)
        raise StopIteration

    def cancel(self) -> None:
        self.over.set()


def test_a_watch_that_owes_what_a_probe_saw_is_ended_and_resumed(node):
    informer = GpuInformer(Gpus(Deaf(node)), probe_seconds=0.02)
    with informer:
        informer.wait_for_sync(SECONDS)
        wait_until(lambda: informer.progress.watches)
        node.set_condition("gpu-a", "Healthy", "False")
        wait_until(lambda: informer.lister.get("gpu-a").ready is FALSE)
        assert "owed changes" in str(informer.progress.last_error)
        assert informer.progress.lists == 1
