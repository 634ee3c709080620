"""The limits of a face, applied to what grpc.aio calls."""

from __future__ import annotations

from typing import Any

import grpc

from device_api_core.errors import DeviceApiError, LimitExceeded
from device_api_core.server.limits import Limiter, Peer
from device_api_core.server.transport import CALLER, trailing_metadata

_UNIX = "unix:"
"""How every client of a unix socket is called. What may follow is a name that it chose itself."""

Context = grpc.aio.ServicerContext[Any, Any]


class Guard:
    """Tells peers apart, as far as grpc.aio does: by the names in a certificate, else by the
    address of the connection. Clients of a unix socket all have the same one."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter

    def peer(self, context: Context) -> Peer:
        """The account of who calls."""
        address = context.peer()
        if address.startswith(_UNIX):
            return self.limiter.everybody
        return self.limiter.peer(CALLER.get() or address)


class Unknown(grpc.GenericRpcHandler):
    """Answers what nobody else does, at the caller's pace."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def refuse(_requests: Any, context: Context) -> None:
            try:
                await self._guard.limiter.turn(self._guard.peer(context))
            except LimitExceeded as error:
                await abort(context, error)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

        # As a stream, since the caller may be calling anything.
        return grpc.stream_stream_rpc_method_handler(refuse)


async def abort(context: Context, error: DeviceApiError) -> None:
    """End the call with the error's status and reason."""
    await context.abort(grpc.StatusCode[error.code], error.message, tuple(trailing_metadata(error)))
