"""A day of faults in seconds: whatever happens, the informer ends up with the truth and takes no
more memory than before."""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
import tracemalloc

import pytest
from scripted import Witness
from waiting import SECONDS, wait_until

from device_api_core.client import GpuInformer
from device_api_core.client.errors import LimitExceeded, Unavailable
from device_api_core.client.fake import FakeClientset, FakeNode, gpu
from device_api_core.resources import Gpu

pytestmark = pytest.mark.once("it is about the fake server")

NAMES = [f"gpu-{i}" for i in range(8)]
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "5"))
"""Five are 10,000 changes, a day of one every nine seconds."""
STORMS = 20
"""Storms in a round; after each, the truth must win."""
SLACK_BYTES = 192 * 1024


def torment(node: FakeNode, chance: random.Random) -> None:
    """Change GPUs, and let things go wrong now and then."""
    faults = [
        node.end_watches,
        node.expire,
        lambda: node.end_watches(LimitExceeded("slow", reason="slow-watcher")),
        lambda: node.end_watches(LimitExceeded("full", reason="watcher-limit")),
        lambda: node.refuse("ListGpus", Unavailable("not now")),
        lambda: node.refuse("WatchGpus", Unavailable("not now")),
        lambda: (node.stop(), node.start(keep=chance.sample(NAMES, 4))),
        lambda: (node.unready("waiting"), node.unready("")),
    ]
    for i in range(100):
        name = chance.choice(NAMES)
        if name not in {g.name for g in node.gpus()}:
            node.add(gpu(name))
        elif chance.random() < 0.05:
            node.remove(name)
        else:
            status = chance.choice(["True", "False", "Unknown"])
            node.set_condition(name, "Healthy", status, reason=f"R{i}")
        if chance.random() < 0.02:
            chance.choice(faults)()
    chance.choice(faults)()
    node.relent()


@pytest.fixture
def silent():
    """No log: pytest keeps every record of a test, and with it what the record mentions."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(60 * ROUNDS)
def test_the_truth_wins_and_memory_stays_flat(silent):
    chance = random.Random(7)
    clients = FakeClientset(*map(gpu, NAMES))
    node = clients.node
    # A history that is full from the first round on.
    node.limit_history(256)
    fast, slow = Witness(), Witness()
    released = threading.Event()

    def dawdle(old: Gpu, new: Gpu) -> None:
        slow.on_update(old, new)
        released.wait(0.002)

    used = []
    tracemalloc.start()
    try:
        with GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.01, resync_seconds=0.5) as informer:
            registrations = [
                informer.add_handler(
                    on_add=fast.on_add, on_update=fast.on_update, on_delete=fast.on_delete
                ),
                informer.add_handler(
                    on_add=slow.on_add,
                    on_update=dawdle,
                    on_delete=slow.on_delete,
                    queue_changes=16,
                ),
            ]
            for _ in range(ROUNDS):
                for _ in range(STORMS):
                    torment(node, chance)
                    wait_until(lambda: informer.lister.list() == node.gpus())
                wait_until(lambda: not any(r.pending for r in registrations))
                truth = {g.name: g for g in node.gpus()}
                for witness in (fast, slow):
                    wait_until(lambda w=witness, t=truth: w.objects == t)
                wait_until(lambda: not informer.is_stale(SECONDS))
                gc.collect()
                used.append(tracemalloc.get_traced_memory()[0])
            released.set()
            assert [r.failures for r in registrations] == [0, 0]
            assert registrations[1].coalesced > 0
            assert informer.progress.lists > 10
    finally:
        tracemalloc.stop()
    assert max(used[1:]) - used[0] < SLACK_BYTES, used
