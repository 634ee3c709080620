"""The end of a turn: everything said in it is done once, in order, and what comes later waits."""

from __future__ import annotations

import asyncio

import pytest
from device_api_transport_h2.lookout import Lookout
from device_api_transport_h2.turn import Turn


async def next_turn():
    await asyncio.sleep(0)


async def test_all_that_was_said_in_a_turn_is_done_at_its_end_in_order():
    done = []
    turn = Turn()
    for name in "abc":
        turn.end_with(lambda name=name: done.append(name))
    assert done == []
    await next_turn()
    assert done == ["a", "b", "c"]
    await next_turn()
    assert done == ["a", "b", "c"]


async def test_what_is_said_at_the_end_of_a_turn_belongs_to_the_next():
    """So that one who always has more to say leaves the loop to others."""
    done = []
    turn = Turn()

    def again():
        done.append("again")
        turn.end_with(again)

    turn.end_with(again)
    asyncio.get_running_loop().call_soon(done.append, "another's")
    for _ in range(3):
        await next_turn()
    assert done == ["again", "another's", "again", "again"]


async def test_one_that_fails_keeps_nobody_else_from_sending():
    done, failures = [], []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: failures.append(context)
    )
    turn = Turn()
    turn.end_with(lambda: done.append("before"))
    turn.end_with(lambda: 1 // 0)
    turn.end_with(lambda: done.append("after"))
    await next_turn()
    assert done == ["before"]
    await next_turn()
    assert done == ["before", "after"]
    [failure] = failures
    assert isinstance(failure["exception"], ZeroDivisionError)


async def test_one_event_wakes_the_loop_once_for_all_watchers(served):
    raws = [await served.raw() for _ in range(20)]
    for raw in raws:
        raw.call(1, "/t.S/Watch", b"initial")
        await raw.message(1)
    loop = asyncio.get_running_loop()
    scheduled = []
    call_soon = loop.call_soon

    def counting(callback, *args, **context):
        scheduled.append(callback)
        return call_soon(callback, *args, **context)

    ends = lambda: [c for c in scheduled if getattr(c, "__func__", None) is Lookout._send]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon", counting)
        served.service.hub.publish(1, b"event")
        assert len(ends()) == 1
        for raw in raws:
            assert await raw.message(1, 2) == [b"initial", b"event"]
        assert len(ends()) == 1
