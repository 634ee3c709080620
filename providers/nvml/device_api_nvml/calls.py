"""Calls that may never return, made where that harms nobody."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from device_api_nvml.library import UNKNOWN, NvmlError, nvml_error

T = TypeVar("T")
Step = Callable[[], None]

_WAKE_SECONDS = 0.25


class Inbox:
    """Steps that other threads want taken on the one thread that owns the provider's state."""

    def __init__(self, stop: threading.Event, between: Step) -> None:
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._stop = stop
        self._between = between

    @property
    def stopped(self) -> bool:
        """Whether the provider is to stop. Then waiting ended early and proves nothing."""
        return self._stop.is_set()

    def post(self, step: Step) -> None:
        """From any thread."""
        self._steps.put(step)

    def pump(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Take steps, for so long, or until something holds, or the provider is stopped."""
        end = time.monotonic() + seconds
        while not self._stop.is_set() and not until():
            self._between()
            if (left := end - time.monotonic()) <= 0:
                return
            try:
                step = self._steps.get(timeout=min(left, _WAKE_SECONDS))
            except queue.Empty:
                continue
            step()


class Calls:
    """At most one running call per key, each in a daemon thread of its own. All methods belong to
    the inbox's thread.

    A thread per call instead of a pool: a pool joins its threads when the process ends, and one
    that waits for a wedged driver cannot be joined."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._running: dict[str, tuple[float, threading.Thread]] = {}

    def start(
        self, key: str, function: Callable[[], T], deliver: Callable[[T | NvmlError], None]
    ) -> bool:
        """Call ``function``; ``deliver`` gets what it returned, or the error, as a step of the
        inbox. Returns False, and does nothing, while the key's last call is still out."""
        if key in self._running:
            return False
        arguments = (key, function, deliver)
        thread = threading.Thread(
            target=self._call, args=arguments, name=f"nvml {key}", daemon=True
        )
        self._running[key] = (time.monotonic(), thread)
        thread.start()
        return True

    def busy(self, key: str) -> bool:
        """Whether the key's last call is still out."""
        return key in self._running

    def awaited(self, seconds: float) -> bool:
        """Whether a call is out that may still come back within its time."""
        now = time.monotonic()
        return any(now - began < seconds for began, _ in self._running.values())

    def ended(self, seconds: float) -> bool:
        """Wait for all calls without taking steps; returns whether none is out any more."""
        end = time.monotonic() + seconds
        for _, thread in self._running.values():
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for _, thread in self._running.values())

    def _call(
        self, key: str, function: Callable[[], T], deliver: Callable[[T | NvmlError], None]
    ) -> None:
        # Stays if the function dies of a defect: the key must not look like a hang for ever.
        outcome: T | NvmlError = nvml_error(key, UNKNOWN, "the call crashed")
        try:
            outcome = function()
        except NvmlError as error:
            outcome = error
        finally:
            self._inbox.post(partial(self._finish, key, partial(deliver, outcome)))

    def _finish(self, key: str, deliver: Step) -> None:
        del self._running[key]
        deliver()
