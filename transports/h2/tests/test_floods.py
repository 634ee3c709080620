"""Clients that cost much and bring little: what they may hold, and that others are served."""

from __future__ import annotations

import asyncio

import pytest
from device_api_transport_h2 import _engine, bounds, line
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from raw import CALM, CANCEL, NO_ERROR, PROTOCOL_ERROR, grpc_frame, headers_of

ECHO, WAIT, WATCH, TALK, HOLD = (
    f"/t.S/{name}" for name in ("Echo", "Wait", "Watch", "Talk", "Hold")
)
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE


async def settled(condition):
    """Let the loop turn until it holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def is_served(client, stream=1):
    client.call(stream, ECHO, b"x")
    assert (await client.answer(stream)).status == "0"


async def is_calmed(raw):
    """The connection ends. Whoever writes without reading may miss the word that says why."""
    last = await raw.end()
    assert last is None or last.error_code == CALM


async def flood(raw, frames, times):
    for _ in range(times):
        raw.say(frames)
        await asyncio.sleep(0)


# --- frames that cost work and bring nothing


def padded(stream):
    frame = DataFrame(stream, b"", flags=["PADDED"])
    frame.pad_length = 0
    return frame.serialize()


async def test_padding_alone_brings_nothing(raw):
    raw.say(raw.headers(1, headers_of(TALK)))
    await flood(raw, padded(1) * 100, 30)
    await is_calmed(raw)


async def test_padding_beside_a_message_is_free_and_its_window_comes_back(served, raw):
    """Every padded byte counts in the peer's window, and ten windows' worth must get through."""
    raw.say(raw.headers(1, headers_of(TALK)))
    frame = DataFrame(1, grpc_frame(b"x"), flags=["PADDED"])
    frame.pad_length = 250
    for _ in range(10):
        raw.say(frame.serialize() * 250)
        await raw.message(1, len(served.service.heard) + 2 * 250)
    raw.say(raw.data(1, b"", "END_STREAM"))
    assert (await raw.answer(1)).status == "0"
    assert len(served.service.heard) == 2_500


async def test_settings_cost_by_their_entries(served, raw):
    """Each entry may move the window of every stream."""
    entries = b"".join(
        WINDOW.to_bytes(2, "big") + (1_000 + n).to_bytes(4, "big") for n in range(32)
    )
    frame = len(entries).to_bytes(3, "big") + b"\4\0" + bytes(4) + entries
    await flood(raw, frame, 45)
    await is_calmed(raw)


async def test_settings_with_too_many_entries(raw):
    entries = (b"\0\x03" + (100).to_bytes(4, "big")) * 33
    raw.say(len(entries).to_bytes(3, "big") + b"\4\0" + bytes(4) + entries)
    await is_calmed(raw)


async def test_a_client_may_change_its_mind_now_and_then(raw):
    for number in range(20):
        raw.say(SettingsFrame(settings={WINDOW: 60_000 + number}))
        await is_served(raw, 2 * number + 1)


@pytest.mark.parametrize("how", ["trailers", "window", "length"])
async def test_breaches_that_make_the_server_reset(served, how):
    """CVE-2025-8671: the streams are opened by the client and reset by the server."""
    raw = await served.raw(window=2**31 - 1)
    for number in range(3_000):
        stream = 2 * number + 1
        fields = headers_of(TALK, content_length="1" if how == "length" else None)
        breach = {
            "trailers": raw.headers(stream, [("a", "b")]).serialize,
            "window": WindowUpdateFrame(stream, 1).serialize,
            "length": DataFrame(stream, b"12", flags=["END_STREAM"]).serialize,
        }[how]
        raw.say(raw.headers(stream, fields), breach())
        if number % 50 == 0:
            await asyncio.sleep(0)
    await is_calmed(raw)
    await settled(lambda: not _engine.held()[0])


async def test_keepalive_at_any_pace_that_clients_choose(served, raw):
    """No more is forbidden than what a flood needs: 200 PINGs a second, 1,000 at once."""
    for _ in range(10):
        raw.say(*(PingFrame(0, number.to_bytes(8, "big")) for number in range(90)))
        answered = 0
        while answered < 90:
            answered += isinstance(await raw.frame(), PingFrame)
    await is_served(raw)


async def test_a_ping_for_each_answer_is_no_flood(served, raw):
    """So grpc-go measures how much may be on its way."""
    for first in range(1, 6_000, 100):
        streams = range(first, first + 100, 2)
        for stream in streams:
            raw.call(stream, ECHO, b"x")
            raw.say(PingFrame(0, stream.to_bytes(8, "big")))
        for stream in streams:
            assert (await raw.answer(stream)).status == "0"
    await is_served(raw, 6_001)


async def test_who_floods_is_ended_with_a_word_in_the_log(served, raw, caplog):
    answered = 0
    while answered < 1_500:
        raw.say(PingFrame(0, answered.to_bytes(8, "big")))
        if not isinstance(await raw.frame(), PingFrame) and raw.goaway:
            break
        answered += 1
    assert 1_000 <= answered < 1_500
    assert raw.goaway.error_code == CALM
    await raw.end()
    [record] = [r for r in caplog.records if r.getMessage() == "connection cut"]
    assert record.outcome == "it sends too much that carries nothing"


@pytest.mark.parametrize(
    "frame",
    [
        WindowUpdateFrame(0, 1).serialize(),
        b"\0\0\0\xfa\0" + bytes(4),
    ],
    ids=["WINDOW_UPDATE", "unknown"],
)
async def test_frames_that_cost_no_more_than_their_bytes(served, raw, frame):
    """They are no flood to us: nothing is answered or kept, and others take turns."""
    other = await served.raw()
    await other.frame()
    raw.say(frame * 20_000)
    await is_served(other)
    await is_served(raw)


async def test_headers_on_a_call_that_is_over(served, raw):
    await is_served(raw)
    other = await served.raw()
    frames = b"".join(raw.headers(1, [("a", "b")], "END_STREAM").serialize() for _ in range(5_000))
    raw.say(frames)
    await is_served(other)
    await is_served(raw, 3)
    await settled(lambda: _engine.held() == (0, 0, 0))


# --- what may be held


async def test_whole_requests_that_are_not_ended_do_not_pile_up(served, raw):
    """A message that is there counts until its request is complete."""
    message = grpc_frame(bytes(100_000))
    for number in range(90):
        raw.say(raw.headers(2 * number + 1, headers_of(ECHO)))
        await raw.upload(2 * number + 1, message, end=False)
    await raw.answer(2 * 85 + 1)
    assert raw.answers[2 * 85 + 1].status == "8"
    assert raw.answers.get(1) is None
    raw.say(raw.data(1, b"", "END_STREAM"))
    raw.credit = True
    assert (await raw.answer(1)).messages == [bytes(100_000)]


async def test_small_messages_that_are_not_taken_do_not_pile_up(served, raw):
    raw.say(*(raw.headers(2 * n + 1, headers_of(HOLD)) for n in range(40)))
    for number in range(40):
        upload = raw.upload(2 * number + 1, grpc_frame(b"") * 13_000, end=False)
        await upload
        if any(a.status for a in raw.answers.values()):
            break
    assert 5 < number < 15
    assert _engine.held()[1] < 8_500_000


async def test_answers_of_an_exchange_that_are_not_read_do_not_pile_up(served, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_UNREAD_BYTES", 200_000)
    raw = await served.raw(window=0)
    ask = grpc_frame(b"\x22\x1cgrpc.health.v1.Health.Check\0"[:30])
    for number in range(60):
        raw.say(raw.headers(2 * number + 1, headers_of(REFLECTION)))
        await raw.upload(2 * number + 1, ask * 200, end=False)
    refused = await raw.answer(119)
    assert (refused.status, refused.text) == (
        "8",
        "too many answers wait to be read on this connection",
    )
    assert _engine.held()[2] < 400_000


async def test_calls_that_never_end_hold_little(served, raw):
    """2,048 are open, and the 2,049th is nobody's fault but its client's."""
    other = await served.raw()
    raw.say(*(raw.headers(2 * n + 1, headers_of(ECHO)) for n in range(2_048)))
    await settled(lambda: _engine.held()[0] == 2_048)
    await is_served(other)
    await settled(lambda: _engine.held()[1:] == (0, 0))
    await raw.close()
    await settled(lambda: _engine.held()[0] == 0)


async def test_a_deadline_ends_a_request_that_does_not(raw):
    raw.say(raw.headers(1, headers_of(ECHO, grpc_timeout="10m")))
    raw.say(raw.data(1, grpc_frame(b"x")[:3]))
    assert (await raw.answer(1)).status == "4"


async def test_idle_connections_make_room_for_new_ones(served):
    """Who holds all connections and does nothing keeps nobody out."""
    await served.listen(tcp_address="127.0.0.1:0", max_connections=3)
    raw, *idle = [await served.raw_tcp() for _ in range(3)]
    raw.say(raw.headers(1, headers_of(TALK)))
    raw.say(raw.data(1, grpc_frame(b"busy")))
    await raw.message(1)
    for client in idle:
        while "ACK" not in (await client.frame()).flags:
            pass
    new = await served.raw_tcp()
    await is_served(new)
    last = await idle[0].end()
    assert (last.error_code, last.last_stream_id) == (NO_ERROR, 0)
    raw.say(raw.data(1, grpc_frame(b"still there"), "END_STREAM"))
    assert (await raw.answer(1)).status == "0"


async def test_a_client_that_stops_reading_is_cut(served, raw, monkeypatch):
    monkeypatch.setattr(line, "_STALLED_SECONDS", 0.05)
    raw.pause()
    raw.say(WindowUpdateFrame(0, 10_000_000))
    for number in range(40):
        raw.call(2 * number + 1, "/t.S/Big", b"60000")
        await asyncio.sleep(0)
    await settled(lambda: not served.listening.connections)
    assert _engine.held() == (0, 0, 0)


async def test_a_client_that_reads_slowly_is_not_cut(served, raw, monkeypatch):
    monkeypatch.setattr(line, "_STALLED_SECONDS", 0.2)
    raw.pause()
    raw.say(WindowUpdateFrame(0, 10_000_000))
    for number in range(12):
        raw.call(2 * number + 1, "/t.S/Big", b"60000")
    await asyncio.sleep(0.05)
    raw.resume()
    for number in range(12):
        assert (await raw.answer(2 * number + 1)).status == "0"
    await asyncio.sleep(0.25)
    await is_served(raw, 101)


# --- a request that was refused changes nothing


async def test_two_messages_in_one_go_run_nothing(served, raw):
    raw.say(raw.headers(1, headers_of(WAIT)))
    raw.say(raw.data(1, grpc_frame(b"first") + grpc_frame(b"second"), "END_STREAM"))
    assert (await raw.answer(1)).status == "13"
    assert served.service.heard == []


async def test_a_path_above_the_limit(raw):
    raw.say(raw.headers(1, headers_of("/" + "x" * 17_000)), raw.data(1, b"", "END_STREAM"))
    answer = await raw.answer(1)
    assert (answer.status, answer.text) == ("8", "the request's metadata is too large")
    await is_served(raw, 3)


async def test_trailers_above_the_limit(served, raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, grpc_frame(b"x")))
    block = raw.encoder.encode([("a", "x" * 15_000), ("b", "y" * 15_000)])
    raw.say(HeadersFrame(1, block[:16_000], flags=["END_STREAM"]))
    raw.say(
        (len(block) - 16_000).to_bytes(3, "big") + b"\x09\x04\0\0\0\1" + block[16_000:],
    )
    await raw.answer(1)
    await is_served(raw, 3)


# --- half-closed calls (RFC 9113, 5.1)


async def test_a_call_whose_request_has_ended_may_be_cancelled(served, raw):
    raw.call(1, WATCH, b"x")
    await raw.message(1)
    raw.say(RstStreamFrame(1, CANCEL))
    await settled(lambda: served.service.hub.active == 0)
    await is_served(raw, 3)


async def test_window_updates_and_priorities_reach_a_half_closed_call(served):
    raw = await served.raw(window=0)
    raw.call(1, ECHO, b"x")
    raw.say(WindowUpdateFrame(1, 5), b"\0\0\5\2\0\0\0\0\1" + bytes(5), WindowUpdateFrame(1, 5))
    assert (await raw.answer(1)).messages == [b"x"]


async def test_frames_that_cross_the_end_of_a_call_are_ignored(raw):
    """The client could not know yet."""
    await is_served(raw)
    raw.say(WindowUpdateFrame(1, 5), RstStreamFrame(1, CANCEL))
    await is_served(raw, 3)


async def test_data_for_a_call_that_was_answered_early_returns_to_the_window(raw):
    """What is thrown away is given back, or the connection would starve."""
    for number in range(10):
        stream = 2 * number + 1
        raw.say(raw.headers(stream, headers_of("/t.S/None")))
        await raw.upload(stream, bytes(30_000), end=False)
        assert (await raw.answer(stream)).status == "12"
    await is_served(raw, 101)


async def test_headers_in_the_middle_of_a_call_end_it_alone(raw):
    raw.say(raw.headers(1, headers_of(TALK)), raw.headers(3, headers_of(TALK)))
    raw.say(raw.headers(1, headers_of(TALK)), raw.data(3, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).reset == PROTOCOL_ERROR
    assert (await raw.answer(3)).status == "0"
