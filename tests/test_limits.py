"""Limits: turns, paces, streams and unread answers, on a clock of their own."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.errors import RATE, LimitExceeded
from device_api_core.server.limits import Limiter, Limits, Peer
from device_api_core.server.traffic import Traffic, thread_seconds
from device_api_core.watch import MAX_WATCHES, WATCHER_LIMIT


class Clock:
    """Two clocks that go when told: the time, and what the loop has worked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.worked = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def traffic(clock):
    return Traffic(clock, lambda: clock.worked)


def granted(peer, clock, seconds, step, *, writes=False):
    """How many calls have had their turn after so much time, of one every ``step`` seconds."""
    begins, turns = clock.now, []
    while clock.now < begins + seconds:
        with suppress(LimitExceeded):
            turns.append(clock.now + peer.arrive(writes=writes))
        clock.now += step
    return sum(turn <= begins + seconds for turn in turns)


@pytest.mark.parametrize(("writes", "rate"), [(False, 100), (True, 10)])
def test_a_peer_gets_its_rate_and_one_burst(clock, traffic, writes, rate):
    peer = Peer(Limits(reads=100, writes=10, burst=5), traffic)
    assert granted(peer, clock, 10, 0.001, writes=writes) == pytest.approx(10 * rate + 5, abs=2)


def test_reads_do_not_use_up_writes(clock, traffic):
    peer = Peer(Limits(reads=10, writes=10), traffic)
    granted(peer, clock, 1, 0.001)
    assert peer.arrive(writes=True) <= 0


def test_a_slower_caller_never_waits(clock, traffic):
    peer = Peer(Limits(reads=100), traffic)
    for _ in range(1_000):
        assert peer.arrive(writes=False) <= 0
        clock.now += 0.011


def test_who_would_wait_too_long_is_refused_and_loses_nothing_by_it(clock, traffic):
    peer = Peer(Limits(reads=10, burst=1), traffic)
    waits = []
    while not waits or waits[-1] < 4.95:
        waits.append(peer.arrive(writes=False))
    for _ in range(1_000):
        with pytest.raises(LimitExceeded, match="more than 10 reads a second") as caught:
            peer.arrive(writes=False)
    assert caught.value.reason == RATE
    clock.now += 0.2
    peer.arrive(writes=False)


def test_default_rates_allow_what_is_promised(clock, traffic):
    peer = Peer(Limits(), traffic)
    assert granted(peer, clock, 5, 1 / 5_000) == 25_000
    assert granted(peer, clock, 5, 1 / 1_500, writes=True) == pytest.approx(7_500, abs=1)


@pytest.mark.parametrize(("peers", "part"), [(1, math.inf), (2, 1_600), (4, 800), (400, 20)])
def test_several_peers_share_four_fifths_of_the_loop(clock, traffic, peers, part):
    everybody = [Peer(Limits(reads=1_000_000), traffic) for _ in range(peers)]
    for number in range(3_000):
        # 0.25 ms a call are 4,000 calls a second.
        clock.worked += 0.00025
        clock.now += 0.00025
        everybody[number % peers].arrive(writes=False)
    for peer in everybody:
        clock.worked += 0.00025
        traffic.note(1)
        pace = traffic.pace(peer, clock.now)
    assert pace == pytest.approx(part, rel=0.05)


def test_beside_others_a_greedy_peer_waits_for_its_turn(clock):
    traffic = Traffic(clock, clock)  # it is busy all the time
    greedy, other = Peer(Limits(reads=100_000), traffic), Peer(Limits(), traffic)
    assert granted(greedy, clock, 1, 1 / 20_000) == pytest.approx(20_000, rel=0.01)
    other.arrive(writes=False)
    assert granted(greedy, clock, 1, 1 / 20_000) == pytest.approx(8_000, rel=0.02)


def test_others_who_have_gone_no_longer_count(clock, traffic):
    greedy, other = Peer(Limits(), traffic), Peer(Limits(), traffic)
    other.arrive(writes=False)
    assert traffic.pace(greedy, clock.now) < math.inf
    clock.now += 1.5
    assert traffic.pace(greedy, clock.now) < math.inf
    clock.now += 1.5
    assert traffic.pace(greedy, clock.now) == math.inf


@given(gaps=st.lists(st.floats(0, 0.3), min_size=1, max_size=300))
def test_no_second_has_more_turns_than_the_rate_and_the_burst(gaps):
    clock = Clock()
    peer = Peer(Limits(reads=20, burst=4), Traffic(clock, lambda: 0.0))
    turns = []
    for gap in gaps:
        clock.now += gap
        with suppress(LimitExceeded):
            turns.append(clock.now + peer.arrive(writes=False))
    for first in turns:
        assert sum(first <= turn < first + 1 for turn in turns) <= 20 + 4 + 1


def test_streams_are_counted(traffic):
    limiter = Limiter(Limits(streams=2), traffic)
    peer = limiter.peer("a")
    with limiter.stream(peer), limiter.stream(peer):
        with pytest.raises(LimitExceeded) as caught, limiter.stream(peer):
            pass
        assert caught.value.reason == WATCHER_LIMIT
        with limiter.stream(limiter.peer("b")):
            pass
    with limiter.stream(peer):
        pass


async def test_calls_at_a_time_are_counted(traffic):
    limiter = Limiter(Limits(calls=2), traffic)
    release = asyncio.Event()

    async def wait(data):
        await release.wait()
        return data

    peer = limiter.peer("a")
    calls = [asyncio.create_task(limiter.call(peer, wait, b"x", writes=False)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded, match="all 2 calls") as caught:
        await limiter.call(peer, wait, b"", writes=False)
    assert caught.value.reason == RATE
    release.set()
    assert await asyncio.gather(*calls) == [b"x", b"x"]
    assert await limiter.call(peer, wait, b"y", writes=False) == b"y"


async def test_a_failed_and_a_cancelled_call_give_their_places_back(traffic):
    limiter = Limiter(Limits(calls=1), traffic)

    async def fail(_):
        raise LookupError

    async def forever(_):
        await asyncio.Event().wait()

    peer = limiter.peer("a")
    with pytest.raises(LookupError):
        await limiter.call(peer, fail, b"", writes=False)
    task = asyncio.create_task(limiter.call(peer, forever, b"", writes=False))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert peer.calls == 0


async def test_a_large_answer_waits_for_room():
    limiter = Limiter(unsent_bytes=100)
    taken = await limiter.room(60)
    second = asyncio.create_task(limiter.room(60))
    await asyncio.sleep(0)
    assert (limiter.unsent, second.done()) == (60, False)
    taken()
    await second
    assert limiter.unsent == 60


async def test_an_answer_larger_than_all_room_passes_alone():
    limiter = Limiter(unsent_bytes=100)
    (await limiter.room(1_000))()
    assert limiter.unsent == 0


def test_a_large_answer_is_refused_when_nobody_reads(virtual_loop):
    async def fill():
        limiter = Limiter(unsent_bytes=100)
        await limiter.room(100)
        with pytest.raises(LimitExceeded) as caught:
            await limiter.room(1)
        assert caught.value.reason == RATE

    virtual_loop.run_until_complete(fill())


def test_accounts_are_bounded_and_only_idle_ones_are_forgotten(clock, traffic):
    limiter = Limiter(Limits(reads=10, burst=1), traffic)
    busy = limiter.peer("busy")
    while busy.arrive(writes=False) < 1:
        pass
    for number in range(5_000):
        limiter.peer(number)
    assert len(limiter) <= 1_024
    assert limiter.peer("busy") is busy


def test_time_of_this_thread_goes_on_with_its_work():
    before = thread_seconds()
    total = sum(range(3_000_000))
    assert total
    assert thread_seconds() - before > 0.005


def test_a_process_may_watch_more_than_another_client_and_not_all(traffic):
    limiter = Limiter(Limits(streams=2), traffic)
    process = limiter.process(7)
    assert limiter.process(7) is process
    for _ in range(6):
        process.open_stream()
    with pytest.raises(LimitExceeded, match="all 6 streams"):
        process.open_stream()


def test_a_process_leaves_watches_to_others():
    assert Limits().of_a_process.streams < 0.8 * MAX_WATCHES


@pytest.mark.parametrize(
    ("watches", "client", "process"),
    [(MAX_WATCHES, 512, 1_536), (14_000, 3_584, 10_752)],
)
def test_each_has_its_part_of_the_watches_that_may_be(watches, client, process):
    limits = Limits().sharing(watches)
    assert limits.streams == client
    assert limits.of_a_process.streams == process
    assert limits.of_a_crowd.streams == watches


def test_updates_may_be_held_where_hardly_anyone_may_watch():
    assert Limits().sharing(1) == Limits()


def test_who_uses_more_than_its_part_of_the_loop_rests(clock, traffic):
    limiter = Limiter(traffic=traffic)
    greedy, other = limiter.peer("greedy"), limiter.peer("other")
    greedy.used(1.0)
    assert greedy.rest() <= 0  # alone
    other.arrive(writes=False)
    # Two tenths of a second of work are its part of half a second.
    clock.now += 0.2
    greedy.used(0.2)
    other.used(0.001)
    assert greedy.rest() == pytest.approx(0.3 - 0.005)
    assert other.rest() <= 0
    assert not greedy.idle
    clock.now += 0.3
    assert greedy.rest() <= 0
    assert greedy.idle


def test_what_is_not_used_cannot_be_saved(clock, traffic):
    limiter = Limiter(traffic=traffic)
    greedy, other = limiter.peer("greedy"), limiter.peer("other")
    for _ in range(10):
        clock.now += 0.5
        other.arrive(writes=False)
        greedy.used(0.0)
    clock.now += 0.1
    greedy.used(0.1)
    assert greedy.rest() == pytest.approx(0.15 - 0.005)


def test_who_has_calls_that_wait_rests_for_a_moment(clock, traffic):
    peer = Limiter(Limits(reads=100, burst=1), traffic).peer("a")
    peer.arrive(writes=False)
    assert peer.rest() <= 0
    while peer.arrive(writes=False) < 0.015:
        pass
    assert peer.rest() == pytest.approx(0.03)
    for _ in range(400):
        peer.arrive(writes=False)
    assert peer.rest() == 0.05


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 0.3), st.booleans(), st.floats(0, 1)), min_size=1, max_size=200
    )
)
def test_turns_taken_in_advance_are_no_more_turns(steps):
    """However many of them are used before the next are taken."""
    clock = Clock()
    peer = Peer(Limits(reads=20, burst=4), Traffic(clock, lambda: 0.0))
    turns, left = [], 0
    for gap, advance, part in steps:
        clock.now += gap
        if advance:
            left = peer.advance(left, 1.0)
            used = round(left * part)
            turns += [clock.now] * used
            left -= used
        else:
            with suppress(LimitExceeded):
                turns.append(clock.now + peer.arrive(writes=False))
    for first in turns:
        assert sum(first <= turn < first + 1 for turn in turns) <= 20 + 4 + 1


def test_who_has_saved_turns_may_have_them_at_once_and_nobody_else(clock, traffic):
    peer = Peer(Limits(reads=64, burst=4), traffic)
    assert peer.advance(0, 1.0) == 4
    assert peer.advance(0, 1.0) == 0
    assert peer.advance(3, 1.0) == 3
    assert peer.arrive(writes=False) == 0
    assert peer.arrive(writes=False) > 0
    clock.now += 3 / 64
    assert peer.advance(0, 1.0) == 1


def test_calls_in_advance_count_for_what_one_costs(clock, traffic):
    peer = Peer(Limits(reads=1_000_000), traffic)
    other = Peer(Limits(), traffic)
    left = 0
    for _ in range(200):
        clock.worked += 32 * 0.00025
        clock.now += 32 * 0.00025
        left = peer.advance(left, 1.0) - 32
    other.arrive(writes=False)
    assert traffic.pace(peer, clock.now) == pytest.approx(1_600, rel=0.1)


def test_who_is_worked_for_and_does_not_call_slows_nobody_down(clock, traffic):
    """A watcher acknowledges what it is sent."""
    writer, watcher = Peer(Limits(), traffic), Peer(Limits(), traffic)
    for _ in range(3_000):
        clock.now += 0.001
        clock.worked += 0.001
        writer.arrive(writes=True)
        watcher.used(0.0001)
    assert traffic.pace(writer, clock.now) == math.inf
    # It pays for what it makes the loop do beside one who calls.
    assert watcher.debt() <= 0
    watcher.used(1.0)
    assert watcher.debt() > 1.0


def test_a_lone_peer_owes_nothing_whenever_it_is_heard(clock, traffic):
    peer = Peer(Limits(), traffic)
    for _ in range(5_000):
        peer.used(0.0009)
        assert peer.debt() <= 0
        peer.arrive(writes=False)
        clock.now += 0.001


def test_turns_that_would_come_too_late_are_not_taken_in_advance(clock, traffic):
    """Or a client that then asks for something else would be refused for what it did not have."""
    slow, fast = (Peer(Limits(reads=reads, burst=32), traffic) for reads in (8, 256))
    assert slow.advance(0, 0.0625) == 0
    assert fast.advance(0, 0.0625) == 16
    assert slow.arrive(writes=False) < 0
    assert fast.arrive(writes=False) < 0
