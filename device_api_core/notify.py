"""Telling systemd how the daemon is: ready, alive, stopping.

The protocol of sd_notify(3) is one datagram of ``NAME=value`` lines to the socket that
``NOTIFY_SOCKET`` names. Without that variable nothing is said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)

_MICROSECONDS = 1_000_000


class ServiceNotifier:
    """The service manager's ear. ``environment`` loses the variables, so that no child process
    speaks for the daemon."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        # systemd writes @ for the null byte of an abstract socket.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        period = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        self.watchdog_seconds = 0.0
        """How long systemd waits for a sign of life before it restarts the daemon; 0 for ever."""
        if self._address and period.isdecimal() and pid == str(os.getpid()):
            self.watchdog_seconds = int(period) / _MICROSECONDS

    def tell(self, **facts: object) -> None:
        """Send facts under their names in sd_notify(3). A manager that does not listen is logged,
        and never stops the daemon."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in facts.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            # Never at the price of the event loop: a full queue is the manager's own trouble.
            channel.setblocking(False)
            try:
                channel.sendto(text.encode(), self._address)
            except OSError as error:
                logger.warning("cannot notify systemd", extra={"error": error.strerror})

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While inside, the running event loop gives signs of life, twice as often as asked for."""
        if not self.watchdog_seconds:
            yield
            return
        beating = asyncio.create_task(self._beat(self.watchdog_seconds / 2), name="watchdog")
        try:
            yield
        finally:
            beating.cancel()

    async def _beat(self, seconds: float) -> None:
        while True:
            self.tell(WATCHDOG=1)
            await asyncio.sleep(seconds)
