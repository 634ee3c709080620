"""What a consumer of the toy kind would write; run where its code has been generated."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_api_core
from device_api_core.client import (
    NV_SWITCHES,
    AsyncClientset,
    AsyncNicInformer,
    Clientset,
    EventType,
    Indexer,
    NicInformer,
    NvSwitchInformer,
    is_healthy,
)
from device_api_core.client.errors import NotFound, Unreachable, WatchExpired
from device_api_core.client.fake import FakeAsyncClientset, FakeClientset, FakeNode, FakeServer, gpu
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Nic,
    NicModule,
    NicPort,
    NicSpec,
    NicStatus,
    NvSwitch,
    ObjectMeta,
)

SECONDS = 20.0

GOOD = NicStatus((Condition("Ready", ConditionStatus.TRUE),))
BAD = NicStatus(
    (Condition("Ready", ConditionStatus.FALSE, "LinkDown"),),
    last_link_down=1_700_000_000_000_000_001,
    resets=(1, 1_000_000_002),
)
SPEC = NicSpec(
    mac_address="02:00:00:00:00:01",
    ports=(NicPort(1, 400.0, NicModule("QSFP112")), NicPort(2, 200.0)),
    aliases=("mlx5_0", "ib0"),
    numa_node=0,
    eeprom=b"\x00\xff",
    rdma=True,
)


def nic(name: str, status: NicStatus = GOOD) -> Nic:
    return Nic(ObjectMeta(name), SPEC, status)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with (
        tempfile.TemporaryDirectory(prefix="nic-") as directory,
        FakeServer(f"unix://{directory}/fake.sock", nic("nic-a"), gpu("gpu-a")) as running,
    ):
        yield running


def by_alias(card: Nic) -> list[str]:
    return list(card.spec.aliases)


def test_the_code_is_the_generated_one():
    assert Path(device_api_core.__file__).is_relative_to(os.environ["SCRATCH"])


def test_calls_return_typed_values(server):
    with Clientset.connect(server.target, timeout_seconds=SECONDS) as clients:
        nics = clients.v1alpha1.nics
        [found] = nics.list(driver="mlx5").items
        assert nics.get("nic-a") == found
        assert (found.name, found.spec, found.status) == ("nic-a", SPEC, GOOD)
        assert found.metadata.resource_version > 0
        assert found.spec.ports[1].module is None
        assert is_healthy(found)
        with pytest.raises(NotFound, match='nic "nic-b" not found'):
            nics.get("nic-b")
        assert nics.list().as_json()["items"][0]["spec"]["macAddress"] == SPEC.mac_address
        assert [each.name for each in clients.v1alpha1.gpus.list().items] == ["gpu-a"]


def test_values_are_frozen_and_zero_is_told_from_unknown():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.rdma = False
    assert not hasattr(nic("a"), "__dict__")
    assert NicSpec().numa_node is None
    with FakeClientset(Nic(ObjectMeta("nic-a"))) as clients:
        [found] = clients.v1alpha1.nics.list().items
    assert (found.spec, found.status) == (NicSpec(), NicStatus())
    assert found.ready is ConditionStatus.UNKNOWN


def test_a_watch_has_typed_events(server):
    with Clientset.connect(server.target, timeout_seconds=SECONDS) as clients:
        listed = clients.v1alpha1.nics.list()
        with clients.v1alpha1.nics.watch(listed.resource_version) as events:
            server.node.add(nic("nic-a", BAD))
            server.node.add(nic("nic-b"))
            server.node.remove("nic-b", clients.v1alpha1.nics.kind)
            seen = [next(events) for _ in range(3)]
    assert [(e.type, e.nic.name) for e in seen] == [
        (EventType.MODIFIED, "nic-a"),
        (EventType.ADDED, "nic-b"),
        (EventType.DELETED, "nic-b"),
    ]
    assert seen[0].nic.status == BAD
    assert [e.resource_version for e in seen] == sorted({e.resource_version for e in seen})


def test_an_informer_follows_and_its_lister_finds(server):
    told: queue.SimpleQueue[tuple[object, ...]] = queue.SimpleQueue()
    node = server.node
    with (
        Clientset.connect(server.target, timeout_seconds=SECONDS) as clients,
        NicInformer(
            clients.v1alpha1.nics, indexers={"alias": Indexer(by_alias)}, probe_seconds=0.05
        ) as informer,
    ):
        informer.wait_for_sync(SECONDS)
        informer.add_handler(
            on_add=lambda card: told.put(("add", card.name)),
            on_update=lambda old, new: told.put((old.ready, new.ready)),
            on_delete=lambda card: told.put(("delete", card.name)),
        )
        assert told.get(timeout=SECONDS) == ("add", "nic-a")
        node.add(nic("nic-a", BAD))
        assert told.get(timeout=SECONDS) == (ConditionStatus.TRUE, ConditionStatus.FALSE)
        lister = informer.lister
        assert [card.name for card in lister.by_ready(ConditionStatus.FALSE)] == ["nic-a"]
        assert lister.by_ready(ConditionStatus.TRUE) == ()
        assert lister.by_index("alias", "ib0") == lister.list()
        assert lister.get("nic-a").status.last_link_down == BAD.last_link_down
        # Neither of these may lose anything.
        node.end_watches()
        node.add(nic("nic-b"))
        assert told.get(timeout=SECONDS) == ("add", "nic-b")
        node.expire()
        node.remove("nic-a", clients.v1alpha1.nics.kind)
        assert told.get(timeout=SECONDS) == ("delete", "nic-a")
        node.start(keep=[])
        assert told.get(timeout=SECONDS) == ("delete", "nic-b")
        assert not informer.is_stale(SECONDS)


async def test_so_with_asyncio(server):
    told: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()

    async def added(card: Nic) -> None:
        told.put_nowait(("add", card.name))

    async def next_told() -> tuple[object, ...]:
        return await asyncio.wait_for(told.get(), SECONDS)

    async with (
        AsyncClientset.connect(server.target, timeout_seconds=SECONDS) as clients,
        AsyncNicInformer(clients.v1alpha1.nics) as informer,
    ):
        await informer.wait_for_sync(SECONDS)
        informer.add_handler(
            on_add=added,
            on_update=lambda old, new: told.put_nowait((old.ready, new.ready)),
            on_delete=lambda card: told.put_nowait(("delete", card.name)),
        )
        assert await next_told() == ("add", "nic-a")
        server.node.add(nic("nic-a", BAD))
        assert await next_told() == (ConditionStatus.TRUE, ConditionStatus.FALSE)
        [sick] = informer.lister.by_ready(ConditionStatus.FALSE)
        assert sick == await clients.v1alpha1.nics.get("nic-a")
        assert (await clients.v1alpha1.nics.list(driver="mlx5")).items == (sick,)
        server.node.remove("nic-a", clients.v1alpha1.nics.kind)
        assert await next_told() == ("delete", "nic-a")


async def test_the_fakes_in_memory_share_a_node():
    node = FakeNode(nic("nic-a"))
    clients = FakeClientset(nic("nic-b"), node=node)
    names = [card.name for card in clients.v1alpha1.nics.list().items]
    assert names == ["nic-a", "nic-b"]
    async with FakeAsyncClientset(node=node) as others:
        assert (await others.v1alpha1.nics.list()).items == node.objects(others.v1alpha1.nics.kind)
    with clients.v1alpha1.nics.watch(1) as watch, pytest.raises(WatchExpired):
        next(watch)
    node.stop()
    with pytest.raises(Unreachable):
        clients.v1alpha1.nics.list()


def test_a_kind_of_two_words_and_without_conditions():
    switch = NvSwitch(ObjectMeta("switch-a"))
    clients = FakeClientset(switch, nic("switch-a"))
    assert NV_SWITCHES.name == "nvswitch"
    assert not hasattr(switch, "ready")
    with NvSwitchInformer(clients.v1alpha1.nv_switches) as informer:
        informer.wait_for_sync(SECONDS)
        found = informer.lister.get("switch-a")
        assert (type(found), found.spec) == (NvSwitch, switch.spec)
        assert not hasattr(informer.lister, "by_ready")
    with clients.v1alpha1.nv_switches.watch() as events:
        assert next(events).nv_switch == found
