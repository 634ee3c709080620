"""Unit tests of a consumer without a server: the fake keeps the server's own rules, in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from placement import NotEnoughGpus, place

from device_api_core.client import GpuInformer
from device_api_core.client.fake import FakeClientset, gpu
from device_api_core.resources import Gpu

SECONDS = 10.0


@pytest.fixture
def clients() -> FakeClientset:
    """A node with three GPUs, one of them sick."""
    return FakeClientset(gpu("gpu-a"), gpu("gpu-b", XidHealthy="False"), gpu("gpu-c"))


@pytest.fixture
def informer(clients: FakeClientset) -> Iterator[GpuInformer]:
    """It follows the node, and proves every 50 ms that it is up to date."""
    with GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.05) as running:
        running.wait_for_sync()
        yield running


def test_only_healthy_gpus_are_chosen(informer: GpuInformer) -> None:
    assert place(informer, 2) == ["gpu-a", "gpu-c"]
    with pytest.raises(NotEnoughGpus, match="2 GPUs are healthy, 3 are needed"):
        place(informer, 3)


def test_a_gpu_that_falls_sick_is_not_chosen(clients: FakeClientset, informer: GpuInformer) -> None:
    heard = threading.Event()
    informer.add_handler(on_update=lambda old, new: heard.set())
    clients.node.set_condition("gpu-a", "Healthy", "False", reason="Xid79")
    assert heard.wait(SECONDS)
    assert place(informer, 1) == ["gpu-c"]


def test_after_a_restart_health_has_to_be_earned_again(
    clients: FakeClientset, informer: GpuInformer
) -> None:
    unknown = threading.Event()

    def tell(old: Gpu, new: Gpu) -> None:
        if new.ready == "Unknown":
            unknown.set()

    informer.add_handler(on_update=tell)
    clients.node.stop()
    clients.node.start()
    assert unknown.wait(SECONDS)
    with pytest.raises(NotEnoughGpus):
        place(informer, 2)


def test_old_news_is_no_news(clients: FakeClientset, informer: GpuInformer) -> None:
    clients.node.stop()
    pause = threading.Event()
    while not informer.is_stale(0.2):
        pause.wait(0.01)
    with pytest.raises(NotEnoughGpus, match="too long"):
        place(informer, 1, max_age_seconds=0.2)
