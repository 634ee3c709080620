"""The reads of any kind, for asyncio; see :mod:`device_api_core.client.reads`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic

from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.aio.reflector import AsyncReflector
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.errors import DeadlineExceeded
from device_api_core.client.kinds import E, Kind, L, T
from device_api_core.client.waiting import Waiting


class AsyncReads(Generic[T, L, E]):
    """Reads of one kind; see :class:`~device_api_core.client.reads.Reads`."""

    def __init__(self, caller: AsyncCaller, kind: Kind[T, L, E]) -> None:
        self.caller = caller
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.caller.target}>"

    async def get(self, name: str, *, timeout_seconds: float | None = None) -> T:
        """One object by its exact name. Raises ``NotFound``."""
        return await self.caller.call(self.kind.get(name), timeout_seconds)

    async def list(self, *, timeout_seconds: float | None = None) -> L:
        """All objects, sorted by name."""
        return await self.caller.call(self.kind.list(), timeout_seconds)

    def watch(
        self,
        resource_version: int | None = None,
        *,
        allow_bookmarks: bool = False,
        send_initial_events: bool = False,
    ) -> AsyncWatch[E]:
        """Changes from now on, preceded by the present objects as ``ADDED``; or, with a version of
        this server, exactly the changes after it."""
        return self.caller.stream(
            self.kind.watch(
                resource_version,
                allow_bookmarks=allow_bookmarks,
                send_initial_events=send_initial_events,
            )
        )

    async def wait_for(
        self, name: str, condition: Callable[[T], bool], *, timeout_seconds: float = 60.0
    ) -> T:
        """Wait until the object exists and ``condition`` holds for it; returns it as it was then.
        Outlives restarts of the server. Raises ``DeadlineExceeded``."""
        found = await self._wait(Waiting(self.kind, name, condition), timeout_seconds)
        assert found is not None
        return found

    async def wait_for_deletion(self, name: str, *, timeout_seconds: float = 60.0) -> None:
        """Wait until no object has that name. Raises ``DeadlineExceeded``."""
        await self._wait(Waiting(self.kind, name, None), timeout_seconds)

    async def _wait(self, waiting: Waiting[T], timeout_seconds: float) -> T | None:
        reflector = AsyncReflector(self.caller, self.kind, waiting, clock=time.monotonic)
        try:
            async with asyncio.timeout(timeout_seconds):
                await reflector.run()
        except TimeoutError:
            raise DeadlineExceeded(
                waiting.too_late(timeout_seconds), target=self.caller.target
            ) from None
        return waiting.found
