"""The engine by itself: bytes in, events and bytes out, and what its calls hold meanwhile."""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path

import hpack
import pytest
from device_api_transport_h2 import _engine
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame
from raw import CANCEL, PREFACE, grpc_frame, headers_of

OPENED, MESSAGE, ENDED, REFUSED, CLOSED, REQUEST = range(6)
LIMITS = {
    "max_message_bytes": 4 * 1024 * 1024,
    "max_header_bytes": 16 * 1024,
    "max_buffered_bytes": 8 * 1024 * 1024,
    "max_unread_bytes": 8 * 1024 * 1024,
    "max_streams": 2_048,
    "window_bytes": 2**31 - 1,
}
OK = ((b"grpc-status", b"0"),)
CHUNK = 16_384


class Peer:
    """A session, and the client's words to it."""

    def __init__(self, **limits: int) -> None:
        self.session = _engine.Session(**{**LIMITS, **limits})
        self._encoder = hpack.Encoder()
        self.say(PREFACE, SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        self.say(SettingsFrame(flags=["ACK"]))
        self._blocks = [self._encoder.encode(headers_of("/t.S/Echo")) for _ in range(2)]

    def say(self, *parts: bytes | Frame) -> list[_engine.Event]:
        events = []
        for part in parts:
            events += self.session.receive(part if isinstance(part, bytes) else part.serialize())
            self.session.send(100_000)
        return events + self.session.events()

    def open(self, stream: int) -> Frame:
        # The first fills the table, and all others refer to it.
        block = self._blocks.pop(0) if len(self._blocks) > 1 else self._blocks[0]
        return HeadersFrame(stream, block, flags=["END_HEADERS"])

    def fields(self, stream: int, fields: list[tuple[str, str]]) -> Frame:
        return HeadersFrame(stream, self._encoder.encode(fields), flags=["END_HEADERS"])


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    del peer.session
    assert _engine.held() == (0, 0, 0)


def body(stream: int, data: bytes, *, end: bool = False) -> list[Frame]:
    """DATA frames of the usual size."""
    pieces = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)] or [b""]
    frames = [DataFrame(stream, piece) for piece in pieces]
    if end:
        frames[-1].flags.add("END_STREAM")
    return frames


def kinds(events):
    return [kind for kind, _stream, _value in events]


# --- what is held, and given back


def test_what_calls_hold_is_counted_and_given_back(peer):
    peer.say(peer.open(1), *body(1, grpc_frame(b"x" * 1_000)))
    peer.say(peer.open(3), *body(3, grpc_frame(b"x" * 1_000)[:505]))
    calls, requests, answers = _engine.held()
    assert (calls, answers) == (2, 0)
    assert 1_500 <= requests < 2_000
    peer.session.took(1, 1_000)
    assert 500 <= _engine.held()[1] < 600
    assert peer.session.message(1, b"y" * 100) == 105
    assert peer.session.reply(3, b"z" * 100)
    assert _engine.held()[2] == 210
    peer.say(RstStreamFrame(1, CANCEL))
    assert _engine.held()[0] == 1
    peer.say(RstStreamFrame(3, CANCEL))
    assert _engine.held() == (0, 0, 0)


def test_a_session_that_is_dropped_gives_all_back():
    peer = Peer()
    peer.say(peer.open(1), *body(1, grpc_frame(b"taken")), peer.open(3), *body(3, b"\0\0"))
    peer.session.message(1, b"never read")
    assert _engine.held()[0] == 2
    del peer
    assert _engine.held() == (0, 0, 0)


def test_messages_of_nothing_count_too():
    """A message costs memory beside its bytes."""
    peer = Peer(max_buffered_bytes=64_000)
    events = peer.say(peer.open(1), *body(1, grpc_frame(b"") * 2_000))
    assert kinds(events)[-1] == REFUSED
    assert kinds(events).count(MESSAGE) <= 1_001


def test_a_message_that_was_taken_leaves_no_room_reserved():
    """2,048 calls with room for 4 MiB each would be 8 GiB, and nothing would count it."""
    peer = Peer()
    message = grpc_frame(bytes(4 * 1024 * 1024 - 1_000))
    before = resident_bytes()
    for stream in range(1, 65, 2):
        peer.say(peer.open(stream), *body(stream, message))
        peer.session.took(stream, len(message) - 5)
    assert _engine.held()[1] == 0
    assert resident_bytes() - before < 32 * 1024 * 1024


def test_a_call_that_was_refused_holds_nothing(peer):
    huge = (LIMITS["max_message_bytes"] + 1).to_bytes(4, "big")
    peer.say(peer.open(1), *body(1, b"\0" + huge + bytes(10_000)))
    peer.say(peer.open(3), *body(3, b"\1" + bytes(10_000)))
    peer.say(peer.open(5), *body(5, grpc_frame(bytes(10_000))[:9_000]))
    peer.session.finish(5, OK)
    assert _engine.held()[1] == 0


def test_the_calls_of_all_connections_are_bounded_and_each_has_its_part():
    greedy, modest = Peer(max_streams=40_000), Peer()
    stream, refused = 1, None
    while refused is None and stream < 80_000:
        events = greedy.say(*(greedy.open(s) for s in range(stream, stream + 200, 2)))
        refused = next((value for kind, _, value in events if kind == REFUSED), None)
        stream += 200
    assert refused == (8, "too many calls are open")
    assert 65_000 < stream < 66_000
    assert kinds(modest.say(*(modest.open(s) for s in range(1, 32, 2)))) == [OPENED] * 16
    assert kinds(modest.say(modest.open(33))) == [REFUSED]


def test_who_hoards_does_not_shut_out_the_modest():
    hoarders = [Peer() for _ in range(9)]
    message = grpc_frame(bytes(20_000))
    refused = 0
    for peer in hoarders:
        for stream in range(1, 900, 2):
            events = peer.say(peer.open(stream), *body(stream, message))
            peer.session.message(stream, message)
            if REFUSED in kinds(events):
                refused += 1
                break
    _calls, requests, answers = _engine.held()
    assert refused == 9
    assert requests > 64 * 1024 * 1024
    assert answers > 64 * 1024 * 1024
    assert not hoarders[-1].session.reply(1, b"x") or hoarders[-1].session.crowded
    modest = Peer()
    events = modest.say(modest.open(1), *body(1, grpc_frame(bytes(50_000)), end=True))
    assert kinds(events) == [OPENED, MESSAGE, ENDED]
    assert modest.session.reply(1, b"x" * 100)
    modest.say(modest.open(3), *body(3, grpc_frame(b"x"), end=True))
    assert modest.session.reply(3, b"before the first is read")


HEAD = (b"/t.S/Echo", b"POST", b"application/grpc", None, None)


def test_a_request_that_comes_at_once_is_one_event_and_counts_as_taken(peer):
    frames = (peer.open(1), *body(1, grpc_frame(b"all"), end=True))
    events = peer.session.receive(b"".join(frame.serialize() for frame in frames))
    assert events == [(REQUEST, 1, (HEAD, b"all"))]
    assert _engine.held() == (1, 0, 0)
    peer.session.reply(1, b"")
    assert peer.say() == []


def test_requests_that_come_interleaved_are_told_in_order_and_whole(peer):
    first, second = peer.open(1), peer.open(3)
    frames = (
        *(first, *body(1, grpc_frame(b"one"))),
        *(second, *body(3, grpc_frame(b"two"), end=True)),
        *body(1, b"", end=True),
    )
    events = peer.session.receive(b"".join(frame.serialize() for frame in frames))
    assert events == [
        (OPENED, 1, HEAD),
        (MESSAGE, 1, b"one"),
        (REQUEST, 3, (HEAD, b"two")),
        (ENDED, 1, None),
    ]


def test_two_messages_at_once_are_told_one_by_one(peer):
    frames = (peer.open(1), *body(1, grpc_frame(b"a") + grpc_frame(b"b"), end=True))
    events = peer.session.receive(b"".join(frame.serialize() for frame in frames))
    assert kinds(events) == [OPENED, MESSAGE, MESSAGE, ENDED]


def test_a_request_that_is_cut_off_in_the_same_breath_is_told_and_forgotten(peer):
    frames = (peer.open(1), *body(1, grpc_frame(b"half")), RstStreamFrame(1, CANCEL))
    events = peer.session.receive(b"".join(frame.serialize() for frame in frames))
    assert events == [(OPENED, 1, HEAD), (MESSAGE, 1, b"half"), (CLOSED, 1, CANCEL)]


def test_a_message_that_is_cut_off_by_a_broken_frame_is_told_and_given_back(peer):
    frames = (peer.open(1), *body(1, grpc_frame(b"half")))
    broken = HeadersFrame(3, b"\xff" * 16, flags=["END_HEADERS"]).serialize()
    events = peer.session.receive(b"".join(frame.serialize() for frame in frames) + broken)
    assert kinds(events)[:2] == [OPENED, MESSAGE]
    assert _engine.held()[1] > 0
    peer.session.close()
    assert _engine.held() == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1S", 1), ("99999999n", 0.099999999), ("2H", 7_200), ("5M", 300), ("7m", 0.007), ("3u", 3e-6)]
    + [(bad, -1) for bad in ("", "S", "1", "1s", "-1S", "123456789S", "1 S", "1SS")],
)
def test_a_timeout_is_seconds_and_negative_if_it_is_malformed(peer, text, seconds):
    fields = [*headers_of("/t.S/Echo"), ("grpc-timeout", text)]
    block = hpack.Encoder().encode(fields)
    [(kind, _stream, head)] = peer.say(HeadersFrame(1, block, flags=["END_HEADERS"]))
    assert kind == OPENED
    assert head[3] == pytest.approx(seconds)


def resident_bytes():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def test_a_session_that_is_closed_gives_all_back_whoever_refers_to_it(peer):
    peer.say(peer.open(1), *body(1, grpc_frame(b"taken")), peer.open(3), *body(3, b"\0\0"))
    peer.session.message(1, b"never read")
    peer.session.close()
    assert _engine.held() == (0, 0, 0)
    peer.session.close()
    session = peer.session
    assert (session.message(1, b"x"), session.queued(1), session.alive) == (-1, -1, False)
    assert session.reply(3, b"x")
    session.finish(1, OK)
    session.took(1, 5)
    session.reset(1, CANCEL)
    session.go_away(True)
    for use in (lambda: session.send(10), lambda: session.receive(b"x")):
        with pytest.raises(ConnectionError, match="closed"):
            use()


# --- what is said to it is checked


@pytest.mark.parametrize(
    "trailers",
    [
        tuple((b"name", b"value") for _ in range(15)),
        ((b"name", b"x" * 16_384),),
        ((b"", b"x"),),
        ((b":status", b"200"),),
        ((b"Upper", b"x"),),
        ((b"name", b"two\r\nlines"),),
    ],
    ids=["many", "long", "nameless", "pseudo", "upper case", "line break"],
)
@pytest.mark.parametrize("answered", [False, True])
def test_trailers_that_cannot_be_sent(peer, trailers, answered):
    peer.say(peer.open(1))
    if answered:
        peer.session.message(1, b"x")
    with pytest.raises(ValueError, match="trailer"):
        peer.session.finish(1, trailers)
    peer.session.finish(1, OK)  # nothing has changed
    peer.say(RstStreamFrame(1, CANCEL))


@pytest.mark.parametrize(
    "trailers", [[], ((b"name",),), ((b"name", "text"),), (None,), (("a", b""),)]
)
def test_trailers_of_another_type(peer, trailers):
    peer.say(peer.open(1))
    with pytest.raises(TypeError):
        peer.session.finish(1, trailers)


def test_all_trailers_arrive(peer):
    trailers = tuple((b"name-%d" % n, b"value") for n in range(14))
    peer.say(peer.open(1))
    peer.session.finish(1, trailers)
    sent = peer.session.send(100_000)
    decoder = hpack.Decoder()
    while sent:
        frame, length = Frame.parse_frame_header(memoryview(sent[:9]))
        frame.parse_body(memoryview(sent[9 : 9 + length]))
        sent = sent[9 + length :]
        if isinstance(frame, HeadersFrame):
            fields = decoder.decode(frame.data, raw=True)
    assert tuple(fields)[2:] == trailers


@pytest.mark.parametrize("size", [-1, 6, sys.maxsize])
def test_a_message_that_was_not_given_cannot_be_taken(peer, size):
    peer.say(peer.open(1), *body(1, grpc_frame(b"12345")))
    with pytest.raises(ValueError, match="that size"):
        peer.session.took(1, size)
    peer.session.took(1, 5)
    assert _engine.held()[1] == 0
    peer.session.took(1, 5)  # nothing is left to take
    assert _engine.held()[1] == 0


def test_a_message_beyond_the_prefix(peer):
    peer.say(peer.open(1), peer.open(3))
    huge = bytes(2**32)
    with pytest.raises(OverflowError):
        peer.session.message(1, huge)
    with pytest.raises(OverflowError):
        peer.session.reply(3, huge)
    assert _engine.held()[2] == 0


@pytest.mark.parametrize(
    "limits", [{"window_bytes": 2**31}, {"max_message_bytes": -1}, {"max_unread_bytes": -1}]
)
def test_limits_that_cannot_be(limits):
    with pytest.raises(ValueError, match="limit"):
        Peer(**limits)


@pytest.mark.parametrize("stream", [0, 2, 5, -1, 2**31 - 1])
def test_a_call_that_is_none(peer, stream):
    session = peer.session
    assert session.message(stream, b"x") == -1
    assert session.queued(stream) == -1
    assert session.reply(stream, b"x")
    session.finish(stream, OK)
    session.took(stream, 1)


# --- it is not used while it works


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="garbage is not collected inside C there")
def test_garbage_that_is_collected_meanwhile_cannot_use_it(peer):
    seen = []

    def on_collection(phase, _info):
        if phase == "stop":
            return
        for use in (lambda: peer.session.receive(b""), lambda: peer.session.send(10)):
            try:
                use()
            except RuntimeError as error:
                seen.append(str(error))
        # What nghttp2 allows is allowed: a handler that is closed may end its call.
        peer.session.finish(1, OK)
        peer.session.reset(3, CANCEL)

    peer.say(peer.open(1), peer.open(3))
    data = b"".join(
        f.serialize() for f in [*map(peer.open, range(5, 405, 2)), *body(3, grpc_frame(b"x") * 500)]
    )
    threshold = gc.get_threshold()
    # Objects from Python's free lists, which this empties, begin no collection.
    gc.collect()
    gc.callbacks.append(on_collection)
    gc.set_threshold(1)
    try:
        peer.session.receive(data)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(on_collection)
    assert set(seen) == {"the session is at work already"}


# --- headers that grow


def test_a_header_block_that_grows_is_not_looked_at(peer):
    """A byte names a field of 4 KiB: 140,000 of them would be 560 MB to check."""
    peer.say(peer.open(1))
    peer.say(peer.fields(3, [*headers_of("/t.S/Echo"), ("big", "x" * 3_900)]))
    references = bytes([0x80 | 62]) * 16_000
    frames = [HeadersFrame(5, references).serialize()]
    frames += [bare_continuation(5, references, last=n == 6) for n in range(7)]
    started = time.process_time()
    events = peer.say(*frames)
    spent = time.process_time() - started
    assert (events[0][0], events[0][2][0]) == (REFUSED, 8)
    assert spent < 0.05


def bare_continuation(stream, payload, *, last):
    head = len(payload).to_bytes(3, "big") + bytes([9, 0x4 if last else 0])
    return head + stream.to_bytes(4, "big") + payload
