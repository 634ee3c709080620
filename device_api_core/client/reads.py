"""The reads of any kind, for threads: get, list, watch, wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic

from device_api_core.client.endpoint import Caller
from device_api_core.client.errors import DeadlineExceeded
from device_api_core.client.kinds import E, Kind, L, T
from device_api_core.client.reflector import Reflector
from device_api_core.client.stopping import Stop
from device_api_core.client.waiting import Waiting
from device_api_core.client.watch import Watch


class Reads(Generic[T, L, E]):
    """Reads of one kind. Every method raises ``Unavailable`` while the server does not know its
    objects, and takes a deadline in seconds instead of the clientset's."""

    def __init__(self, caller: Caller, kind: Kind[T, L, E]) -> None:
        self.caller = caller
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.caller.target}>"

    def get(self, name: str, *, timeout_seconds: float | None = None) -> T:
        """One object by its exact name. Raises ``NotFound``."""
        return self.caller.call(self.kind.get(name), timeout_seconds)

    def list(self, *, timeout_seconds: float | None = None) -> L:
        """All objects, sorted by name."""
        return self.caller.call(self.kind.list(), timeout_seconds)

    def watch(
        self,
        resource_version: int | None = None,
        *,
        allow_bookmarks: bool = False,
        send_initial_events: bool = False,
    ) -> Watch[E]:
        """Changes from now on, preceded by the present objects as ``ADDED``; or, with a version of
        this server, exactly the changes after it.

        With ``allow_bookmarks``, also a ``BOOKMARK`` after 30 s of silence; and with
        ``send_initial_events``, one at the end of the present objects. The stream has no deadline.
        Errors appear when it is iterated.
        """
        return self.caller.stream(
            self.kind.watch(
                resource_version,
                allow_bookmarks=allow_bookmarks,
                send_initial_events=send_initial_events,
            )
        )

    def wait_for(
        self, name: str, condition: Callable[[T], bool], *, timeout_seconds: float = 60.0
    ) -> T:
        """Wait until the object exists and ``condition`` holds for it; returns it as it was then.
        Outlives restarts of the server. Raises ``DeadlineExceeded``."""
        found = self._wait(Waiting(self.kind, name, condition), timeout_seconds)
        assert found is not None
        return found

    def wait_for_deletion(self, name: str, *, timeout_seconds: float = 60.0) -> None:
        """Wait until no object has that name. Raises ``DeadlineExceeded``."""
        self._wait(Waiting(self.kind, name, None), timeout_seconds)

    def _wait(self, waiting: Waiting[T], timeout_seconds: float) -> T | None:
        stop = Stop()
        timer = threading.Timer(timeout_seconds, stop.set)
        timer.daemon = True
        timer.start()
        try:
            Reflector(self.caller, self.kind, waiting, stop, clock=time.monotonic).run()
        finally:
            timer.cancel()
            timer.join()
        if not waiting.finished:
            raise DeadlineExceeded(waiting.too_late(timeout_seconds), target=self.caller.target)
        return waiting.found
