"""The watch hub: waiting and slow readers, bookmarks, shutdown. Histories are in test_cache."""

from __future__ import annotations

import asyncio

import pytest

from device_api_core.errors import LimitExceeded, Unavailable, WatchExpired
from device_api_core.watch import SLOW_WATCHER, WatchHub


def hub_of(loop=None, **options):
    if loop is not None:
        options["clock"] = loop.time
    return WatchHub(10, encode_bookmark=lambda v: b"bookmark %d" % v, **options)


async def all_of(subscription, seconds=0.001):
    """Everything that comes until nothing has come for a while."""
    frames = []
    while True:
        try:
            async with asyncio.timeout(seconds):
                frames.append(await subscription.next())
        except TimeoutError:
            return frames


async def test_a_waiting_reader_gets_the_event_when_it_is_published():
    hub = hub_of()
    subscription = hub.subscribe([])
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not reader.done()
    hub.publish(11, b"event")
    assert await reader == b"event"


def test_events_are_timed_from_their_change_to_their_reader(virtual_loop):
    async def scenario():
        hub = hub_of(virtual_loop, bookmark_seconds=5)
        late, prompt = hub.subscribe([b"initial"]), hub.subscribe([], bookmarks=True)
        hub.publish(11, b"event")
        assert await prompt.next() == b"event"
        await asyncio.sleep(1)
        hub.publish(12, b"event")
        await asyncio.sleep(1)
        assert len(await all_of(late)) == 3
        await prompt.next()
        assert hub.deliveries.count == 4
        assert hub.deliveries.seconds == pytest.approx(2 + 1 + 1, abs=0.01)
        # Neither what a watch begins with nor a bookmark is a change.
        assert await prompt.next() == b"bookmark 12"
        assert hub.deliveries.count == 4

    virtual_loop.run_until_complete(scenario())


async def test_a_reader_that_gives_up_loses_nothing():
    hub = hub_of()
    subscription = hub.subscribe([])
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    reader.cancel()
    hub.publish(11, b"event")
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await subscription.next() == b"event"


async def test_the_initial_state_comes_first_and_does_not_count_against_the_queue():
    hub = hub_of(queue_events=2)
    subscription = hub.subscribe([b"a", b"b", b"c"])
    for version in (11, 12):
        hub.publish(version, b"%d" % version)
    assert subscription.queued == hub.deepest_queue == 5
    assert await all_of(subscription) == [b"a", b"b", b"c", b"11", b"12"]


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_full_queue_ends_the_watch_at_once_and_frees_it(limit):
    hub = hub_of(queue_events=limit)
    slow, quick = hub.subscribe([b"initial"]), hub.subscribe([])
    told = []
    slow.on_end = lambda: told.append((slow.queued, hub.active))
    for version in range(limit):
        hub.publish(version, b"event")
        await quick.next()
    assert slow.error is None
    hub.publish(99, b"one too many")
    assert told == [(0, 1)], "the slot and the queue are free before anybody is told"
    assert hub.ended_slow == 1
    with pytest.raises(LimitExceeded, match="fell .* behind") as caught:
        await slow.next()
    assert caught.value.reason == SLOW_WATCHER
    assert await quick.next() == b"one too many"
    slow.close()


async def test_ending_one_watch_may_close_others():
    hub = hub_of(queue_events=1)
    first, second, third = (hub.subscribe([]) for _ in range(3))

    def connection_lost():
        second.close()

    first.on_end = connection_lost
    hub.publish(11, b"a")
    await third.next()
    hub.publish(12, b"b")
    assert hub.active == 1
    assert await third.next() == b"b"


async def test_a_waiting_reader_is_told_of_the_shutdown():
    hub = hub_of()
    subscription = hub.subscribe([])
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    hub.close(Unavailable("shutting down"))
    with pytest.raises(Unavailable):
        await reader
    for _ in range(50):
        with pytest.raises(Unavailable) as caught:
            hub.subscribe([])
    assert len(caught.traceback) < 10, "a shared error does not collect tracebacks"
    assert hub.active == 0


async def test_watches_are_limited_and_a_closed_one_makes_room():
    hub = hub_of(max_watches=2)
    first, _second = hub.subscribe([]), hub.subscribe([])
    with pytest.raises(LimitExceeded, match="all 2 watches are in use"):
        hub.subscribe([])
    first.close()
    hub.subscribe([])
    assert hub.active == 2


def test_the_history_is_limited_in_events():
    hub = hub_of(history_events=3)
    for version in range(11, 16):
        hub.publish(version, b"%d" % version)
    assert hub.subscribe([], since=12).queued == 3
    with pytest.raises(WatchExpired, match="version 11 is older than the event history"):
        hub.subscribe([], since=11)
    with pytest.raises(WatchExpired, match="version 16 is newer than this server's 15"):
        hub.subscribe([], since=16)


def test_the_history_is_limited_in_bytes():
    hub = hub_of(history_bytes=100)
    for version in range(11, 14):
        hub.publish(version, b"x" * 50)
    assert hub.subscribe([], since=11).queued == 2
    with pytest.raises(WatchExpired):
        hub.subscribe([], since=10)
    hub.publish(14, b"x" * 101)
    with pytest.raises(WatchExpired):
        hub.subscribe([], since=13)
    assert hub.subscribe([], since=14).queued == 0


def test_before_the_first_event_the_starting_version_can_be_resumed():
    hub = hub_of()
    assert hub.subscribe([], since=10).queued == 0
    with pytest.raises(WatchExpired):
        hub.subscribe([], since=9)


def test_no_bookmark_comes_unasked(virtual_loop):
    async def scenario():
        subscription = hub_of(virtual_loop).subscribe([])
        return await all_of(subscription, 1_000)

    assert virtual_loop.run_until_complete(scenario()) == []


def test_a_bookmark_comes_after_each_silence(virtual_loop):
    async def scenario():
        hub = hub_of(virtual_loop)
        subscription = hub.subscribe([], bookmarks=True)
        began = virtual_loop.time()
        times = []
        virtual_loop.call_later(20, hub.publish, 11, b"event")
        for _ in range(4):
            frame = await subscription.next()
            times.append((frame, round(virtual_loop.time() - began)))
        subscription.close()
        return times

    assert virtual_loop.run_until_complete(scenario()) == [
        (b"event", 20),
        (b"bookmark 11", 50),
        (b"bookmark 11", 80),
        (b"bookmark 11", 110),
    ]


def test_a_client_that_does_not_read_gets_no_pile_of_bookmarks(virtual_loop):
    async def scenario():
        subscription = hub_of(virtual_loop).subscribe([b"initial"], bookmarks=True)
        await asyncio.sleep(1_000)
        queued = subscription.queued
        subscription.close()
        return queued

    assert virtual_loop.run_until_complete(scenario()) == 1


async def test_the_initial_state_ends_with_a_bookmark_if_asked():
    hub = hub_of()
    subscription = hub.subscribe([b"a"], bookmarks=True, bookmark_initial=True)
    hub.publish(11, b"event")
    assert await all_of(subscription) == [b"a", b"bookmark 10", b"event"]
    subscription.close()


def test_a_closed_watch_leaves_no_timer(virtual_loop):
    async def pending():
        hub = hub_of(virtual_loop)
        hub.subscribe([], bookmarks=True).close()
        other = hub_of(virtual_loop)
        other.subscribe([], bookmarks=True)
        other.close(Unavailable("bye"))

    virtual_loop.run_until_complete(pending())
    # A timer that was left would fire for ever.
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        virtual_loop.run_until_complete(asyncio.Event().wait())


async def test_a_subscription_shows_what_matters():
    hub = hub_of()
    subscription = hub.subscribe([b"a"])
    assert repr(subscription) == "<Subscription 1 queued, error=None>"
    assert repr(hub) == "<WatchHub version=10 watchers=1>"
