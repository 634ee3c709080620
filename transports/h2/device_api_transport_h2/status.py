"""gRPC over HTTP/2 in words: status codes and percent-encoding.

Source: the gRPC project's PROTOCOL-HTTP2 document.
"""

from __future__ import annotations

from urllib.parse import quote

from device_api_core.errors import DeviceApiError
from device_api_core.server.transport import trailing_metadata

Trailers = tuple[tuple[bytes, bytes], ...]

_CODES = {
    name: str(number).encode()
    for number, name in enumerate(
        (
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        )
    )
}
_NAMES = tuple(_CODES)
# Printable ASCII but the percent sign itself.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MAX_MESSAGE_BYTES = 4_096
"""Of a status message as it is sent; clients refuse trailers that are much longer."""


def trailers(code: str, message: str, metadata: Trailers = ()) -> Trailers:
    """How a call ends; ``code`` is the status's name."""
    # Three bytes at most come of one, so that no escape is cut in half.
    text = message.encode()[: _MAX_MESSAGE_BYTES // 3].decode(errors="ignore")
    return (
        (b"grpc-status", _CODES[code]),
        (b"grpc-message", quote(text, safe=_PLAIN).encode()),
        *metadata,
    )


def trailers_of(error: DeviceApiError) -> Trailers:
    """How a call ends that failed."""
    metadata = tuple((k.encode(), v.encode()) for k, v in trailing_metadata(error))
    return trailers(error.code, error.message, metadata)


UNCOMPRESSED_ONLY = trailers(
    "UNIMPLEMENTED",
    "messages cannot be compressed here",
    ((b"grpc-accept-encoding", b"identity"),),
)

UNREAD_TEXT = "too many answers wait to be read on this connection"
UNREAD = trailers("RESOURCE_EXHAUSTED", UNREAD_TEXT)


def http_refusal(method: bytes, content_type: bytes | None) -> str | None:
    """The HTTP status for a request that is not gRPC's; ``None`` if it is."""
    if method != b"POST":
        return "405"
    kind, _, _ = (content_type or b"").partition(b";")
    if kind != b"application/grpc" and not kind.startswith(b"application/grpc+"):
        return "415"
    return None


def code_name(number: int) -> str:
    """The name of a status code."""
    return _NAMES[number]
