"""A client that says exactly the frames it is told to, wrong ones included."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import defaultdict
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SECONDS = 10.0
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CALM = 6, 7, 8, 9, 11


def grpc_frame(message: bytes, flag: int = 0) -> bytes:
    return struct.pack("!BI", flag, len(message)) + message


def headers_of(path: str, /, **changed: str | None) -> list[tuple[str, str]]:
    """A gRPC request's headers; a keyword replaces one, or drops it if it is ``None``."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changed.items():
        plain = name.replace("_", "-")
        fields[f":{plain}" if f":{plain}" in fields else plain] = value
    return [(name, value) for name, value in fields.items() if value is not None]


@dataclass
class Answer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None
    over: bool = False

    @property
    def status(self) -> str | None:
        """grpc-status, wherever it stands."""
        return self.trailers.get("grpc-status", self.headers.get("grpc-status"))

    @property
    def text(self) -> str:
        return self.trailers.get("grpc-message", self.headers.get("grpc-message", ""))

    @property
    def messages(self) -> list[bytes]:
        rest, found = self.data, []
        while rest:
            flag, size = struct.unpack("!BI", rest[:5])
            assert flag == 0
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.answers: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}
        self.goaway: GoAwayFrame | None = None
        self.credit = True
        # What may be sent on the connection, and on a stream beyond its first window.
        self._room = defaultdict(int, {0: 65_535})

    @classmethod
    async def open(cls, path: str, *, greet: bool = True, window: int | None = None) -> Raw:
        raw = cls(*await asyncio.open_unix_connection(path))
        if greet:
            raw.greet(window)
        return raw

    def greet(self, window: int | None = None) -> None:
        """Say what every client says first."""
        settings = {} if window is None else {SettingsFrame.INITIAL_WINDOW_SIZE: window}
        self.say(PREFACE, SettingsFrame(settings=settings))

    def pause(self) -> None:
        """Read nothing from the socket."""
        self._writer.transport.pause_reading()

    def resume(self) -> None:
        self._writer.transport.resume_reading()

    @property
    def unsent(self) -> int:
        """Bytes that the server has not taken from the socket."""
        return self._writer.transport.get_write_buffer_size()

    @staticmethod
    def blank() -> Answer:
        return Answer()

    def say(self, *parts: bytes | Frame) -> None:
        self._writer.write(b"".join(p if isinstance(p, bytes) else p.serialize() for p in parts))

    def headers(self, stream: int, fields: list[tuple[str, str]], *flags: str) -> HeadersFrame:
        frame = HeadersFrame(stream, self.encoder.encode(fields))
        for flag in {"END_HEADERS", *flags}:
            frame.flags.add(flag)
        return frame

    def data(self, stream: int, data: bytes, *flags: str) -> DataFrame:
        return DataFrame(stream, data, flags=list(flags))

    def call(self, stream: int, path: str, /, *messages: bytes, **headers: str | None) -> None:
        """A whole request."""
        body = b"".join(map(grpc_frame, messages))
        self.say(
            self.headers(stream, headers_of(path, **headers)),
            self.data(stream, body, "END_STREAM"),
        )

    def window(self, stream: int) -> int:
        """What may be sent on a stream now."""
        first = self.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 65_535)
        return first + self._room[stream]

    async def upload(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """A body of any size, as fast as the server's flow control lets it."""
        while body:
            room = min(16_384, self._room[0], self.window(stream))
            if room <= 0:
                assert await self.frame() is not None
                continue
            piece, body = body[:room], body[room:]
            self._room[0] -= len(piece)
            self._room[stream] -= len(piece)
            self.say(self.data(stream, piece, *(("END_STREAM",) if end and not body else ())))

    async def frame(self) -> Frame | None:
        """The next frame; ``None`` at the end of the connection."""
        try:
            async with asyncio.timeout(SECONDS):
                head = await self._reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._note(frame)
        return frame

    async def answer(self, stream: int) -> Answer:
        """Read until the stream is over."""
        while not self._is_over(stream):
            frame = await self.frame()
            assert frame is not None, f"the connection ended: {self.goaway}"
        return self.answers[stream]

    async def message(self, stream: int, count: int = 1) -> list[bytes]:
        """Read until that many messages have come in all."""
        answer = self.answers.setdefault(stream, Answer())
        while len(answer.data) < 5 or len(answer.messages) < count:
            assert await self.frame() is not None
        return answer.messages

    async def end(self) -> GoAwayFrame | None:
        """Read until the server has closed the connection; returns its last word."""
        while await self.frame() is not None:
            pass
        return self.goaway

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _is_over(self, stream: int) -> bool:
        answer = self.answers.get(stream)
        return answer is not None and (answer.reset is not None or answer.over)

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, WindowUpdateFrame):
            self._room[frame.stream_id] += frame.window_increment
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings.update(frame.settings)
            self.say(SettingsFrame(flags=["ACK"]))
        elif frame.stream_id:
            self._note_stream(frame)

    def _note_stream(self, frame: Frame) -> None:
        answer = self.answers.setdefault(frame.stream_id, Answer())
        if isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        elif isinstance(frame, HeadersFrame):
            assert "END_HEADERS" in frame.flags
            fields = {n: v for n, v in self._decoder.decode(frame.data)}
            target = answer.trailers if answer.headers else answer.headers
            target.update(fields)
        elif isinstance(frame, DataFrame):
            answer.data += frame.data
            if self.credit and frame.data:
                size = len(frame.data)
                self.say(WindowUpdateFrame(0, size), WindowUpdateFrame(frame.stream_id, size))
        if "END_STREAM" in frame.flags:
            answer.over = True


__all__ = ["ContinuationFrame", "Raw", "grpc_frame", "headers_of"]
