"""RFC 9113, section by section, in raw frames. What a rule leaves open is what libnghttp2 does."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from raw import (
    CALM,
    CANCEL,
    COMPRESSION_ERROR,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Answer,
    grpc_frame,
    headers_of,
)

ECHO, WATCH, TALK, HOLD = (f"/t.S/{name}" for name in ("Echo", "Watch", "Talk", "Hold"))


def bare(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Any frame, as bytes."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


async def lives(raw, stream=101):
    """The connection still serves."""
    raw.call(stream, ECHO, b"alive")
    assert (await raw.answer(stream)).messages == [b"alive"]


async def dies(raw, *codes):
    """The connection ends, and its GOAWAY says why."""
    last = await raw.end()
    assert last is not None
    assert last.error_code in codes


async def is_calmed(raw):
    """The connection ends. Whoever writes without reading may miss the word that says why."""
    last = await raw.end()
    assert last is None or last.error_code == CALM


# --- 3.4 and 4: preface and frames


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n\r\n" * 2, b"\0" * 64, PREFACE[:-1] + b"x"]
)
async def test_another_preface_ends_the_connection(served, greeting):
    raw = await served.raw(greet=False)
    raw.say(greeting)
    await raw.end()


async def test_the_preface_must_be_followed_by_settings(served):
    raw = await served.raw(greet=False)
    raw.say(PREFACE, PingFrame(0, b"12345678"))
    await dies(raw, PROTOCOL_ERROR)


async def test_the_server_states_its_limits_and_acknowledges_ours(raw):
    while (frame := await raw.frame()) is None or "ACK" not in frame.flags:
        pass
    assert isinstance(frame, SettingsFrame)
    assert raw.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 2_048
    assert raw.settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 16_384


async def test_a_frame_of_an_unknown_kind_is_ignored(raw):
    raw.say(bare(0xFA, 0xFF, 0, b"whatever"), bare(0xEE, 3, 1, b""))
    await lives(raw)


async def test_a_frame_above_the_size_limit(raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, bytes(16_385)))
    await dies(raw, FRAME_SIZE_ERROR)


async def test_headers_that_cannot_be_decompressed(raw):
    raw.say(bare(1, 0x5, 1, b"\xff\xff\xff\xff\xff\xff"))
    await dies(raw, COMPRESSION_ERROR)


# --- 5: streams


@pytest.mark.parametrize(
    "frame", [DataFrame(1, b"x"), RstStreamFrame(1, CANCEL), WindowUpdateFrame(1, 1)]
)
async def test_a_frame_on_an_idle_stream(raw, frame):
    raw.say(frame)
    await dies(raw, PROTOCOL_ERROR)


@pytest.mark.parametrize("stream", [2, 4])
async def test_a_stream_with_the_servers_numbers(raw, stream):
    raw.say(raw.headers(stream, headers_of(ECHO)))
    await dies(raw, PROTOCOL_ERROR)


async def test_a_stream_number_below_the_last_is_no_new_call(served, raw):
    raw.call(5, ECHO, b"x")
    await raw.answer(5)
    raw.call(3, WATCH, b"x")
    await lives(raw)
    assert served.service.hub.active == 0
    assert 3 not in raw.answers


async def test_data_after_the_end_of_the_request(served, raw):
    raw.call(1, WATCH, b"x")
    await raw.message(1)
    raw.say(raw.data(1, b"more"))
    # A stream error by the RFC; the connection may be ended for it too.
    await dies(raw, STREAM_CLOSED)
    assert served.service.hub.active == 0


async def test_streams_above_the_limit_end_the_connection(served, raw):
    await raw.frame()
    limit = raw.settings[SettingsFrame.MAX_CONCURRENT_STREAMS]
    for number in range(limit):
        raw.say(raw.headers(2 * number + 1, headers_of(ECHO)))
    raw.say(RstStreamFrame(1, CANCEL))
    await lives(raw, 2 * limit + 1)  # one that ended has made room
    raw.say(raw.headers(2 * limit + 3, headers_of(ECHO)))
    raw.say(raw.headers(2 * limit + 5, headers_of(ECHO)))
    await dies(raw, PROTOCOL_ERROR, REFUSED_STREAM)


async def test_priorities_are_ignored(raw):
    raw.say(PriorityFrame(9, depends_on=1, stream_weight=200))
    frame = raw.headers(1, headers_of(ECHO), "PRIORITY")
    frame.depends_on, frame.stream_weight = 7, 3
    raw.say(frame, raw.data(1, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).status == "0"


# --- 6: the kinds of frames


@pytest.mark.parametrize(
    "frame",
    [
        bare(0, 0, 0, b"x"),  # DATA
        bare(1, 0x4, 0, b""),  # HEADERS
        bare(2, 0, 0, bytes(5)),  # PRIORITY
        bare(3, 0, 0, bytes(4)),  # RST_STREAM
        bare(4, 0, 1, b""),  # SETTINGS
        bare(6, 0, 1, bytes(8)),  # PING
        bare(7, 0, 1, bytes(8)),  # GOAWAY
        bare(9, 0x4, 0, b""),  # CONTINUATION
    ],
    ids=lambda f: f"kind {f[3]}",
)
async def test_a_frame_on_a_stream_that_it_does_not_belong_to(raw, frame):
    raw.say(frame)
    await dies(raw, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "frame",
    [
        bare(3, 0, 1, bytes(3)),
        bare(4, 0, 0, bytes(5)),
        bare(4, 1, 0, bytes(6)),
        bare(6, 0, 0, bytes(7)),
        bare(7, 0, 0, bytes(7)),
        bare(8, 0, 0, bytes(3)),
    ],
    ids=lambda f: f"kind {f[3]}",
)
async def test_a_frame_of_the_wrong_size(raw, frame):
    raw.say(raw.headers(1, headers_of(TALK)), frame)
    await dies(raw, FRAME_SIZE_ERROR)


@pytest.mark.parametrize("kind", [0, 1])
async def test_more_padding_than_frame(raw, kind):
    raw.say(raw.headers(1, headers_of(TALK)))
    raw.say(bare(kind, 0x8 | 0x4, 1 if kind == 0 else 3, b"\x05abc"))
    await dies(raw, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        (SettingsFrame.ENABLE_PUSH, 2, PROTOCOL_ERROR),
        (SettingsFrame.INITIAL_WINDOW_SIZE, 2**31, FLOW_CONTROL_ERROR),
        (SettingsFrame.MAX_FRAME_SIZE, 16_383, PROTOCOL_ERROR),
        (SettingsFrame.MAX_FRAME_SIZE, 2**24, PROTOCOL_ERROR),
    ],
)
async def test_a_setting_that_cannot_be(raw, setting, value, code):
    raw.say(bare(4, 0, 0, setting.to_bytes(2, "big") + value.to_bytes(4, "big")))
    await dies(raw, code)


async def test_an_unknown_setting_is_ignored(raw):
    raw.say(bare(4, 0, 0, b"\xaa\xaa\0\0\0\1"))
    await lives(raw)


async def test_a_client_may_not_push(raw):
    frame = PushPromiseFrame(1, 2, b"")
    frame.flags.add("END_HEADERS")
    raw.say(raw.headers(1, headers_of(TALK)), frame)
    await dies(raw, PROTOCOL_ERROR)


async def test_a_ping_comes_back(raw):
    raw.say(PingFrame(0, b"12345678"))
    while not isinstance(frame := await raw.frame(), PingFrame):
        pass
    assert frame.opaque_data == b"12345678"
    assert "ACK" in frame.flags


async def test_a_client_that_goes_away_keeps_its_calls(raw):
    raw.say(raw.headers(1, headers_of(TALK)), GoAwayFrame(0, 0, NO_ERROR))
    raw.say(raw.data(1, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).status == "0"


# --- 6.9: flow control


async def test_an_answer_waits_for_the_clients_window(served):
    raw = await served.raw(window=0)
    raw.call(1, ECHO, b"x" * 100)
    raw.call(3, "/t.S/None", b"x")
    assert (await raw.answer(3)).status == "12"  # headers need no window
    assert raw.answers.get(1) is None or raw.answers[1].data == b""
    raw.say(WindowUpdateFrame(1, 50))
    while len(raw.answers[1].data) < 50:
        await raw.frame()
    raw.credit = False
    raw.say(WindowUpdateFrame(1, 1_000))
    assert (await raw.answer(1)).messages == [b"x" * 100]


async def test_a_new_initial_window_opens_the_streams_there_are(served):
    raw = await served.raw(window=0)
    raw.call(1, ECHO, b"x" * 100)
    raw.say(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1_000}))
    assert (await raw.answer(1)).messages == [b"x" * 100]


async def test_a_window_that_overflows(raw):
    raw.say(WindowUpdateFrame(0, 2**31 - 1))
    await dies(raw, FLOW_CONTROL_ERROR)


async def test_a_streams_window_that_overflows(served, raw):
    raw.call(1, WATCH, b"x")
    await raw.message(1)
    raw.say(WindowUpdateFrame(1, 2**31 - 1), WindowUpdateFrame(1, 2**31 - 1))
    assert (await raw.answer(1)).reset == FLOW_CONTROL_ERROR
    assert served.service.hub.active == 0
    await lives(raw)


@pytest.mark.parametrize("stream", [0, 1])
async def test_a_window_update_of_nothing(raw, stream):
    raw.say(raw.headers(1, headers_of(TALK)), bare(8, 0, stream, bytes(4)))
    await dies(raw, PROTOCOL_ERROR)


async def test_a_call_that_takes_nothing_stops_its_client(served, raw):
    """A stream's window is opened again only as its messages are taken."""
    message = grpc_frame(b"x" * 4_000)
    raw.say(raw.headers(1, headers_of(HOLD)))
    upload = asyncio.ensure_future(raw.upload(1, message * 100))
    async with asyncio.timeout(5):
        while raw.window(1) > 0:
            await asyncio.sleep(0.001)
        raw.call(3, ECHO, b"the connection's window is not its business")
        while not raw.answers.get(3, Answer()).over:
            await asyncio.sleep(0.001)
    assert not upload.done()
    served.service.let.set()
    await upload
    assert (await raw.answer(1)).status == "0"
    assert len(served.service.heard) == 100


async def test_more_data_than_the_window_allows(raw):
    raw.say(raw.headers(1, headers_of(HOLD)))
    raw.say(*(raw.data(1, grpc_frame(bytes(16_000))) for _ in range(30)))
    assert (await raw.answer(1)).reset == FLOW_CONTROL_ERROR
    await lives(raw)


# --- 6.10: continuation


async def test_headers_in_pieces(raw):
    block = raw.encoder.encode(headers_of(ECHO))
    raw.say(HeadersFrame(1, block[:5]), ContinuationFrame(1, block[5:9]))
    last = ContinuationFrame(1, block[9:])
    last.flags.add("END_HEADERS")
    raw.say(last, raw.data(1, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).status == "0"


@pytest.mark.parametrize(
    "between",
    [PingFrame(0, bytes(8)), DataFrame(1, b""), ContinuationFrame(3, b""), bare(0xEE, 0, 0, b"")],
)
async def test_nothing_may_come_between_the_pieces(raw, between):
    block = raw.encoder.encode(headers_of(ECHO))
    raw.say(HeadersFrame(1, block[:5]), between)
    await dies(raw, PROTOCOL_ERROR)


async def test_a_piece_of_no_headers(raw):
    raw.call(1, ECHO, b"x")
    await raw.answer(1)
    raw.say(ContinuationFrame(1, b""))
    await dies(raw, PROTOCOL_ERROR)


# --- 8: requests


def with_field(name, value, at=None):
    fields = headers_of(ECHO)
    fields.insert(len(fields) if at is None else at, (name, value))
    return fields


MALFORMED = {
    "upper case": with_field("Upper", "x"),
    "an empty name": with_field("", "x"),
    "a space in a name": with_field("a b", "x"),
    "a colon in a name": with_field("a:b", "x"),
    "no method": headers_of(ECHO, method=None),
    "no scheme": headers_of(ECHO, scheme=None),
    "no path": headers_of(ECHO, path=None),
    "an empty path": headers_of(""),
    "two paths": with_field(":path", "/", 1),
    "a late pseudo header": with_field(":authority", "x"),
    "an unknown pseudo header": with_field(":protocol", "x", 0),
    "a response's pseudo header": with_field(":status", "200", 0),
    "connection": with_field("connection", "close"),
    "keep-alive": with_field("keep-alive", "5"),
    "proxy-connection": with_field("proxy-connection", "x"),
    "transfer-encoding": with_field("transfer-encoding", "chunked"),
    "upgrade": with_field("upgrade", "h2c"),
    "te": headers_of(ECHO, te="gzip"),
    "a line break": with_field("a", "b\r\nc: d"),
    "a null byte": with_field("a", "b\0c"),
    "a length that is none": with_field("content-length", "-1"),
    "a length too short": with_field("content-length", "2"),
    "a length too long": with_field("content-length", "999"),
    "two lengths": [*with_field("content-length", "6"), ("content-length", "7")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_reset_and_harms_no_other(served, raw, fields):
    raw.say(raw.headers(1, fields), raw.data(1, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).reset == PROTOCOL_ERROR
    await lives(raw)


async def test_a_right_length_is_right(raw):
    raw.call(1, ECHO, b"x", content_length="6")
    assert (await raw.answer(1)).status == "0"


async def test_an_authority_may_be_a_path(raw):
    # Against RFC 3986, but grpc-go does it for unix sockets.
    raw.call(1, ECHO, b"x", authority="/var/run/device-api/device.sock")
    assert (await raw.answer(1)).status == "0"


async def test_pseudo_headers_have_no_place_in_trailers(raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.data(1, grpc_frame(b"x")))
    raw.say(raw.headers(1, [(":path", "/")], "END_STREAM"))
    assert (await raw.answer(1)).reset == PROTOCOL_ERROR
    await lives(raw)


async def test_trailers_must_end_the_request(raw):
    raw.say(raw.headers(1, headers_of(ECHO)), raw.headers(1, [("a", "b")]))
    assert (await raw.answer(1)).reset == PROTOCOL_ERROR
    await lives(raw)


async def test_an_early_answer_frees_the_client_of_the_rest(raw):
    raw.say(raw.headers(1, headers_of("/t.S/None")))
    answer = await raw.answer(1)
    assert answer.status == "12"
    while answer.reset is None:
        assert await raw.frame() is not None
    assert answer.reset == NO_ERROR
    await lives(raw)


# --- floods


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, bytes(8)),
        SettingsFrame(settings={}),
        PriorityFrame(1, depends_on=0, stream_weight=1),
        DataFrame(1, b""),
    ],
    ids=lambda f: type(f).__name__,
)
async def test_a_flood_of_frames_that_only_cost(raw, frame):
    raw.say(raw.headers(1, headers_of(TALK)))
    burst = frame.serialize() * 100
    for _ in range(30):
        raw.say(burst)
        await asyncio.sleep(0)
    await is_calmed(raw)


async def test_calls_that_are_reset_at_once(served, raw):
    """CVE-2023-44487."""
    for number in range(3_000):
        stream = 2 * number + 1
        raw.say(raw.headers(stream, headers_of(TALK)), RstStreamFrame(stream, CANCEL))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await is_calmed(raw)


async def test_headers_without_end(raw):
    """CVE-2024-27316."""
    raw.say(HeadersFrame(1, raw.encoder.encode(headers_of(ECHO))))
    for _ in range(100):
        raw.say(ContinuationFrame(1, b"\x00\x01a\x01b" * 100))
    await raw.end()


async def test_a_header_that_grows_when_unpacked(raw):
    """One long field in the table, then thousands of references to it."""
    raw.say(raw.headers(1, [*headers_of(ECHO), ("big", "x" * 3_500)]))
    raw.say(raw.data(1, grpc_frame(b"x"), "END_STREAM"))
    assert (await raw.answer(1)).status == "0"
    block = raw.encoder.encode(headers_of(ECHO)) + bytes([0x80 | 62]) * 10_000
    raw.say(bare(1, 0x5, 3, block))
    frame = None
    while (answer := raw.answers.get(3)) is None and (frame := await raw.frame()) is not None:
        pass
    assert frame is None or answer.status == "8" or answer.reset is not None
