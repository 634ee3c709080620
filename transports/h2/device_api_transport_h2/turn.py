"""The end of a turn of the event loop, when connections send what their calls have said in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turn:
    """What is to be done then. One look of the loop serves all connections, however many have the
    same event to send."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def end_with(self, flush: Callable[[], None]) -> None:
        """Call ``flush`` once at the end of this turn."""
        self._due.append(flush)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._scheduled = False
        try:
            # Not those that come meanwhile: the loop has other work, too.
            for _ in range(len(self._due)):
                self._due.popleft()()
        finally:
            if self._due:
                self._schedule()
