"""The fakes, and waiting on them."""

from __future__ import annotations

import threading

import pytest

from device_api_core.client import GPUS, condition_is, is_healthy
from device_api_core.client.errors import (
    DeadlineExceeded,
    LimitExceeded,
    NotServed,
    Unavailable,
)
from device_api_core.client.fake import FakeClientset, FakeNode, gpu
from device_api_core.resources import ConditionStatus, Object, ObjectMeta

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


# --- waiting


@pytest.mark.parametrize(("name", "state"), [("gpu-a", "it exists"), ("gpu-c", "does not exist")])
def test_waiting_in_vain_says_how_far_it_came(clients, name, state):
    before = threading.active_count()
    clients.v1alpha1.gpus.wait_for("gpu-a", is_healthy)
    assert threading.active_count() == before
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


def test_a_fake_takes_only_objects_of_the_api(node):
    with pytest.raises(TypeError, match="Object is no kind"):
        node.add(Object(ObjectMeta("a")))
    assert node.remove("gpu-a", GPUS)
    assert [gpu.name for gpu in node.objects(GPUS)] == ["gpu-b"]


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
