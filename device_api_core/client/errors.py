"""The errors of calls, as additions to the tree of :mod:`device_api_core.errors`.

    DeviceApiError
    ├── Unavailable
    │   ├── Unreachable       no server answers at the target, or the connection broke
    │   └── NotSynced         an informer has not seen its first list yet
    ├── ConfigurationError    an option of this client is wrong, or a file of it unreadable
    ├── DeadlineExceeded      no answer in time
    ├── NotServed             the endpoint answers, but does not offer this service
    └── RpcFailed             any other status; carries its name

Everything that the server itself refuses is one of the errors it raised there: ``NotFound``,
``Conflict``, ``InvalidArgument``, ``PermissionDenied``, ``LimitExceeded``, ``WatchExpired``,
``AlreadyExists``, ``UpdateAborted``, ``Unavailable``. ``reason`` carries the trailing metadata
``device-api-reason``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from device_api_core.errors import (
    AlreadyExists,
    Conflict,
    DeviceApiError,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
    UpdateAborted,
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
    "NotSynced",
    "PermissionDenied",
    "RpcFailed",
    "Unavailable",
    "Unreachable",
    "UpdateAborted",
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


class NotSynced(Unavailable):
    """The informer has not seen its first list yet: it knows nothing, which is not the same as
    that there is nothing."""


class ConfigurationError(DeviceApiError):
    """An option of this client is wrong; the message names it and what it may be."""


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
        UpdateAborted,
        WatchExpired,
        Unavailable,
    )
}


SLOW_WATCHER = "slow-watcher"
"""The reason of ``LimitExceeded`` after which a client lists again at once."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ended, as the transport tells it. ``connected`` is whether the connection stood
    when that was seen: gRPC gives one status to "cannot connect" and to a server that says it is
    unavailable."""

    status: str
    message: str
    reason: str
    connected: bool

    def error(self, target: str, timeout_seconds: float) -> DeviceApiError:
        """The error that it stands for, of a call to ``target`` with that deadline."""
        if self.status == DeadlineExceeded.code:
            return DeadlineExceeded(
                f"no answer from {target} within {timeout_seconds:g} s", target=target
            )
        if self.status == NotServed.code:
            return NotServed(f"{target} does not offer this service ({self.message})")
        if self.status == Unavailable.code and not self.reason and not self.connected:
            return Unreachable(self.message, target=target)
        return from_status(self.status, self.message, self.reason)


def reason_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The reason among a call's trailing metadata, empty if there is none."""
    for key, value in metadata or ():
        if key == REASON_METADATA:
            return value if isinstance(value, str) else value.decode()
    return ""


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
