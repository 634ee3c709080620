"""Leases: silence is noticed once, and only silence. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.errors import LimitExceeded
from device_api_core.leases import MAX_PROVIDERS, Leases


def leases_on(loop, lost, gone_seconds=0.0):
    return Leases(
        monotonic=loop.monotonic,
        wall=loop.wall,
        expired=lambda id_: lost.append((id_, round(loop.monotonic() - 1_000, 3))),
        gone=lambda id_: lost.append((f"{id_} for good", round(loop.monotonic() - 1_000, 3))),
        gone_seconds=gone_seconds,
    )


@pytest.fixture
def lost():
    return []


@pytest.fixture
def on(virtual_loop, lost):
    def run(scenario):
        return virtual_loop.run_until_complete(scenario(leases_on(virtual_loop, lost)))

    return run


def test_a_silent_provider_is_lost_when_its_lease_ends_and_once(on, lost):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(29.9)
        assert not leases.get("a").lapsed
        await asyncio.sleep(1_000)
        assert leases.get("a").lapsed

    on(scenario)
    assert lost == [("a", 30)]


def test_silence_is_measured_from_the_last_sign_of_life(on):
    async def scenario(leases):
        assert leases.silence("a") is None
        leases.heard("a")
        await asyncio.sleep(7)
        assert leases.silence("a") == pytest.approx(7)
        leases.heard("a")
        assert leases.silence("a") == 0

    on(scenario)


def test_any_sign_of_life_renews_the_lease(on, lost):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        for _ in range(10):
            await asyncio.sleep(29)
            leases.heard("a")
        await asyncio.sleep(1_000)

    on(scenario)
    assert lost == [("a", 320)]


def test_a_writer_without_a_lease_is_never_lost(on, lost):
    async def scenario(leases):
        leases.heard("a")
        await asyncio.sleep(10_000)
        assert leases.get("a").lease_seconds is None

    on(scenario)
    assert lost == []


def test_a_lost_provider_that_is_heard_again_can_be_lost_again(on, lost):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(100)
        assert not leases.heard("a").lapsed
        await asyncio.sleep(100)

    on(scenario)
    assert lost == [("a", 30), ("a", 130)]


@pytest.mark.parametrize(("changed", "lost_at"), [(10, 15), (60, 65)])
def test_a_lease_can_be_made_shorter_or_longer(on, lost, changed, lost_at):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(5)
        leases.heard("a", lease_seconds=changed)
        await asyncio.sleep(100)

    on(scenario)
    assert lost == [("a", lost_at)]


@pytest.mark.parametrize("end", ["end", "forget"])
def test_an_ended_lease_does_not_lapse(on, lost, end):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        getattr(leases, end)("a")
        getattr(leases, end)("never heard of")
        await asyncio.sleep(100)
        assert (leases.get("a") is None) == (end == "forget")

    on(scenario)
    assert lost == []


def test_a_sign_of_life_is_noted_on_both_clocks(on):
    async def scenario(leases):
        await asyncio.sleep(7)
        sign = leases.heard("a")
        assert (sign.heard, sign.heard_at) == (1_007, 1_700_000_007_000_000_000)
        assert leases.signs == (sign,)
        assert repr(leases) == "<Leases of ['a']>"

    on(scenario)


def test_the_wall_clock_does_not_matter(virtual_loop, lost):
    async def scenario():
        leases = Leases(
            monotonic=virtual_loop.time, wall=lambda: -1, expired=lost.append, gone=lost.append
        )
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(29)
        assert lost == []

    virtual_loop.run_until_complete(scenario())


def test_provider_ids_are_limited_and_forgetting_makes_room(on):
    async def scenario(leases):
        for i in range(MAX_PROVIDERS):
            leases.require_room(str(i))
            leases.heard(str(i))
        leases.require_room("0")
        with pytest.raises(LimitExceeded, match="256 provider ids are in use"):
            leases.require_room("one more")
        leases.forget("7")
        leases.require_room("one more")

    on(scenario)


def test_a_busy_provider_costs_no_timer_per_write(virtual_loop, lost):
    async def scenario():
        leases = leases_on(virtual_loop, lost)
        for _ in range(1_000):
            leases.heard("a", lease_seconds=30)
        return len(virtual_loop._scheduled)

    assert virtual_loop.run_until_complete(scenario()) == 1


@given(gaps=st.lists(st.sampled_from((0.5, 29.0, 31.0, 45.0, 90.0)), max_size=12))
def test_a_provider_is_lost_once_in_each_silence_longer_than_its_lease(loop_type, gaps):
    loop, lost = loop_type(), []

    async def scenario():
        leases = leases_on(loop, lost)
        for gap in gaps:
            leases.heard("a", lease_seconds=30)
            await asyncio.sleep(gap)
        leases.forget("a")

    loop.run_until_complete(scenario())
    loop.close()
    began, expected = 0.0, []
    for gap in gaps:
        if gap > 30:
            expected.append(("a", round(began + 30, 3)))
        began += gap
    assert lost == expected


def on_with(virtual_loop, lost, scenario):
    virtual_loop.run_until_complete(scenario(leases_on(virtual_loop, lost, gone_seconds=1_000)))


def test_who_stays_lost_is_gone_for_good_until_it_is_forgotten(virtual_loop, lost):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(2_500)
        assert leases.get("a").lapsed
        leases.forget("a")
        await asyncio.sleep(5_000)

    on_with(virtual_loop, lost, scenario)
    assert lost == [("a", 30), ("a for good", 1_030), ("a for good", 2_030)]


def test_who_comes_back_in_time_is_not_gone_and_has_its_lease_again(virtual_loop, lost):
    async def scenario(leases):
        leases.heard("a", lease_seconds=30)
        await asyncio.sleep(1_029)
        leases.heard("a")
        await asyncio.sleep(1_029)
        leases.forget("a")
        await asyncio.sleep(5_000)

    on_with(virtual_loop, lost, scenario)
    assert lost == [("a", 30), ("a", 1_059)]


def test_who_is_only_known_from_before_a_restart_is_awaited_as_long(virtual_loop, lost):
    async def scenario(leases):
        leases.remember("a")
        leases.remember("b")
        sign = leases.get("a")
        assert (sign.lapsed, sign.heard_at, leases.left_seconds(sign)) == (True, None, None)
        await asyncio.sleep(999)
        assert leases.heard("b").heard_at is not None
        await asyncio.sleep(900)

    on_with(virtual_loop, lost, scenario)
    assert lost == [("a for good", 1_000)]


def test_what_is_left_of_a_lease_is_told(on):
    async def scenario(leases):
        sign = leases.heard("a", lease_seconds=30)
        await asyncio.sleep(10)
        assert leases.left_seconds(sign) == 20
        await asyncio.sleep(30)
        assert leases.left_seconds(sign) == 0
        assert leases.left_seconds(leases.heard("without")) is None

    on(scenario)
