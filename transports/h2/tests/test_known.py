"""What is known is answered without asking, and changes nothing but the cost."""

from __future__ import annotations

import asyncio
import time

import pytest
from device_api_transport_h2 import _engine, bounds
from device_api_transport_h2.accounts import GRANT_SECONDS, Accounts
from device_api_transport_h2.connection import Connection
from hyperframe.frame import WindowUpdateFrame
from raw import grpc_frame, headers_of

from device_api_core.server.limits import Limiter, Limits

KNOWN, WATCH, ECHO = "/t.S/Known", "/t.S/Watch", "/t.S/Echo"


async def ask(raw, stream, message=b"x"):
    raw.call(stream, KNOWN, message)
    return await raw.answer(stream)


async def test_what_is_known_is_not_asked_again(served, raw):
    for stream in (1, 3, 5):
        answer = await ask(raw, stream)
        assert answer.headers[":status"] == "200"
        assert answer.headers["content-type"] == "application/grpc"
        assert (answer.messages, answer.status, answer.reset) == ([b"x"], "0", None)
    assert served.service.asked == [b"x"]


async def test_what_is_no_longer_known_is_asked(served, raw):
    await ask(raw, 1)
    served.service.known.clear()
    await ask(raw, 3)
    await ask(raw, 5)
    assert served.service.asked == [b"x", b"x"]


async def test_calls_are_counted_and_timed_whoever_answers(served, raw):
    for stream in range(1, 41, 2):
        await ask(raw, stream)
    [calls] = [c for c in served.metrics.all_calls if c.method == "Known"]
    assert len(served.service.asked) < 3
    assert (calls.started, calls.codes, calls.durations.count) == (20, {"OK": 20}, 20)
    assert 0 < calls.durations.seconds < 10


@pytest.mark.parametrize(
    ("changed", "status", "asked"),
    [
        ({"grpc_timeout": "1S"}, "0", False),
        ({"grpc_encoding": "identity"}, "0", False),
        ({"content_type": "application/grpc+proto"}, "0", False),
        ({"content_type": "application/grpc+thrift"}, "0", True),
        ({"grpc_encoding": "gzip"}, "12", False),
        ({"grpc_timeout": "soon"}, "13", False),
        ({"method": "PUT"}, None, False),
        ({"path": "/t.S/Unknown"}, "12", False),
    ],
)
async def test_a_request_is_looked_at_as_any_other(served, raw, changed, status, asked):
    await ask(raw, 1)
    raw.say(
        raw.headers(3, headers_of(KNOWN, **changed)), raw.data(3, grpc_frame(b"x"), "END_STREAM")
    )
    assert (await raw.answer(3)).status == status
    assert len(served.service.asked) == 1 + asked


async def test_calls_of_one_packet_are_all_answered(served, raw):
    await ask(raw, 1)
    streams = range(3, 163, 2)
    raw.say(
        *(
            frame
            for stream in streams
            for frame in (
                raw.headers(stream, headers_of(KNOWN)),
                raw.data(stream, grpc_frame(b"x"), "END_STREAM"),
            )
        )
    )
    for stream in streams:
        assert (await raw.answer(stream)).messages == [b"x"]


async def test_what_is_known_has_its_turn_like_any_read(served):
    await served.listen(limiter=Limiter(Limits(reads=100, burst=8)))
    raw = await served.raw()
    began = time.monotonic()
    for stream in range(1, 81, 2):
        assert (await ask(raw, stream)).status == "0"
    assert time.monotonic() - began > (40 - 8 - 1) / 100


async def test_turns_in_advance_are_not_kept_for_long(served, raw):
    """So that a client which calls now and then is seen by the others' paces."""
    await ask(raw, 1)
    await asyncio.sleep(GRANT_SECONDS)
    await ask(raw, 3)
    assert len(served.service.asked) == 2


async def test_known_answers_that_are_not_read_do_not_pile_up(served, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_UNREAD_BYTES", 50_000)
    raw = await served.raw(window=0)
    message = bytes(10_000)
    for stream in range(1, 21, 2):
        raw.call(stream, KNOWN, message)
    refused = [await raw.answer(stream) for stream in (15, 17, 19)]
    assert [answer.status for answer in refused] == ["8", "8", "8"]
    assert _engine.held()[2] < 70_000


async def test_a_watch_goes_on_when_its_client_makes_room(served):
    """Also for what waits in its own queue, which nothing but the window held back."""
    raw = await served.raw(window=70_000)
    raw.credit = False
    raw.call(1, WATCH, b"initial")
    await raw.message(1)
    events = [b"%d" % number + bytes(8_000) for number in range(40)]
    for number, event in enumerate(events):
        served.service.hub.publish(number + 1, event)
    assert served.service.hub.deepest_queue > 0
    got = 1
    while got < 41:
        raw.say(WindowUpdateFrame(1, window_increment=20_000))
        raw.say(WindowUpdateFrame(0, window_increment=20_000))
        got = len(await raw.message(1, got + 1))
    assert (await raw.message(1, 41))[1:] == events


async def test_a_defect_at_one_connection_ends_it_and_no_other(served, monkeypatch, caplog):
    bad, good = await served.raw(), await served.raw()
    for raw in (bad, good):
        raw.call(1, ECHO, b"x")
        await raw.answer(1)
    [first, _] = served.listening._connections

    def fail(self, what, value):
        if self is first:
            raise RuntimeError("a defect")
        return told(self, what, value)

    told = Connection.told
    monkeypatch.setattr(Connection, "told", fail)
    for raw in (bad, good):
        raw.call(3, ECHO, b"y")
    assert (await good.answer(3)).messages == [b"y"]
    await bad.end()
    [record] = [r for r in caplog.records if r.exc_info]
    assert "could not be dealt with" in record.getMessage()
    caplog.clear()


def test_a_process_has_one_account_as_long_as_it_is_connected():
    accounts = Accounts()
    first = accounts.join(7)
    assert accounts.join(7) is first
    assert accounts.join(8) is not first
    assert accounts.join(0) is not accounts.join(0)
    accounts.leave(7)
    assert accounts.join(7) is first
    for pid in (7, 7, 8, 0, 0):
        accounts.leave(pid)
    assert len(accounts) == 0
