"""Unix sockets stay where clients look for them.

Somebody may remove a socket or its directory under a server that runs, or put something else in its
place. Who is connected goes on, nobody else can come, and the server itself would never notice. The
kernel tells of it, which costs nothing as long as nothing happens. A directory further up that has
moved it does not tell of: that is seen at the next question for readiness or metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from device_api_core.errors import SettingsError
from device_api_core.server.inotify import Inotify
from device_api_core.server.sockets import SocketClaim
from device_api_core.server.transport import Listening

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""Between two looks at a socket that is missing, or at all where the kernel does not tell."""
_FIRST_PAUSE_SECONDS = 0.5
"""Before a socket is made again: who removes a directory and all that is in it has to finish."""
_LONGEST_PAUSE_SECONDS = 30.0
_CALM_SECONDS = 60.0
"""What is lost again sooner is made again later each time: somebody does not want it there."""


class Sockets(NamedTuple):
    """How often one was lost, how many are missing now and why, empty if none is. ``for_good`` is
    whether only a restart brings one back."""

    lost: int
    missing: int
    trouble: str
    for_good: bool


class Caretaker:
    """Notices when a socket is gone and has it made again. Lives on the event loop."""

    def __init__(self) -> None:
        self._sockets: list[_Socket] = []
        self._inotify: Inotify | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, listening: Iterable[Listening]) -> None:
        """Look after the sockets of what listens."""
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._look_by_itself(error)
        else:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._told)
        for each in listening:
            if each.claim is not None:
                self._sockets.append(_Socket(each, each.claim, self._watch))
                self._watch(each.claim)

    async def stop(self) -> None:
        """Leave the sockets as they are."""
        if self._timer is not None:
            self._timer.cancel()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        tasks = [each.mending for each in self._sockets if each.mending is not None]
        self._sockets.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def observe(self) -> Sockets:
        """How the sockets are now."""
        self._look()
        missing = [each for each in self._sockets if each.trouble]
        return Sockets(
            lost=sum(each.lost for each in self._sockets),
            missing=len(missing),
            trouble="; ".join(each.trouble for each in missing),
            for_good=any(each.claim.buried for each in missing),
        )

    def _look(self) -> None:
        for each in self._sockets:
            each.look()

    def _told(self) -> None:
        assert self._inotify is not None
        self._inotify.drain()
        self._look()

    def _watch(self, claim: SocketClaim) -> None:
        """Watch a file that was just bound."""
        if self._inotify is None:
            return
        try:
            self._inotify.add(claim.path)
            self._inotify.add(claim.path.parent)
        except FileNotFoundError:
            # Gone again already, before there was anything that could tell.
            self._look()
        except OSError as error:
            self._look_by_itself(error)

    def _look_by_itself(self, error: OSError) -> None:
        if self._timer is None:
            logger.info(
                "the kernel does not tell of files that are removed: looking at the sockets every "
                "second",
                extra={"reason": error.strerror},
            )
            self._tick()

    def _tick(self) -> None:
        self._look()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._tick)


class _Socket:
    """One socket, and why clients do not find it."""

    def __init__(
        self, listening: Listening, claim: SocketClaim, bound: Callable[[SocketClaim], None]
    ) -> None:
        self.claim = claim
        self.lost = 0
        self.trouble = ""
        self.mending: asyncio.Task[None] | None = None
        self._listening = listening
        self._bound = bound
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._calm_from = 0.0

    def look(self) -> None:
        """Begin to mend it if it is gone."""
        if self.mending is None and (trouble := self.claim.trouble()):
            self.lost += 1
            self.trouble = trouble
            logger.error(
                "nobody can connect to a socket any longer",
                extra={"path": str(self.claim.path), "reason": trouble},
            )
            loop = asyncio.get_running_loop()
            if loop.time() > self._calm_from:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            self.mending = loop.create_task(self._mend())

    async def _mend(self) -> None:
        try:
            await self._bind_again()
        finally:
            # Should it end by a defect, the next look begins anew.
            self.mending = None
        self.trouble = ""
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._calm_from = asyncio.get_running_loop().time() + _CALM_SECONDS
        logger.warning("clients can connect again", extra={"path": str(self.claim.path)})
        self._bound(self.claim)

    async def _bind_again(self) -> None:
        await asyncio.sleep(self._pause_seconds)
        while self.claim.trouble():
            try:
                await self._listening.rebind()
            except (SettingsError, OSError) as error:
                self._fail(str(error))
                await asyncio.sleep(_LOOK_SECONDS)

    def _fail(self, reason: str) -> None:
        if reason != self.trouble:
            self.trouble = reason
            logger.error(
                "the socket cannot be made again yet",
                extra={"path": str(self.claim.path), "reason": reason},
            )
