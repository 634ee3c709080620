"""Known answers: what a transport may say without asking is always what asking would give."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core import codec
from device_api_core._proto import gpu_pb2
from device_api_core.answers import KnownAnswers
from device_api_core.cache import DeviceCache
from device_api_core.clock import SystemClock
from device_api_core.entries import SetCondition
from device_api_core.errors import DeviceApiError
from device_api_core.events import EventLog
from device_api_core.intake import Intake
from device_api_core.metrics import Metrics
from device_api_core.readiness import Readiness
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.server.services import GpuService
from device_api_core.watch import WatchHub

GPUS = ("gpu-0", "gpu-1")
LIST = b""
GET = [gpu_pb2.GetGpuRequest(name=gpu).SerializeToString() for gpu in GPUS]


class World:
    """A service and all that its answers come from."""

    def __init__(self) -> None:
        clock, metrics = SystemClock(), Metrics(version="1", node="n")
        hub = WatchHub(1, encode_bookmark=codec.bookmark)
        events = EventLog(wall=clock.wall, monotonic=clock.monotonic)
        self.cache = DeviceCache(hub, events=events, metrics=metrics, wall=time.time_ns)
        readiness = Readiness(
            (),
            (),
            known_gpus=lambda: len(self.cache),
            clock=clock.monotonic,
            changed=lambda _: self.cache.answers.forget(),
        )
        readiness.evaluate()
        self.intake = Intake(
            self.cache, readiness=readiness, events=events, metrics=metrics, clock=clock
        )
        self.gate = self.intake.gate
        self.service = GpuService(self.cache, hub=hub, gate=self.gate, readiness=readiness)
        self.get, self.list, _ = self.service.methods
        self._held = None

    def set(self, gpu: str, status: ConditionStatus) -> None:
        condition = Condition("Fan", status, "R", "", None, "p")
        self.intake.apply("p", [SetCondition(gpu, condition)])

    async def step(self, what: str, gpu: str) -> None:
        """One thing that may happen; what cannot be now, is not."""
        acts = {
            "register": lambda: self.intake.register("p", gpu, GpuSpec()),
            "good": lambda: self.set(gpu, ConditionStatus.TRUE),
            "bad": lambda: self.set(gpu, ConditionStatus.FALSE),
            "lapse": lambda: self.cache.lapse("p", "Lost", ""),
            "remove": lambda: self.cache.unregister(gpu),
            "hold": self.hold,
            "release": self.release,
        }
        with suppress(DeviceApiError, TimeoutError):
            if what != "read":
                acts[what]()
                return
            # Whoever has to wait reads when it is over.
            async with asyncio.timeout(0):
                await self.list.call(LIST)
                await self.get.call(GET[GPUS.index(gpu)])

    def hold(self) -> None:
        self._held = self.intake.hold("p", ())

    def release(self) -> None:
        if self._held is not None:
            self.intake.abort(self._held, "test")

    async def judge(self) -> None:
        """What is known is true, and nothing is while an update is held."""
        if self.gate.held:
            assert not self.list.known
            assert not self.get.known
        for method in (self.get, self.list):
            for request, answer in tuple(method.known.items()):
                assert answer == await method.call(request)


WORDS = ("register", "good", "bad", "lapse", "remove", "hold", "release", "read", "read")


@given(steps=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GPUS)), max_size=40))
def test_what_is_known_is_what_would_be_answered(steps):
    async def live() -> None:
        world = World()
        for what, gpu in steps:
            await world.step(what, gpu)
            await world.judge()

    asyncio.run(live())


async def test_a_read_is_known_until_something_changes():
    world = World()
    await world.step("register", "gpu-0")
    await world.step("read", "gpu-0")
    assert (list(world.get.known), list(world.list.known)) == ([GET[0]], [LIST])
    await world.step("bad", "gpu-0")
    assert not world.get.known
    assert not world.list.known


async def test_what_a_reader_is_told_while_another_update_is_held_is_not_known():
    world = World()
    await world.step("register", "gpu-0")
    first = world.intake.hold("a", ())
    reading = asyncio.create_task(world.list.call(LIST))
    await asyncio.sleep(0)
    world.intake.hold("b", ())
    world.intake.abort(first, "test")
    # It had to wait for the first only.
    assert await reading
    assert not world.list.known


async def test_who_reads_past_a_held_update_has_an_answer_of_its_own():
    world = World()
    await world.step("register", "gpu-0")
    own = GpuService(world.cache, hub=None, gate=world.gate, readiness=None)
    asking = gpu_pb2.ListGpusRequest(provider_id="p").SerializeToString()
    assert await own.list_gpus(asking)
    assert await own.list_gpus(LIST)
    assert list(own.methods[1].known) == [LIST]


@pytest.mark.parametrize("size", [256, 257])
def test_requests_that_say_little_with_many_bytes_are_not_kept(size):
    answers = KnownAnswers()
    table = answers.table()
    answers.note(table, bytes(size), b"answer")
    assert len(table) == (size <= 256)


def test_endless_ways_to_ask_take_no_endless_room():
    answers = KnownAnswers()
    table = answers.table()
    for number in range(10_000):
        answers.note(table, str(number).encode(), b"answer")
        assert len(table) <= 2_048
    assert table[b"9999"] == b"answer"
