"""Routes: which method a path names, and where its calls are recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from device_api_core.errors import DeviceApiError
from device_api_core.metrics import Calls, Metrics
from device_api_core.server.transport import Method, Unary, count_stream, recorded

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Route:
    """One method."""

    method: Method
    calls: Calls

    def answer(self, request: bytes) -> Coroutine[Any, Any, bytes]:
        """A unary call, which is recorded. Raises nothing but ``DeviceApiError``."""
        assert isinstance(self.method, Unary)
        return recorded(self.method, self.method.call(request), self.calls)

    async def recorded(self, call: Awaitable[Result]) -> Result:
        """Wait for a call and record its end. Raises nothing but ``DeviceApiError``."""
        return await recorded(self.method, call, self.calls)

    def began(self) -> None:
        """Record the beginning of a watch."""
        self.calls.started += 1

    def ended(self, error: DeviceApiError | None) -> None:
        """Record the end of a watch."""
        count_stream(error, self.calls)


def routes(methods: Iterable[Method], metrics: Metrics) -> dict[bytes, Route]:
    """The methods by path."""
    return {
        f"/{m.service}/{m.name}".encode(): Route(m, metrics.calls(m.service, m.name, m.kind))
        for m in methods
    }
