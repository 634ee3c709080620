"""A provider in a daemon thread of this process: the cheap home.

A thread that is stuck in a vendor call cannot be killed; it is abandoned with its sink closed.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from device_api_core.intake import LEASE_INTERVALS, Intake
from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.homes import Hearing, run_to_end, tell_cleared
from device_api_core.plugins.sink import ThreadSink
from device_api_core.plugins.spec import Provider

logger = logging.getLogger(__name__)


class ThreadHome:
    """Starts providers in threads."""

    name = "thread"

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def start(self, plugin: Plugin, hearing: Hearing) -> ThreadRun:
        """See :class:`~device_api_core.plugins.homes.Home`."""
        provider = plugin.create()
        loop = asyncio.get_running_loop()
        sink = ThreadSink(
            plugin.name,
            provider.types,
            loop=loop,
            intake=self._intake,
            synced=hearing.synced,
            summary=hearing.summary,
        )
        return ThreadRun(provider, sink, loop)


class ThreadRun:
    """One thread. See :class:`~device_api_core.plugins.homes.Run`."""

    def __init__(
        self, provider: Provider, sink: ThreadSink, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.ended = asyncio.Event()
        self.outcome = ""
        self.lease_seconds = LEASE_INTERVALS * provider.interval_seconds
        self._provider = provider
        self._sink = sink
        self._loop = loop
        self._stop = threading.Event()
        name = f"provider {provider.name}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def ask_to_stop(self) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        self._stop.set()

    def clear(self, gpu: str, type_: str) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        tell_cleared(self._provider, gpu, type_)

    async def put_down(self, why: str) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        self._stop.set()
        self._sink.close(why)

    def _run(self) -> None:
        self.outcome = run_to_end(self._provider, self._sink, self._stop)
        try:
            self._loop.call_soon_threadsafe(self.ended.set)
        except RuntimeError:
            # The daemon has exited meanwhile; nobody waits for this thread any more.
            logger.debug("provider ended after the server", extra={"provider": self._provider.name})
