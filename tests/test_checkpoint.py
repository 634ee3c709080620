"""The order of things: visible, on the disk, acknowledged; and a disk that does not keep up."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from kept import NOW

from device_api_core.checkpoint import BLOCK, Checkpoint
from device_api_core.conditions import assembled, new_health
from device_api_core.database import Database
from device_api_core.entries import Entry, encoded
from device_api_core.events import EventLog
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


FAULT = assembled([Condition("Fan", FALSE, "", "", NOW, "alpha")], (), None, NOW)


class World:
    """A checkpoint whose disk is real, and what it tells people."""

    def __init__(self, directory, **times):
        self.events = EventLog(wall=time.time_ns, monotonic=time.monotonic)
        self.checkpoint = Checkpoint(
            directory, boot_id="boot", events=self.events, monotonic=time.monotonic, **times
        )

    def say(self, status, name="gpu-0", message="", version=1):
        said = Condition("Fan", status, "", message, NOW, "alpha")
        health = assembled([said], (), None, NOW)
        entry = encoded(Entry(name, GpuSpec(), frozenset(), health), None, version)
        before = encoded(Entry(name, GpuSpec(), frozenset(), new_health(NOW)), None, 1)
        self.checkpoint.note(name, before, entry, version)

    async def acknowledge(self):
        """Returns how long that took."""
        began = time.monotonic()
        if (saving := self.checkpoint.saving()) is not None:
            await saving
        return time.monotonic() - began

    def told(self):
        return [e.reason for e in self.events.newest(limit=0)]

    async def until(self, reason):
        async with asyncio.timeout(10):
            while reason not in self.told():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(directory, **times):
    world = World(directory, **times)
    world.checkpoint.load(NOW)
    world.checkpoint.reserve(1)
    await world.checkpoint.start()
    try:
        yield world
    finally:
        world.checkpoint.close()


def on_disk(directory):
    """What another process would read now."""
    contents = Database(directory).load(NOW)
    return {e.name: (c.status, c.message) for e in contents.entries for c in e.health.conditions}


@asynccontextmanager
async def held(directory):
    """The disk takes its time: somebody else writes for as long as the block lasts."""
    with closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_bad_news_is_on_the_disk_when_it_is_acknowledged(tmp_path):
    async with running(tmp_path) as world:
        for number in range(5):
            world.say(FALSE, message=str(number))
            await world.acknowledge()
            assert on_disk(tmp_path) == {"gpu-0": (FALSE, str(number))}


async def test_good_news_waits_for_company_and_delays_nobody(tmp_path):
    async with running(tmp_path, batch_seconds=0.2) as world:
        world.say(TRUE)
        assert world.checkpoint.saving() is None
        await asyncio.sleep(0.02)
        assert on_disk(tmp_path) == {}
        async with asyncio.timeout(10):
            while on_disk(tmp_path) != {"gpu-0": (TRUE, "")}:
                await asyncio.sleep(0.02)


async def test_bad_news_takes_the_good_news_before_it_along(tmp_path):
    async with running(tmp_path, batch_seconds=1_000) as world:
        world.say(TRUE, "gpu-1")
        world.say(FALSE)
        await world.acknowledge()
        assert set(on_disk(tmp_path)) == {"gpu-0", "gpu-1"}


async def test_nobody_is_acknowledged_before_bad_news_that_is_on_its_way(tmp_path):
    async with running(tmp_path) as world:
        async with held(tmp_path):
            world.say(FALSE)
            first, again = world.checkpoint.saving(), world.checkpoint.saving()
            await asyncio.sleep(0.05)
            assert not first.done()
            assert not again.done()
        await asyncio.gather(first, again)
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, "")}


async def test_what_comes_while_the_disk_is_busy_shares_a_commit(tmp_path):
    async with running(tmp_path) as world:
        async with held(tmp_path):
            waiting = []
            for number in range(50):
                world.say(FALSE, f"gpu-{number}")
                waiting.append(world.checkpoint.saving())
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert len(on_disk(tmp_path)) == 50
        assert world.checkpoint.observation().late == 0


async def test_a_caller_who_goes_away_harms_nobody(tmp_path):
    async with running(tmp_path) as world:
        async with held(tmp_path):
            world.say(FALSE)
            gone, other = world.checkpoint.saving(), world.checkpoint.saving()
            gone.cancel()
        await other
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, "")}


async def test_a_slow_disk_delays_an_acknowledgement_for_its_patience_only(tmp_path):
    async with running(tmp_path, patience_seconds=0.5) as world:
        async with held(tmp_path):
            world.say(FALSE)
            assert 0.4 < await world.acknowledge() < 2
            world.say(FALSE, message="more")
            assert await world.acknowledge() < 0.4
            state = world.checkpoint.observation()
            assert (state.healthy, state.late, state.failures) == (False, 2, 0)
            assert world.told() == ["StateNotWritten"]
        # The late commit took too long itself; another one tells that the disk is well.
        await world.until("StateWritten")
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, "more")}
        assert world.checkpoint.observation().healthy
        world.say(FALSE, message="kept")
        await world.acknowledge()
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, "kept")}


async def test_a_disk_that_fails_refuses_nothing_and_is_made_good(tmp_path):
    state = tmp_path / "state"
    async with running(state, retry_seconds=0.05) as world:
        world.say(FALSE)
        await world.acknowledge()
        state.rename(tmp_path / "gone")
        state.write_text("in the way")
        world.say(FALSE, "gpu-1")
        assert await world.acknowledge() < 1
        await world.until("StateNotWritten")
        world.say(FALSE, "gpu-2")
        assert await world.acknowledge() < 0.4
        await asyncio.sleep(0.2)
        assert world.checkpoint.observation().failures >= 2
        assert world.told().count("StateNotWritten") == 1
        state.unlink()
        await world.until("StateWritten")
        assert set(on_disk(state)) == {"gpu-0", "gpu-1", "gpu-2"}


async def test_a_close_writes_what_is_pending(tmp_path):
    async with running(tmp_path, batch_seconds=1_000) as world:
        world.say(TRUE)
    assert on_disk(tmp_path) == {"gpu-0": (TRUE, "")}
    async with running(tmp_path):
        pass


async def test_versions_are_reserved_before_anything_is_served(tmp_path):
    async with running(tmp_path):
        assert Database(tmp_path).load(NOW).ceiling == 1 + BLOCK


async def test_a_new_block_is_reserved_when_half_of_one_is_used(tmp_path):
    async with running(tmp_path) as world:
        world.say(FALSE, version=1 + BLOCK // 2)
        await world.acknowledge()
        assert Database(tmp_path).load(NOW).ceiling == 1 + BLOCK
        world.say(FALSE, version=2 + BLOCK // 2)
        world.say(FALSE, version=3 + BLOCK // 2)
        await world.acknowledge()
        assert Database(tmp_path).load(NOW).ceiling == 1 + 2 * BLOCK


async def test_a_defect_in_writing_is_an_alarm_and_not_the_end(tmp_path):
    async with running(tmp_path, retry_seconds=0.05) as world:
        broken = Entry("gpu-0", GpuSpec(), frozenset(), FAULT, spec_bytes=object())
        world.checkpoint.note("gpu-0", None, broken, 1)
        assert await world.acknowledge() < 1
        await world.until("StateNotWritten")
        world.say(FALSE)
        await world.until("StateWritten")
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, "")}


@pytest.mark.parametrize("count", [300])
async def test_the_loop_does_not_wait_for_the_disk(tmp_path, count):
    async with running(tmp_path, patience_seconds=1_000) as world:
        async with held(tmp_path):
            began = time.monotonic()
            for number in range(count):
                world.say(FALSE, message=str(number))
                assert world.checkpoint.saving() is not None
                await asyncio.sleep(0)
            assert time.monotonic() - began < 1
        await world.acknowledge()
        assert on_disk(tmp_path) == {"gpu-0": (FALSE, str(count - 1))}


def test_a_server_without_memory_does_not_load_sqlite():
    script = "import sys, device_api_core.daemon; assert 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
