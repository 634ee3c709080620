"""Routes: which method a request is for, whose turn its calls wait for, where they are recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from device_api_core.errors import DeviceApiError
from device_api_core.metrics import Calls, Metrics
from device_api_core.server.limits import Limiter, Peer
from device_api_core.server.transport import (
    EventStream,
    Exchange,
    Method,
    ServerStream,
    Unary,
    count_stream,
    recorded,
)
from device_api_transport_h2 import _engine
from device_api_transport_h2.status import UNCOMPRESSED_ONLY, Trailers, http_refusal, trailers

Head = tuple[bytes, bytes, bytes | None, float | None, bytes | None]
"""Of a request, as the engine tells it: path, HTTP method, content-type, seconds to the caller's
deadline, encoding of the messages."""


class Route(NamedTuple):
    """One method."""

    method: Method
    calls: Calls
    limiter: Limiter

    def answer(self, peer: Peer, request: bytes) -> Coroutine[Any, Any, bytes]:
        """A peer's unary call. Raises nothing but ``DeviceApiError``."""
        method = self.method
        assert isinstance(method, Unary)
        call = self.limiter.call(peer, method.call, request, writes=method.writes)
        return recorded(method, call, self.calls)

    def open(self, peer: Peer, request: bytes) -> Coroutine[Any, Any, EventStream]:
        """A peer's watch. Its beginning and its end are for the caller to record."""
        method = self.method
        assert isinstance(method, ServerStream)
        return self.limiter.call(peer, method.open, request, writes=False)

    def exchange(
        self,
        peer: Peer,
        requests: AsyncIterator[bytes],
        respond: Callable[[bytes], Awaitable[None]],
    ) -> Coroutine[Any, Any, None]:
        """A peer's exchange. Raises nothing but ``DeviceApiError``."""
        method = self.method
        assert isinstance(method, Exchange)

        def run(each: AsyncIterator[bytes]) -> Awaitable[None]:
            return method.run(each, respond)

        call = self.limiter.exchange(peer, run, requests, writes=method.writes)
        return recorded(method, call, self.calls)

    def began(self) -> None:
        """Record the beginning of a watch."""
        self.calls.started += 1

    def ended(self, error: DeviceApiError | None) -> None:
        """Record the end of a watch."""
        count_stream(error, self.calls)


def routes(methods: Iterable[Method], metrics: Metrics, limiter: Limiter) -> dict[bytes, Route]:
    """The methods by path."""
    return {
        f"/{m.service}/{m.name}".encode(): Route(
            m, metrics.calls(m.service, m.name, m.kind), limiter
        )
        for m in methods
    }


def known_answers(table: Mapping[bytes, Route]) -> dict[bytes, _engine.Answers]:
    """What the engine may answer without asking, by path."""
    answers: dict[bytes, _engine.Answers] = {}
    for path, route in table.items():
        if isinstance(route.method, Unary) and route.method.known is not None:
            answers[path] = _engine.Answers(route.method.known)
            route.calls.elsewhere.append(answers[path].take)
    return answers


class Refused(Exception):
    """A request is for no route. ``status`` is HTTP's, for one that is not gRPC."""

    def __init__(self, ending: Trailers, status: str | None = None) -> None:
        super().__init__(ending, status)
        self.trailers = ending
        self.status = status


def route_of(head: Head, table: Mapping[bytes, Route]) -> Route:
    """The route of a request. Raises :class:`Refused`."""
    path, method, content_type, timeout, encoding = head
    if (status := http_refusal(method, content_type)) is not None:
        raise Refused((), status)
    route = table.get(path)
    if route is None:
        text = f"there is no method {path.decode(errors='replace')[:128]}"
        raise Refused(trailers("UNIMPLEMENTED", text))
    if encoding not in {None, b"identity"}:
        raise Refused(UNCOMPRESSED_ONLY)
    if timeout is not None and timeout < 0:
        raise Refused(trailers("INTERNAL", "grpc-timeout is malformed"))
    return route
