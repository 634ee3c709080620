"""Ending what a thread is blocked in: a pause, a call, a watch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """Set once; from then on every pause is over, and what is bound to it is cancelled."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._cancels: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Stop {'set' if self.is_set() else 'not set'}>"

    def is_set(self) -> bool:
        """Whether it is time to end."""
        return self._event.is_set()

    def set(self) -> None:
        """It is time to end. May be repeated, from any thread."""
        with self._lock:
            self._event.set()
            cancels = tuple(self._cancels)
        # Outside of the lock: cancelling may end a bound block in this very thread.
        for cancel in cancels:
            cancel()

    def wait(self, seconds: float) -> bool:
        """Pause; returns at once, and True, when it is time to end."""
        return self._event.wait(seconds)

    @contextmanager
    def bound(self, cancel: Callable[[], object]) -> Iterator[None]:
        """While the block runs, :meth:`set` also calls ``cancel``; at once if it is set."""
        with self._lock:
            self._cancels.append(cancel)
            late = self._event.is_set()
        try:
            if late:
                cancel()
            yield
        finally:
            with self._lock:
                self._cancels.remove(cancel)
