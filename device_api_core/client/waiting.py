"""Waiting until something is true of one object, over any break of the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from device_api_core.client.kinds import Kind, ResourceList, T
from device_api_core.client.reflection import Reflection, Step
from device_api_core.client.retry import Backoff
from device_api_core.client.store import Store
from device_api_core.client.watch import WatchEvent


class Waiting(Generic[T]):
    """Follows the server until ``condition`` holds for the object of that name; ``None`` waits
    until it is gone. :attr:`found` is then the object."""

    def __init__(
        self, kind: Kind[T, Any, Any], name: str, condition: Callable[[T], bool] | None
    ) -> None:
        self._kind = kind.name
        self._name = name
        self._condition = condition
        self._reflection: Reflection[T] = Reflection(Store(), Backoff())
        self._error: Exception | None = None
        self._listed = False
        self._seen: T | None = None
        self.finished = False
        self.found: T | None = None

    def step(self) -> Step:
        """See :class:`~.reflection.Follower`; so the three below."""
        return self._reflection.step()

    def listed(self, listed: ResourceList[T], began: float) -> None:
        self._error = None
        self._listed = True
        self._reflection.listed(listed)
        self._look()

    def received(self, event: WatchEvent[T]) -> None:
        self._error = None
        change = self._reflection.received(event)
        if change is not None and change.name == self._name:
            self._look()

    def failed(self, error: Exception) -> None:
        self._error = error
        self._reflection.failed(error)

    def too_late(self, seconds: float) -> str:
        """What to say when the time is over."""
        if self._error is not None:
            state = f"the server fails: {self._error}"
        elif not self._listed:
            state = "the server has not answered"
        elif self._seen is None:
            state = "it does not exist"
        else:
            state = "it exists"
        what = "be gone" if self._condition is None else "be as wanted"
        return f'{self._kind} "{self._name}" did not come to {what} within {seconds:g} s: {state}'

    def _look(self) -> None:
        self._seen = self._reflection.store.snapshot.objects.get(self._name)
        if self._condition is None:
            self.finished = self._seen is None
        elif self._seen is not None and self._condition(self._seen):
            self.found, self.finished = self._seen, True
