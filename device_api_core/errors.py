"""The errors this project raises, as a tree.

    DeviceApiError
    ├── InvalidArgument      a value breaks a rule; names the field and the rule
    ├── NotFound             no such GPU, condition or provider
    ├── AlreadyExists        a uuid or name is held by another GPU
    ├── Conflict             the condition belongs to another provider, or the state forbids it
    ├── PermissionDenied     the caller may not use this provider id or condition type
    ├── LimitExceeded        a documented limit is reached; nothing was changed
    ├── UpdateAborted        a held update was over before it was ended
    ├── WatchExpired         the watch cannot resume from that version: list again
    ├── Unavailable          not ready yet, or shutting down
    ├── SettingsError        the daemon's own configuration is wrong
    ├── PluginError          a plugin cannot be loaded or breaks its contract
    ├── PublishFailed        a publisher could not tell what it had to
    └── SinkClosed           the provider's sink was closed: stop running

Each class names the gRPC status it becomes on the wire (``code``), as the name of a member of
``grpc.StatusCode``, so that nothing below the transports has to import grpc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

RATE = "rate"
"""The reason of a refusal that passes by itself when the caller waits."""


class DeviceApiError(Exception):
    """Root of every error that this project raises on purpose.

    ``code`` is the gRPC status name. ``reason``, if not empty, travels as the trailing metadata
    ``device-api-reason`` so that clients can tell apart two errors with one status.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class InvalidArgument(DeviceApiError):
    """A value breaks a rule. The message starts with the field's path, for example
    ``condition.status: must be True, False or Unknown, not "Maybe"``."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class NotFound(DeviceApiError):
    """The named GPU, condition or provider does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(DeviceApiError):
    """The uuid or the name is held by another GPU, which the message names."""

    code = "ALREADY_EXISTS"


class Conflict(DeviceApiError):
    """The current state forbids the change: another provider owns the condition, or a fault is
    still held. The message names the holder."""

    code = "FAILED_PRECONDITION"


class PermissionDenied(DeviceApiError):
    """The provider id or the condition type is reserved for a plugin of this server."""

    code = "PERMISSION_DENIED"


class LimitExceeded(DeviceApiError):
    """A documented limit is reached. Nothing was changed."""

    code = "RESOURCE_EXHAUSTED"


class UpdateAborted(DeviceApiError):
    """The held update expired or was aborted before its end; its changes were dropped."""

    code = "ABORTED"


class WatchExpired(DeviceApiError):
    """The requested version is older than the event history or newer than the server."""

    code = "OUT_OF_RANGE"


class Unavailable(DeviceApiError):
    """The server cannot answer truthfully now: it waits for providers or is shutting down."""

    code = "UNAVAILABLE"


class SettingsError(DeviceApiError):
    """The daemon's configuration is wrong; the message names the setting and what it may be."""


class PluginError(DeviceApiError):
    """A plugin cannot be loaded, or what it declares breaks its contract."""


class PublishFailed(DeviceApiError):
    """A publisher could not tell what it had to; the message says why and what to do. It is not to
    be tried again before ``retry_after_seconds`` have passed."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SinkClosed(DeviceApiError):
    """The sink no longer takes anything: the provider was stopped, replaced or fell silent for
    too long. ``Provider.run`` should return when it sees this."""

    code = "UNAVAILABLE"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, outermost first, for plugins that have to say why a library
    failed: libraries wrap errors as causes, as arguments and as a ``reason``."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = [arg for arg in current.args if isinstance(arg, BaseException)]
        reason = getattr(current, "reason", None)
        if isinstance(reason, BaseException):
            inner.append(reason)
        current = inner[0] if inner else current.__cause__ or current.__context__
