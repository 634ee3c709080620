"""The seam between services and what carries them.

A service is a table of methods that take and give bytes; a transport listens, moves the bytes and
turns errors into statuses. Transports are found in the entry-point group
``device_api.transports``; ``grpcio`` is the built-in one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from device_api_core.entry_points import entry_points
from device_api_core.errors import DeviceApiError, SettingsError
from device_api_core.intake import Saving
from device_api_core.metrics import Calls, Metrics
from device_api_core.server.limits import Limiter
from device_api_core.server.sockets import SocketClaim
from device_api_core.server.tls import TlsFiles
from device_api_core.validation import MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ENTRY_POINT_GROUP = "device_api.transports"
CONSUMER_FLAG = "--grpc-address"
REASON_KEY = "device-api-reason"
"""Trailing metadata that tells apart errors with one status."""

CALLER: ContextVar[frozenset[str]] = ContextVar("caller", default=frozenset())
"""The names in the caller's client certificate: its common name, its DNS names and its URIs. Set by
the transport for each call of a face with ``client_ca_file``; empty everywhere else."""


Answer = Callable[[bytes], Awaitable[bytes]]
"""One request in, one response out."""


class EventStream(Protocol):
    """The answer of a streaming method. :class:`device_api_core.watch.Subscription` is one."""

    error: DeviceApiError | None
    on_end: Callable[[], None] | None
    on_ready: Callable[[], None] | None
    on_event: Callable[[bytes], bool] | None
    """Offered each event that nothing waits before; takes it by returning True. Must not raise."""

    def take(self) -> bytes | None:
        """The next message, ``None`` if there is none yet (``on_ready`` tells when there is);
        raises the error that ends the stream."""

    async def next(self) -> bytes:
        """The next message; raises the error that ends the stream."""

    def close(self) -> None:
        """The client is gone, or has the error."""


class Unary(NamedTuple):
    """One request, one response. ``writes`` is whether it changes what others read. ``known`` are
    answers that may be given without a call, by request: the table is emptied, in the same step,
    with whatever makes one of them untrue."""

    service: str
    name: str
    call: Answer
    writes: bool = False
    known: dict[bytes, bytes] | None = None

    @property
    def kind(self) -> str:
        """What sort of method it is, for the metrics."""
        return "unary"


class ServerStream(NamedTuple):
    """One request, many responses until an error ends them or the client goes."""

    service: str
    name: str
    open: Callable[[bytes], Awaitable[EventStream]]

    @property
    def kind(self) -> str:
        """What sort of method it is, for the metrics."""
        return "server_stream"


class Exchange(NamedTuple):
    """Many requests, many responses. ``run`` reads the requests, whose end is the caller's
    half-close, and sends responses; it is cancelled when the caller is gone. ``writes`` as for
    :class:`Unary`."""

    service: str
    name: str
    run: Callable[[AsyncIterator[bytes], Callable[[bytes], Awaitable[None]]], Awaitable[None]]
    writes: bool = False

    @property
    def kind(self) -> str:
        """What sort of method it is, for the metrics."""
        return "bidi_stream"


Method = Unary | ServerStream | Exchange


@dataclass(frozen=True, slots=True)
class Face:
    """What one group of callers may reach: some methods on a unix socket, on TCP or on both.

    ``unix_socket`` and ``tcp_address`` may be empty; ``unix_mode`` are the socket file's
    permissions. ``tcp_flag`` is the setting that the address comes from, for messages. ``tls`` is
    for TCP: plain without. The rest is how much clients may ask for.
    """

    methods: tuple[Method, ...]
    unix_socket: str = ""
    unix_mode: int = 0o600
    tcp_address: str = ""
    tcp_flag: str = CONSUMER_FLAG
    tls: TlsFiles | None = None
    max_request_bytes: int = MAX_MESSAGE_BYTES
    max_connections: int = 128
    limiter: Limiter = field(default_factory=Limiter)

    @property
    def services(self) -> tuple[str, ...]:
        """The full service names, each once."""
        return tuple(dict.fromkeys(m.service for m in self.methods))


class Listening(Protocol):
    """A face that is being served."""

    tcp_port: int
    """The bound port; 0 without TCP."""
    claim: SocketClaim | None
    """The right to its unix socket; ``None`` without one."""

    async def rebind(self) -> None:
        """Renew the claim and bind its socket once more, since clients no longer find it. Calls and
        streams that are open go on. Raises ``SettingsError`` or ``OSError`` if that cannot be
        now."""

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers for every service of the face."""

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones finish for ``grace_seconds``, then cut them."""


class Transport(Protocol):
    """Listens for a face. Raises ``SettingsError`` if an address cannot be had."""

    async def listen(self, face: Face, metrics: Metrics) -> Listening: ...


def load_transport(name: str) -> Transport:
    """The transport of that name. Raises ``SettingsError`` if it is not installed."""
    if name == "grpcio":
        # Imported only when chosen: another transport must not pay for grpc.
        from device_api_core.server.grpcio import GrpcioTransport

        return GrpcioTransport()
    found = [point for point in entry_points(ENTRY_POINT_GROUP) if point.name == name]
    if not found:
        raise SettingsError(
            f"--transport: {name!r} is not installed; grpcio is always there, others come with "
            f"packages such as device-api-transport-{name}"
        )
    try:
        chosen: Transport = found[0].load()()
    except ImportError as error:
        raise SettingsError(f"--transport: {name!r} cannot be loaded: {error}") from error
    return chosen


async def recorded(method: Method, call: Awaitable[Result], calls: Calls) -> Result:
    """Wait for a call and record its end. Raises nothing but :class:`DeviceApiError`."""
    calls.started += 1
    started = time.perf_counter()
    code = "CANCELLED"
    try:
        response = await call
        code = "OK"
    except DeviceApiError as error:
        code = error.code
        raise
    except Exception as error:
        # The last handler before the wire: whatever it is, the caller gets a status and the log
        # gets the traceback; details must not leak to the caller.
        code = DeviceApiError.code
        raise internal(method) from error
    finally:
        calls.finished(code, time.perf_counter() - started)
    return response


async def kept(saving: Saving | None) -> None:
    """Wait until what was changed in this step is on the disk; ``None`` keeps nothing."""
    if saving is not None and (written := saving()) is not None:
        await written


def kept_first(call: Answer, saving: Saving | None) -> Answer:
    """The same call, answered once what it changed is on the disk."""

    async def answered(request: bytes) -> bytes:
        response = await call(request)
        # No other call came in between, for the calls of a service do not wait.
        await kept(saving)
        return response

    return answered if saving is not None else call


def internal(method: Method) -> DeviceApiError:
    """The answer for a defect of this program, which is logged with its traceback."""
    logger.exception("%s failed", method.name, extra={"service": method.service})
    return DeviceApiError("internal error; the server's log has the details")


def count_stream(error: DeviceApiError | None, calls: Calls) -> None:
    """Record the end of a stream; without an error its client has left."""
    calls.finished(error.code if error else "CANCELLED")


def trailing_metadata(error: DeviceApiError) -> Sequence[tuple[str, str]]:
    """What the status alone does not say."""
    return ((REASON_KEY, error.reason),) if error.reason else ()
