"""The reflector: whatever a server does, the store becomes what the server has, and every handler
is told one consistent history."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ACTIONS, Action, ScriptedServer, Witness

from device_api_core.client import GPUS, GpuEvent, GpuList
from device_api_core.client.aio.reflector import AsyncReflector
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.delivery import Handler, Registration
from device_api_core.client.errors import (
    InvalidArgument,
    LimitExceeded,
    Unavailable,
    WatchExpired,
)
from device_api_core.client.informing import Informing
from device_api_core.client.lister import BY_READY
from device_api_core.client.reflection import List, Pause, Reflection, WatchFrom
from device_api_core.client.reflector import Reflector
from device_api_core.client.retry import Backoff
from device_api_core.client.stopping import Stop
from device_api_core.client.store import Store
from device_api_core.client.watch import EventType
from device_api_core.resources import Gpu, ObjectMeta

pytestmark = pytest.mark.once("its servers are scripts")

SCRIPTS = st.lists(ACTIONS, max_size=60)


class Followed:
    """An informer without threads, with one handler that has room and one that has not."""

    def __init__(self) -> None:
        self.state = Informing(
            GPUS,
            indexers=None,
            probe_seconds=1.0,
            resync_seconds=None,
            synced=lambda: None,
            backoff=Backoff(0.0, 0.0),
        )
        self.witnesses = [self._join(capacity) for capacity in (1_000, 2)]

    def _join(self, capacity: int) -> tuple[Registration[Gpu], Witness]:
        witness = Witness()
        handler = Handler(witness.on_add, witness.on_update, witness.on_delete)
        registration = Registration(handler, name="w", capacity=capacity, wake=lambda: None)
        self.state.add(registration)
        return registration, witness

    def join(self) -> None:
        self.witnesses.append(self._join(3))

    def deliver(self, count: int) -> None:
        for registration, _ in self.witnesses:
            for _ in range(count):
                if (change := registration.pop()) is not None:
                    registration.handler(change)
                    registration.done()

    def check(self, server: ScriptedServer) -> None:
        self.deliver(10_000)
        store = self.state.store.snapshot
        assert dict(store.objects) == server.truth
        assert store.resource_version == server.version
        by_ready = {(n, key) for key, names in store.indexes[BY_READY].items() for n in names}
        assert by_ready == {(name, gpu.ready.value) for name, gpu in server.truth.items()}
        for _, witness in self.witnesses:
            assert witness.objects == server.truth


@given(SCRIPTS)
def test_the_store_converges_and_handlers_see_a_consistent_history(script: list[Action]) -> None:
    stop, followed = Stop(), Followed()
    server = ScriptedServer(list(script), stop.set, followed.deliver)
    Reflector(server, GPUS, followed.state, stop, clock=lambda: 0.0).run()
    followed.join()
    followed.check(server)


class AsyncFace:
    """The scripted server for the reflector of asyncio."""

    target = "scripted"

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def call(self, unary: Any, timeout_seconds: Any = None) -> Any:
        return self._server.call(unary)

    def stream(self, streaming: Any) -> AsyncWatch[Any]:
        frames = self._server.frames(streaming)

        class Stream:
            async def read(self) -> Any:
                return next(frames, grpc.aio.EOF)

            def cancel(self) -> None:
                pass

        return AsyncWatch(Stream(), streaming.convert, _never)


def _never(error: BaseException) -> Any:
    raise AssertionError(error)


@given(SCRIPTS)
def test_the_same_is_true_with_asyncio(script: list[Action]) -> None:
    followed = Followed()

    def over() -> None:
        followed.state.finished = True

    server = ScriptedServer(list(script), over, followed.deliver)
    reflector = AsyncReflector(AsyncFace(server), GPUS, followed.state, clock=lambda: 0.0)
    asyncio.run(reflector.run())
    followed.check(server)


# --- the decisions


def reflection(version: int | None = 5) -> Reflection[Gpu]:
    made: Reflection[Gpu] = Reflection(Store(), Backoff(1.0, 4.0, lambda: 1.0))
    if version is not None:
        made.listed(GpuList((), version))
    return made


def event(version: int, kind: EventType = EventType.BOOKMARK, name: str = "") -> GpuEvent:
    return GpuEvent(kind, Gpu(ObjectMeta(name, version)), version)


SLOW = LimitExceeded("slow", reason="slow-watcher")


def test_no_probe_speaks_of_a_watch_that_broke():
    state = Followed().state
    state.listed(GpuList((), 5), 0.0)
    assert state.probe() is None
    assert state.step() == WatchFrom(5)
    assert state.probe() is not None
    state.failed(Unavailable("broken"))
    assert state.probe() is None


def test_it_begins_with_a_list_and_goes_on_with_a_watch_from_there():
    begun = reflection(None)
    assert begun.step() == List()
    begun.listed(GpuList((), 5))
    assert begun.step() == WatchFrom(5)


def test_a_broken_watch_is_resumed_after_a_pause_from_the_last_bookmark():
    broken = reflection()
    broken.received(event(9))
    broken.failed(Unavailable("broken"))
    assert [broken.step(), broken.step()] == [Pause(1.0), WatchFrom(9)]


def test_pauses_grow_to_a_limit_and_are_short_again_after_an_event():
    broken = reflection()
    pauses = []
    for _ in range(4):
        broken.failed(LimitExceeded("full", reason="watcher-limit"))
        pauses.append(broken.step())
    assert pauses == [Pause(1.0), Pause(2.0), Pause(4.0), Pause(4.0)]
    broken.received(event(6))
    broken.failed(Unavailable("broken"))
    assert broken.step() == Pause(1.0)


def test_it_lists_at_once_when_the_version_is_lost_but_not_in_a_circle():
    for error in (WatchExpired("old"), SLOW):
        lost = reflection()
        lost.failed(error)
        assert lost.step() == List()
        lost.listed(GpuList((), 7))
        lost.failed(error)
        assert [lost.step(), lost.step()] == [Pause(1.0), List()]
        lost.listed(GpuList((), 8))
        lost.received(event(9))
        lost.failed(error)
        assert lost.step() == List()


def test_a_version_that_a_server_does_not_understand_is_given_up():
    refused = reflection()
    refused.failed(InvalidArgument("opts.resource_version", "must be decimal"))
    assert [refused.step(), refused.step()] == [Pause(1.0), List()]


def test_an_event_that_a_list_has_shown_already_does_not_turn_time_back():
    following = reflection(None)
    newer = Gpu(ObjectMeta("gpu-a", 8))
    following.listed(GpuList((newer,), 8))
    for kind in EventType:
        assert following.received(event(7, kind, "gpu-a")) is None
        assert following.received(event(7, kind, "gpu-b")) is None
    assert dict(following.store.snapshot.objects) == {"gpu-a": newer}
    assert following.step() == WatchFrom(8)
