"""What one client may ask for beside the others: a process at a unix socket, or a connection."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hyperframe.frame import PingFrame, RstStreamFrame
from raw import CANCEL, Raw, grpc_frame, headers_of

from device_api_core.server.limits import Limiter, Limits
from device_api_core.server.traffic import Traffic

ECHO, WAIT, WATCH, TALK = (f"/t.S/{name}" for name in ("Echo", "Wait", "Watch", "Talk"))
BOTH = {"tcp_address": "127.0.0.1:0"}


async def settled(condition):
    """Let the loop turn until it holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def refused(raw, stream, reason):
    answer = await raw.answer(stream)
    assert (answer.status, answer.headers["device-api-reason"]) == ("8", reason)


async def test_a_request_above_the_faces_limit_is_refused_at_its_first_bytes(served):
    await served.listen(max_request_bytes=100)
    raw = await served.raw()
    raw.call(1, ECHO, bytes(100))
    assert (await raw.answer(1)).status == "0"
    raw.say(raw.headers(3, headers_of(ECHO)), raw.data(3, grpc_frame(bytes(101))[:5]))
    assert (await raw.answer(3)).status == "8"
    raw.call(5, ECHO, b"unharmed")
    assert (await raw.answer(5)).messages == [b"unharmed"]


async def test_connections_of_a_process_have_one_account(served):
    await served.listen(**BOTH, limiter=Limiter(Limits(calls=1)))
    first, second, other = await served.raw(), await served.raw(), await served.raw_tcp()
    for raw in (first, second):
        for stream in (1, 3):
            raw.call(stream, WAIT, b"x")
    await settled(lambda: served.service.waiting == 4)
    second.call(5, ECHO, b"one too many")
    await refused(second, 5, "rate")
    other.call(1, ECHO, b"of somebody else")
    assert (await other.answer(1)).status == "0"
    first.say(RstStreamFrame(1, CANCEL))
    await settled(lambda: served.service.waiting == 3)
    first.call(5, ECHO, b"there is room again")
    assert (await first.answer(5)).status == "0"


@pytest.mark.parametrize("path", [WATCH, TALK])
async def test_streams_of_a_client_are_counted_and_given_back(served, path):
    await served.listen(**BOTH, limiter=Limiter(Limits(streams=2)))
    raw, other = await served.raw_tcp(), await served.raw_tcp()
    for stream in (1, 3):
        raw.say(raw.headers(stream, headers_of(path)))
        raw.say(raw.data(stream, grpc_frame(b"x"), *(["END_STREAM"] if path == WATCH else [])))
        await raw.message(stream)
    raw.call(5, WATCH, b"x")
    await refused(raw, 5, "watcher-limit")
    raw.call(7, TALK, b"x")
    await refused(raw, 7, "watcher-limit")
    other.call(1, WATCH, b"x")
    assert await other.message(1) == [b"x"]
    raw.say(RstStreamFrame(1, CANCEL))
    await settled(lambda: served.service.ended or served.service.hub.active == 2)
    raw.call(9, WATCH, b"x")
    assert await raw.message(9) == [b"x"]


def of(raw: Raw, stream: int, *, body: bytes = grpc_frame(b"x"), **headers: str) -> None:
    path = headers.pop("path", ECHO)
    raw.say(raw.headers(stream, headers_of(path, **headers)), raw.data(stream, body, "END_STREAM"))


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"path": WATCH},
        {"path": TALK},
        {"path": "/t.S/None"},
        {"method": "GET"},
        {"content_type": "text/plain"},
        {"grpc_encoding": "gzip"},
        {"grpc_timeout": "soon"},
        {"body": b""},
        {"body": grpc_frame(b"x", 1)},
        {"body": b"\0\xff\xff\xff\xff"},
        {"body": grpc_frame(b"x") * 2},
    ],
)
async def test_everything_that_is_answered_waits_for_its_turn(served, what):
    limiter = Limiter(Limits(reads=10, burst=1))
    await served.listen(limiter=limiter)
    raw = await served.raw()
    for stream in range(1, 7, 2):
        of(raw, stream)
    began = time.monotonic()
    of(raw, 7, **what)
    await (raw.message(7) if what == {"path": WATCH} else raw.answer(7))
    assert time.monotonic() - began > 0.15
    for stream in range(9, 151, 2):
        of(raw, stream)
    # A turn comes now and then, so that one of them may have it.
    for stream in range(151, 171, 2):
        of(raw, stream, **what)
    refusals = {"grpc-status": "8", "device-api-reason": "rate"}.items()
    while not any(a.headers.items() >= refusals for s, a in raw.answers.items() if s > 150):
        assert await raw.frame() is not None


async def test_who_waits_for_its_turn_is_heard_all_the_same(served):
    await served.listen(limiter=Limiter(Limits(reads=1, burst=1)))
    raw = await served.raw()
    for stream in range(1, 15, 2):
        of(raw, stream)
    raw.say(PingFrame(opaque_data=b"are you?"))
    async with asyncio.timeout(2):
        while not isinstance(frame := await raw.frame(), PingFrame):
            assert frame is not None
    assert len([a for a in raw.answers.values() if a.over]) < 6


async def test_who_leaves_while_it_waits_for_its_turn_gives_its_place_back(served):
    limiter = Limiter(Limits(reads=1, burst=1))
    await served.listen(limiter=limiter)
    raw = await served.raw()
    for stream in range(1, 7, 2):
        of(raw, stream)
    of(raw, 7, path=WATCH)
    await raw.answer(1)
    account = limiter.process(os.getpid())
    await settled(lambda: (account.calls, account.streams) == (2, 1))
    await raw.close()
    await settled(lambda: (account.calls, account.streams) == (0, 0))


async def test_a_process_has_half_of_the_connections_at_most(served, caplog):
    await served.listen(**BOTH, max_connections=8)
    own = [await served.raw() for _ in range(6)]
    own[-1].call(1, ECHO, b"x")
    assert (await own[-1].answer(1)).status == "0"
    await (await served.raw()).end()
    assert [r.outcome for r in caplog.records if r.msg == "connections refused"] == [
        "its process has too many"
    ]
    others = [await served.raw_tcp() for _ in range(2)]
    for other in others:
        other.call(1, ECHO, b"x")
        assert (await other.answer(1)).status == "0"


class Slow(Traffic):
    """Whose loop takes a tenth of a second for everything."""

    def charge(self, peer, seconds):
        peer.paid_until = max(peer.paid_until, self.clock()) + 0.1


async def test_who_has_had_its_part_is_not_heard_for_a_while(served):
    """Over all its connections, each of which goes on."""
    began = time.monotonic()
    await served.listen(limiter=Limiter(traffic=Slow()))
    both = [await served.raw() for _ in range(2)]
    for stream in (1, 3, 5):
        for raw in both:
            raw.call(stream, ECHO, b"x")
        for raw in both:
            assert (await raw.answer(stream)).status == "0"
    # Two arrivals and six requests, of which nobody waits for the last.
    assert time.monotonic() - began > 0.7
