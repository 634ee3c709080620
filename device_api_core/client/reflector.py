"""The reflector of threads: takes the steps that a follower decides, until it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from device_api_core.client.endpoint import Caller
from device_api_core.client.errors import DeviceApiError, Unavailable
from device_api_core.client.kinds import Kind, T
from device_api_core.client.reflection import Follower, List, Pause, Step, WatchFrom
from device_api_core.client.stopping import Stop
from device_api_core.client.watch import Watch, WatchEvent

STALLED = "the watch was ended from this side: it owed changes that a list had shown"


class Reflector(Generic[T]):
    """List, watch, and pause in the caller's thread. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        caller: Caller,
        kind: Kind[T, Any, Any],
        follower: Follower[T],
        stop: Stop,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._caller = caller
        self._kind = kind
        self._follower = follower
        self._stop = stop
        self._clock = clock
        self._watch: Watch[WatchEvent[T]] | None = None

    def run(self) -> None:
        """Until ``stop`` is set or the follower has finished."""
        while not self._over():
            try:
                self._take(self._follower.step())
            except DeviceApiError as error:
                if not self._over():
                    self._follower.failed(error)

    def interrupt(self) -> None:
        """End the present watch, if there is one; the next one resumes it. From any thread."""
        if (watch := self._watch) is not None:
            watch.close()

    def _take(self, step: Step) -> None:
        if isinstance(step, Pause):
            self._stop.wait(step.seconds)
        elif isinstance(step, List):
            began = self._clock()
            self._follower.listed(self._caller.call(self._kind.list(), stop=self._stop), began)
        else:
            self._follow(step)

    def _follow(self, step: WatchFrom) -> None:
        streaming = self._kind.watch(step.resource_version, allow_bookmarks=True)
        with self._caller.stream(streaming) as self._watch, self._stop.bound(self._watch.close):
            for event in self._watch:
                self._follower.received(event)
                if self._over():
                    return
        if not self._over():
            raise Unavailable(STALLED)

    def _over(self) -> bool:
        return self._stop.is_set() or self._follower.finished
