"""HTTP/2 by hand: what no well-behaved client does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _field(name: str, value: str) -> bytes:
    """A header field as a literal that nobody indexes."""
    encoded = b"\x00"
    for text in (name.encode(), value.encode()):
        encoded += bytes([len(text)]) + text
    return encoded


def request(path: str, stream: int, message: bytes = b"") -> bytes:
    """A whole call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "node",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(_field(name, value) for name, value in fields.items())
    body = b"\0" + struct.pack(">I", len(message)) + message
    headers = frame(HEADERS, block, flags=END_HEADERS, stream=stream)
    return headers + frame(DATA, body, flags=END_STREAM, stream=stream)


class RawConnection:
    """A connection to a unix socket that has begun to speak HTTP/2, and reads only when told."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._next_stream = 1
        self.send(PREFACE + frame(SETTINGS))

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def call(self, path: str, message: bytes = b"") -> None:
        """Begin a call."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.send(request(path, stream, message))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Kind and payload of every frame until the server closes."""
        buffer = b""
        while True:
            while len(buffer) >= 9:
                size = int.from_bytes(buffer[:3], "big")
                if len(buffer) < 9 + size:
                    break
                yield buffer[3], buffer[9 : 9 + size]
                buffer = buffer[9 + size :]
            try:
                more = self._socket.recv(65_536)
            except ConnectionError:
                return
            if not more:
                return
            buffer += more
