"""The clientset for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from device_api_core.client.aio.admin import AsyncAdmin
from device_api_core.client.aio.endpoint import AsyncCaller, AsyncEndpoint
from device_api_core.client.aio.v1alpha1 import AsyncV1Alpha1
from device_api_core.client.options import Options
from device_api_core.client.targets import Targets


class AsyncClientset:
    """All services of one server, for one event loop. Make it with :meth:`connect` in a coroutine;
    close it, or use ``async with``."""

    def __init__(self, consumers: AsyncCaller, providers: AsyncCaller) -> None:
        self._callers = {consumers, providers}
        self.v1alpha1 = AsyncV1Alpha1(consumers, providers)
        self.admin = AsyncAdmin(providers)

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        *,
        provider_target: str | None = None,
        timeout_seconds: float | None = None,
        options: Options | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> Self:
        """The same as :meth:`device_api_core.client.Clientset.connect`, with the interceptors of
        ``grpc.aio``."""
        targets = Targets.choose(target, provider_target)
        chosen = Options.choose(options, timeout_seconds)
        consumers = AsyncEndpoint(targets.consumers, chosen, interceptors)
        if targets.providers == targets.consumers:
            return cls(consumers, consumers)
        providers = AsyncEndpoint(targets.providers, chosen, interceptors)
        return cls(consumers, providers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {sorted(caller.target for caller in self._callers)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls and watches in flight fail. May be repeated."""
        for caller in self._callers:
            await caller.close()
