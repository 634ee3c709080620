"""One server side of an HTTP/2 connection with gRPC's framing of messages, in C over libnghttp2.

Nothing here knows sockets or calls. A call is named by its stream's number; what is said to a call
that is gone is dropped, for its CLOSED event is on the way.
"""

from typing import Any

OPENED: int
"""A request began: ``(path, method, content_type, timeout, encoding)``, each bytes or None but for
the timeout, which is seconds and negative if it is malformed."""
MESSAGE: int
"""A whole message: bytes."""
ENDED: int
"""The request is complete: None."""
REFUSED: int
"""The request breaks a rule: ``(gRPC status, text)``. Nothing more of it will be heard."""
CLOSED: int
"""The call is gone: the HTTP/2 error code, 0 after a whole answer."""
REQUEST: int
"""A request of one message that came at once: what OPENED and MESSAGE say, and that it is complete.
The message counts as taken."""

Event = tuple[int, int, Any]

def held() -> tuple[int, int, int]:
    """What the calls of all sessions hold: how many there are, bytes of requests, of answers."""

class Session:
    """One connection. Methods raise ``ConnectionError`` when it cannot go on; what :meth:`send`
    still gives then says why to the peer."""

    def __new__(
        cls,
        *,
        max_message_bytes: int,
        max_header_bytes: int,
        max_buffered_bytes: int,
        max_unread_bytes: int,
        max_streams: int,
        window_bytes: int,
    ) -> Session: ...
    @property
    def alive(self) -> bool:
        """Whether there is anything left to say or hear."""
    @property
    def crowded(self) -> bool:
        """Whether the peer has more to read than it may have."""
    def receive(self, data: bytes | memoryview, /) -> list[Event]:
        """What the peer's bytes mean."""
    def events(self) -> list[Event]:
        """What has happened since, by sending."""
    def send(self, limit: int, /) -> bytes:
        """The next bytes for the peer, not much more than ``limit``; empty if none are due."""
    def message(self, stream: int, message: bytes, /) -> int:
        """Queue a message of the answer; returns the bytes that wait on the stream, -1 if it is
        gone or finished."""
    def queued(self, stream: int, /) -> int:
        """The bytes that wait on the stream, -1 if it is gone."""
    def reply(self, stream: int, message: bytes, /) -> bool:
        """A whole answer: one message and status 0. No CLOSED follows. False, and nothing is sent,
        if the client has too many answers to read already."""
    def finish(
        self,
        stream: int,
        trailers: tuple[tuple[bytes, bytes], ...],
        drop: bool = ...,
        status: str | None = ...,
        /,
    ) -> None:
        """End the answer; with ``drop`` what is queued is not sent. ``status`` is HTTP's, for an
        answer that has not begun. Raises ``ValueError`` for trailers that are no HTTP fields, too
        many or too long, and changes nothing then."""
    def took(self, stream: int, size: int, /) -> None:
        """A message of that size was taken: the peer may send more."""
    def reset(self, stream: int, error: int, /) -> None:
        """Cut a call off with an HTTP/2 error code."""
    def close(self) -> None:
        """The connection is over: give back what its calls hold. Nothing can be sent or received
        after it; all else does nothing."""
    def go_away(self, last: bool, /) -> None:
        """Announce that new calls are not welcome, then, with ``last``, refuse them."""
