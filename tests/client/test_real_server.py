"""Informers on a real server: killed, stopped, frozen; and many at a time."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import pytest
from waiting import SECONDS, wait_until

from device_api_core.client import (
    AsyncClientset,
    AsyncGpuInformer,
    Clientset,
    GpuInformer,
    condition_is,
)
from device_api_core.client.errors import DeadlineExceeded, Unreachable
from device_api_core.resources import Condition, ConditionStatus, Gpu

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


def report(server: Any, *names: str, status: ConditionStatus = TRUE) -> None:
    with Clientset.connect(str(server.provider_socket)) as clients:
        for name in names:
            clients.v1alpha1.providers.register(name, provider_id="p")
            condition = Condition("A", status, "Said")
            clients.v1alpha1.providers.update_condition(name, condition, provider_id="p")


def truth(server: Any) -> tuple[Gpu, ...]:
    """What the server has, asked by a client that never knew another one."""
    with Clientset.connect(str(server.socket)) as clients:
        return clients.v1alpha1.gpus.list().items


def test_an_informer_survives_a_kill_and_converges_to_fewer_gpus(start, directory):
    server = start()
    report(server, "gpu-a", "gpu-b")
    deleted: list[str] = []
    with (
        Clientset.connect(str(server.socket)) as clients,
        GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.05) as informer,
    ):
        informer.add_handler(on_delete=lambda gpu: deleted.append(gpu.name))
        informer.wait_for_sync(SECONDS)
        assert {g.name: g.ready for g in informer.lister.list()} == {"gpu-a": TRUE, "gpu-b": TRUE}
        server.signal(signal.SIGKILL)
        server.exit_code()
        wait_until(lambda: informer.is_stale(0.2))
        assert isinstance(informer.progress.last_error, Unreachable)
        assert len(informer.lister.list()) == 2
        again = start()
        report(again, "gpu-b", status=FALSE)
        wait_until(lambda: informer.lister.list() == truth(again))
        wait_until(lambda: deleted)
        assert deleted in (["gpu-a"], ["gpu-a", "gpu-b"])
        wait_until(lambda: not informer.is_stale(2))
        assert informer.lister.get("gpu-b").ready is FALSE


def test_a_server_that_stops_in_good_order_is_followed_by_its_successor(start):
    server = start()
    report(server, "gpu-a")
    with (
        Clientset.connect(str(server.socket)) as clients,
        GpuInformer(clients.v1alpha1.gpus) as informer,
    ):
        informer.wait_for_sync(SECONDS)
        assert server.stop() == 0
        report(start(), "gpu-c")
        wait_until(lambda: [g.name for g in informer.lister.list()] == ["gpu-c"])


def test_a_server_that_hangs_with_its_connection_open_is_noticed(start):
    server = start()
    report(server, "gpu-a")
    with (
        Clientset.connect(str(server.socket), timeout_seconds=0.5) as clients,
        GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.05) as informer,
    ):
        informer.wait_for_sync(SECONDS)
        wait_until(lambda: not informer.is_stale(1))
        server.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: informer.is_stale(1))
            with pytest.raises(DeadlineExceeded):
                clients.v1alpha1.gpus.list()
            began = time.monotonic()
            informer.stop()
            assert time.monotonic() - began < 5
        finally:
            server.signal(signal.SIGCONT)


def test_a_held_update_keeps_the_store_from_being_called_fresh(start):
    server = start()
    report(server, "gpu-a")
    with (
        Clientset.connect(str(server.provider_socket)) as clients,
        GpuInformer(clients.v1alpha1.gpus, probe_seconds=0.05) as informer,
    ):
        informer.wait_for_sync(SECONDS)
        held = clients.v1alpha1.providers.update("p", ["gpu-a"])
        wait_until(lambda: informer.is_stale(0.4), 4)
        held.set_condition("gpu-a", Condition("A", FALSE, "Xid79"))
        held.commit()
        wait_until(lambda: not informer.is_stale(0.4))
        assert informer.lister.get("gpu-a").ready is FALSE


def test_many_informers_are_all_told_soon(start):
    server = start()
    report(server, "gpu-a")
    told = threading.Semaphore(0)

    def note(old: Gpu, new: Gpu) -> None:
        if new.ready is FALSE:
            told.release()

    clients = [Clientset.connect(str(server.socket)) for _ in range(20)]
    informers = [GpuInformer(c.v1alpha1.gpus) for c in clients for _ in range(2)]
    try:
        for informer in informers:
            informer.add_handler(on_update=note)
            informer.start()
        for informer in informers:
            informer.wait_for_sync(SECONDS)
        wait_until(lambda: all(i.progress.watches for i in informers))
        report(server, "gpu-a", status=FALSE)
        for _ in informers:
            assert told.acquire(timeout=SECONDS)
    finally:
        for informer in informers:
            informer.stop()
        for each in clients:
            each.close()


def test_waiting_outlives_a_restart(start):
    server = start()
    found: list[Gpu] = []
    with Clientset.connect(str(server.socket)) as clients:
        waiting = threading.Thread(
            target=lambda: found.append(
                clients.v1alpha1.gpus.wait_for("gpu-a", condition_is("A"), timeout_seconds=30)
            )
        )
        waiting.start()
        server.signal(signal.SIGKILL)
        server.exit_code()
        report(start(), "gpu-a")
        waiting.join(SECONDS)
        assert [gpu.ready for gpu in found] == [TRUE]


async def test_an_informer_of_asyncio_survives_a_kill(start):
    server = await asyncio.to_thread(start)
    await asyncio.to_thread(report, server, "gpu-a", "gpu-b")
    deleted: asyncio.Queue[str] = asyncio.Queue()
    async with (
        AsyncClientset.connect(str(server.socket)) as clients,
        AsyncGpuInformer(clients.v1alpha1.gpus, probe_seconds=0.05) as informer,
    ):
        informer.add_handler(on_delete=lambda gpu: deleted.put_nowait(gpu.name))
        await informer.wait_for_sync(SECONDS)
        server.signal(signal.SIGKILL)
        await asyncio.to_thread(server.exit_code)
        async with asyncio.timeout(SECONDS):
            while not informer.is_stale(0.2):
                await asyncio.sleep(0.01)
            again = await asyncio.to_thread(start)
            await asyncio.to_thread(report, again, "gpu-b")
            assert await deleted.get() == "gpu-a"
            expected = await asyncio.to_thread(truth, again)
            while informer.is_stale(2) or informer.lister.list() != expected:
                await asyncio.sleep(0.01)
