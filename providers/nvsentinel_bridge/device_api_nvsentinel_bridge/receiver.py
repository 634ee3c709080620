"""The gRPC server that NVSentinel's sink sends to.

The sink sends everything it has, healthy and store-only events too, and at least once. After an
error it sends the whole batch again, a few times, and then drops it for good (behaviour of the
sink, NVSentinel of July 2026). So events that have no effect are answered with OK, and an error
means that nothing of the batch was taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import grpc
from google.protobuf.message import DecodeError

from device_api_core.errors import (
    DeviceApiError,
    InvalidArgument,
    LimitExceeded,
    SettingsError,
    Unavailable,
)
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge.counts import Count, Counts
from device_api_nvsentinel_bridge.events import has_unknown_enum, lacks_custom_action, screen
from device_api_nvsentinel_bridge.listening import listening
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.tokens import TokenFile

SERVICE = "datamodels.PlatformConnector"
METHOD = "HealthEventOccurredV1"
_MAX_BYTES = 4 * 1024 * 1024
_WORKERS = 8
_MAX_CALLS = 64
_STOP_SECONDS = 1.0
_LOOPBACK = ("127.", "localhost:", "[::1]:")
_log = logging.getLogger(__name__)

Keep = Callable[[Sequence[pb.HealthEvent], int], None]


class Receiver:
    """Serves from entering the ``with`` block to its end. ``keep`` makes events durable;
    ``backlog`` says how many wait for the daemon.

    Raises:
        SettingsError: on entry; a socket, an address or the token file cannot be used.
    """

    def __init__(
        self, options: BridgeOptions, counts: Counts, *, keep: Keep, backlog: Callable[[], int]
    ) -> None:
        self._options = options
        self._counts = counts
        self._keep = keep
        self._backlog = backlog
        self._token: TokenFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Receiver:
        with ExitStack() as stack:
            self._serve(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _serve(self, stack: ExitStack) -> None:
        options = self._options
        if options.token_file:
            self._token = TokenFile(options.token_file)
        workers = stack.enter_context(
            ThreadPoolExecutor(_WORKERS, thread_name_prefix="nvsentinel receiver")
        )
        server = grpc.server(
            workers,
            maximum_concurrent_rpcs=_MAX_CALLS,
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_BYTES)],
        )
        # Bytes in: gRPC would answer what is no message with INTERNAL, and count nothing.
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._received
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
        )

        def bind(address: str) -> None:
            try:
                server.add_insecure_port(address)
            except RuntimeError as error:
                raise SettingsError(f"cannot listen on {address}: {error}") from error

        if options.tcp_address:
            bind(options.tcp_address)
            if self._token is None and not options.tcp_address.startswith(_LOOPBACK):
                _log.warning(
                    "anyone who reaches the TCP address can send health events: set token_file",
                    extra={"address": options.tcp_address},
                )
        if options.socket:
            stack.enter_context(
                listening(
                    Path(options.socket),
                    int(options.socket_mode, 8),
                    lambda path: bind(f"unix:{path}"),
                )
            )
        server.start()
        stack.callback(lambda: server.stop(_STOP_SECONDS).wait())

    def _received(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._token is not None:
            self._authenticate(self._token, context)
        try:
            self._take(request)
        except DeviceApiError as error:
            invalid = isinstance(error, InvalidArgument)
            self._refuse(context, Count.INVALID if invalid else Count.REFUSED, error)
        return b""

    def _authenticate(self, token: TokenFile, context: grpc.ServicerContext) -> None:
        given = [v for k, v in context.invocation_metadata() or () if k == "authorization"]
        try:
            allowed = len(given) == 1 and token.allows(given[0])
        except SettingsError as error:
            # The token may just be replaced. NVSentinel will come again.
            self._refuse(context, Count.REFUSED, Unavailable(error.message))
        if not allowed:
            if self._counts.add(Count.UNAUTHENTICATED) == 1:
                _log.warning("refused a call without the right token")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid bearer token is required")

    def _refuse(
        self, context: grpc.ServicerContext, count: Count, error: DeviceApiError
    ) -> NoReturn:
        if self._counts.add(count) == 1:
            _log.warning("refused a call", extra={"error": error.message})
        context.abort(grpc.StatusCode[error.code], error.message)

    def _take(self, request: bytes) -> None:
        """Raises the error to answer with; then nothing was taken."""
        try:
            events = pb.HealthEvents.FromString(request).events
        except DecodeError as error:
            raise InvalidArgument("request", "is not a datamodels.HealthEvents message") from error
        for i, event in enumerate(events):
            if lacks_custom_action(event):
                raise InvalidArgument(
                    f"events[{i}].customRecommendedAction",
                    "must not be empty when recommendedAction is CUSTOM",
                )
        screened = [(event, screen(event, self._options)) for event in events]
        kept = [event for event, ignored in screened if ignored is None]
        if kept:
            self._make_durable(kept)
        for event, ignored in screened:
            self._count(event, ignored)

    def _make_durable(self, events: Sequence[pb.HealthEvent]) -> None:
        if self._backlog() >= self._options.backlog_limit:
            raise LimitExceeded("too many events wait for the daemon: send them again later")
        self._keep(events, time.time_ns())

    def _count(self, event: pb.HealthEvent, ignored: Count | None) -> None:
        number = self._counts.add(ignored or Count.ACCEPTED)
        if has_unknown_enum(event):
            self._counts.add(Count.UNKNOWN_ENUM)
        if ignored is Count.OTHER_NODE and number == 1:
            _log.warning(
                "ignored an event of another node",
                extra={"its_node": event.nodeName, "this_node": self._options.node},
            )
