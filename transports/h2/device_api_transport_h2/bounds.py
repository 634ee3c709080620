"""What one connection may make the server hold."""

from __future__ import annotations

from device_api_transport_h2 import _engine

MAX_STREAMS = 2_048
MAX_HEADER_BYTES = 16 * 1024
MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Of one connection's requests that are not finished. The engine bounds all connections' together,
too."""
MAX_UNREAD_BYTES = 8 * 1024 * 1024
"""Of one connection's answers that its client does not read."""
WINDOW_BYTES = 64 * 1024


def new_session(max_message_bytes: int) -> _engine.Session:
    """A connection's session, with these bounds; ``max_message_bytes`` is a request's."""
    return _engine.Session(
        max_message_bytes=max_message_bytes,
        max_header_bytes=MAX_HEADER_BYTES,
        max_buffered_bytes=MAX_BUFFERED_BYTES,
        max_unread_bytes=MAX_UNREAD_BYTES,
        max_streams=MAX_STREAMS,
        window_bytes=WINDOW_BYTES,
    )
