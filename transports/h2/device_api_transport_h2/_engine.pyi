"""One server side of an HTTP/2 connection with gRPC's framing of messages, in C over libnghttp2.

A session knows neither sockets nor calls. A call is named by its stream's number; what is said to
a call that is gone is dropped, for its CLOSED event is on the way. A wire carries a session's bytes
over a socket.
"""

from collections.abc import Callable
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

HEARD: int
"""Notice: the session has events, in a list that may be empty, or its account has to be settled."""
FLOWS: int
"""Notice: the socket takes more again: None."""
RESTS: int
"""Notice: the peer has something to say and nothing was read, for its account rests: None."""
BROKEN: int
"""Notice: the session cannot go on: the exception."""
GONE: int
"""Notice: the socket is of no use any more: None."""

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
    def calmed(self) -> bool:
        """Whether the peer was ended for sending too much that costs work and carries nothing."""
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
    def serve(self, answers: dict[bytes, Answers], account: Account, /) -> None:
        """Answer a plain request of one message at once, where its answer is known, as long as the
        account has credit. There is no event for it."""

class Answers:
    """Answers of one method that are known, by request. The table is looked at for each request."""

    def __new__(cls, known: dict[bytes, bytes], /) -> Answers: ...
    def take(self) -> tuple[int, float]:
        """How many were given since it was last asked, and how many seconds that took."""

class Account:
    """Who calls. Several sessions may have the same. Times are seconds of the monotonic clock."""

    credit: int
    """Calls that may be answered at once, until ``credit_until``."""
    credit_until: float
    rests_until: float
    """Nothing is read of its sockets before."""
    def take(self) -> float:
        """The seconds of work for it since it was last asked."""

class Sockets:
    """An epoll of all sockets of one event loop; itself a file that is ready when one of them
    is."""

    def __new__(cls, on_due: Callable[[], object], /) -> Sockets:
        """``on_due`` is called when something was put into a sender: :meth:`flush` is to be called
        at the end of the loop's turn."""
    def fileno(self) -> int: ...
    def flush(self) -> list[tuple[Any, int, Any]]:
        """Send what was put into senders. Returns as :meth:`look`."""
    def add(self, fd: int, session: Session, owner: Any, /) -> Wire:
        """Look after a socket that does not block, until its wire is closed. Raises ``OSError`` if
        the system has no room for one more."""
    def look(self) -> list[tuple[Any, int, Any]]:
        """Read who is ready, answer what is known, and return what the owners have to be told:
        owner, notice, value. It looks again until somebody has to be told, for 0.2 ms at most."""

class Wire:
    """The socket of one session. Its owner has to close it before the socket."""

    heard: bool
    """Whether the peer has said anything."""
    blocked: bool
    """Whether the socket takes no more for now; FLOWS follows."""
    hungry: bool
    """Whether the owner has more to say when something was sent: then HEARD follows."""
    def flush(self) -> int:
        """Send what the session has to say, as far as the socket takes it; returns how many bytes
        of it are new. Raises ``ConnectionError`` if the session cannot go on."""
    def read(self, on: bool, /) -> None:
        """Whether to read. Who does not read does not notice either that the peer is gone."""
    def sender(self, stream: int, ahead: int, /) -> Sender:
        """What puts messages into a call, as long as less than ``ahead`` bytes wait there."""
    def close(self) -> None:
        """Let go of socket and owner."""

class Sender:
    """Says to one call what is said to many."""

    def say(self, message: bytes, /) -> bool:
        """Queue a message. False, and nothing was done, if the call is gone or does not keep up.
        Raises nothing."""
