"""The reflector of asyncio: takes the steps that a follower decides, until its task ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic

from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.errors import DeviceApiError, Unavailable
from device_api_core.client.kinds import Kind, T
from device_api_core.client.reflection import Follower, List, Pause, Step, WatchFrom
from device_api_core.client.reflector import STALLED
from device_api_core.client.watch import WatchEvent


class AsyncReflector(Generic[T]):
    """List, watch, and pause in the caller's task. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        caller: AsyncCaller,
        kind: Kind[T, Any, Any],
        follower: Follower[T],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._caller = caller
        self._kind = kind
        self._follower = follower
        self._clock = clock
        self._watch: AsyncWatch[WatchEvent[T]] | None = None

    async def run(self) -> None:
        """Until the follower has finished."""
        while not self._follower.finished:
            try:
                await self._take(self._follower.step())
            except DeviceApiError as error:
                self._follower.failed(error)

    def interrupt(self) -> None:
        """End the present watch, if there is one; the next one resumes it."""
        if self._watch is not None:
            self._watch.close()

    async def _take(self, step: Step) -> None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, List):
            began = self._clock()
            self._follower.listed(await self._caller.call(self._kind.list()), began)
        else:
            await self._follow(step)

    async def _follow(self, step: WatchFrom) -> None:
        streaming = self._kind.watch(step.resource_version, allow_bookmarks=True)
        async with self._caller.stream(streaming) as self._watch:
            async for event in self._watch:
                self._follower.received(event)
                if self._follower.finished:
                    return
        raise Unavailable(STALLED)
