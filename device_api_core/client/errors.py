"""The errors of calls, as additions to the tree of :mod:`device_api_core.errors`.

    DeviceApiError
    ├── Unavailable
    │   └── Unreachable       no server answers at the target, or the connection broke
    ├── DeadlineExceeded      no answer in time
    ├── NotServed             the endpoint answers, but does not offer this service
    └── RpcFailed             any other status; carries its name

Everything that the server itself refuses is one of the errors it raised there: ``NotFound``,
``Conflict``, ``InvalidArgument``, ``PermissionDenied``, ``LimitExceeded``, ``WatchExpired``,
``AlreadyExists``, ``Unavailable``. ``reason`` carries the trailing metadata ``device-api-reason``.
"""

from __future__ import annotations

import re

from device_api_core.errors import (
    AlreadyExists,
    Conflict,
    DeviceApiError,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
    WatchExpired,
)

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "DeviceApiError",
    "InvalidArgument",
    "LimitExceeded",
    "NotFound",
    "NotServed",
    "PermissionDenied",
    "RpcFailed",
    "Unavailable",
    "Unreachable",
    "WatchExpired",
    "from_status",
]

REASON_METADATA = "device-api-reason"
"""The trailing metadata key that tells apart two errors with one status."""

_FIELD = re.compile(r"[a-z][a-z0-9_.\[\]]*")


class Unreachable(Unavailable):
    """No server answers at ``target``, or the connection to it broke."""

    def __init__(self, message: str, *, target: str) -> None:
        super().__init__(message)
        self.target = target


class DeadlineExceeded(DeviceApiError):
    """The call's deadline passed without an answer. A write may have been applied."""

    code = "DEADLINE_EXCEEDED"

    def __init__(self, message: str, *, target: str) -> None:
        super().__init__(message)
        self.target = target


class NotServed(DeviceApiError):
    """The endpoint answers, but not to this service: writes and administration are served on the
    providers' socket only."""

    code = "UNIMPLEMENTED"


class RpcFailed(DeviceApiError):
    """The call ended with a status that has no error of its own; ``status`` is its name."""

    def __init__(self, message: str, *, status: str, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.status = status


_BY_STATUS: dict[str, type[DeviceApiError]] = {
    kind.code: kind
    for kind in (
        NotFound,
        AlreadyExists,
        Conflict,
        PermissionDenied,
        LimitExceeded,
        WatchExpired,
        Unavailable,
    )
}


def from_status(status: str, message: str, reason: str = "") -> DeviceApiError:
    """The error that a server meant by this gRPC status name, message and reason."""
    message = message or f"the server answered {status} without a message"
    if status == InvalidArgument.code:
        return _invalid_argument(message, reason)
    if (kind := _BY_STATUS.get(status)) is not None:
        return kind(message, reason=reason)
    return RpcFailed(message, status=status, reason=reason)


def _invalid_argument(message: str, reason: str) -> InvalidArgument:
    field, colon, rule = message.partition(": ")
    # Other servers of this API do not begin their messages with the field.
    if not colon or not _FIELD.fullmatch(field):
        field, rule = "request", message
    error = InvalidArgument(field, rule)
    error.reason = reason
    return error
