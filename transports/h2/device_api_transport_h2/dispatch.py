"""Dispatch: which of a connection's calls hears what its client says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from device_api_core.errors import DeviceApiError, LimitExceeded
from device_api_core.server.limits import Peer
from device_api_core.server.transport import Exchange, Method, ServerStream, Unary
from device_api_transport_h2 import _engine
from device_api_transport_h2.calls import Call, ExchangeCall, UnaryCall, WatchCall
from device_api_transport_h2.routes import Head, Refused, Route, route_of
from device_api_transport_h2.status import code_name, trailers, trailers_of

if TYPE_CHECKING:
    from device_api_transport_h2.connection import Connection

_CALLS: dict[type[Method], type[Call]] = {
    Unary: UnaryCall,
    ServerStream: WatchCall,
    Exchange: ExchangeCall,
}


class Calls:
    """The calls of one connection that are not answered yet, by their streams."""

    def __init__(self, connection: Connection, routes: Mapping[bytes, Route]) -> None:
        self._connection = connection
        self._routes = routes
        self._open: dict[int, Call] = {}
        # In the order of the events' numbers.
        self._handlers: tuple[Callable[[int, Any], None], ...] = (
            self._on_opened,
            self._on_message,
            self._on_ended,
            self._on_refused,
            self._on_closed,
            self._on_request,
        )

    @property
    def idle(self) -> bool:
        """Whether there are none."""
        return not self._open

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Of the calls that wait for something."""
        return [call.task for call in self._open.values() if call.task is not None]

    def heed(self, events: Iterable[_engine.Event]) -> None:
        """Pass on what the engine has heard."""
        for kind, stream, value in events:
            self._handlers[kind](stream, value)

    def forget(self, stream: int) -> None:
        """The call on that stream, if there is one, is over."""
        if (call := self._open.pop(stream, None)) is not None:
            call.closed()

    def refuse(self, stream: int, refused: Refused) -> None:
        """End a request that breaks a rule. A refusal waits for its turn as an answer does, or who
        wants everything would ask for refusals."""
        self.forget(stream)
        peer = self._connection.peer
        try:
            delay = peer.arrive(writes=False)
        except LimitExceeded as error:
            delay, refused = 0.0, Refused(trailers_of(error))
        peer.calls += 1
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._refused, stream, refused, peer)
        else:
            self._refused(stream, refused, peer)

    def close(self) -> None:
        """The connection is lost."""
        for stream in tuple(self._open):
            self.forget(stream)

    def _refused(self, stream: int, refused: Refused, peer: Peer) -> None:
        peer.calls -= 1
        self._connection.finish(stream, refused.trailers, drop=True, status=refused.status)

    def _on_request(self, stream: int, value: Any) -> None:
        head, message = value
        route = self._route(stream, head)
        if route is None:
            return
        if not isinstance(route.method, Unary):
            call = _call(self._connection, stream, route)
            self._begin(call, head)
            call.message(message)
            call.ended()
            return
        answer = route.answer(self._connection.peer, message)
        try:
            waited = answer.send(None)
        except StopIteration as stop:
            self._connection.reply(stream, stop.value)
            if route.method.known is not None:
                self._connection.grant()
        except DeviceApiError as error:
            self._connection.finish(stream, trailers_of(error))
        else:
            waiting = UnaryCall(self._connection, stream, route)
            self._begin(waiting, head)
            waiting.wait(answer, waited)

    def _on_opened(self, stream: int, head: Head) -> None:
        if (route := self._route(stream, head)) is not None:
            self._begin(_call(self._connection, stream, route), head)

    def _route(self, stream: int, head: Head) -> Route | None:
        """Where a request goes; ``None`` if it was refused."""
        try:
            return route_of(head, self._routes)
        except Refused as refused:
            self.refuse(stream, refused)
            return None

    def _begin(self, call: Call, head: Head) -> None:
        self._open[call.id] = call
        _path, _method, _content_type, seconds, _encoding = head
        if seconds is not None:
            call.end_within(seconds)

    def _on_message(self, stream: int, data: Any) -> None:
        if (call := self._open.get(stream)) is not None:
            call.message(data)

    def _on_ended(self, stream: int, _value: Any) -> None:
        if (call := self._open.get(stream)) is not None:
            call.ended()

    def _on_refused(self, stream: int, value: Any) -> None:
        code, text = value
        self.refuse(stream, Refused(trailers(code_name(code), text)))

    def _on_closed(self, stream: int, _value: Any) -> None:
        self.forget(stream)


def _call(connection: Connection, stream: int, route: Route) -> Call:
    return _CALLS[type(route.method)](connection, stream, route)
