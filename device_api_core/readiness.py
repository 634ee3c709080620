"""When the daemon may answer reads: never "empty, all healthy" while a provider is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from device_api_core.errors import Unavailable

GRACE_SECONDS = 30.0
"""After this long, known GPUs are served although a provider is still missing."""


class Readiness:
    """Waits for each plugin and each expected remote provider to have synced once.

    ``known_gpus`` counts the GPUs in the cache, ``clock`` is monotonic seconds. ``changed`` is
    called with the new answer whenever :meth:`evaluate` finds another one.
    """

    def __init__(
        self,
        plugins: Iterable[str],
        expected: Iterable[str],
        *,
        known_gpus: Callable[[], int],
        clock: Callable[[], float],
        changed: Callable[[bool], None],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._plugins = frozenset(plugins)
        self._missing = self._plugins | set(expected)
        self._known_gpus = known_gpus
        self._clock = clock
        self._changed = changed
        self._grace_ends = clock() + grace_seconds
        self._ready = False
        self._remembers = False
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Readiness ready={self._ready} missing={sorted(self._missing)}>"

    @property
    def ready(self) -> bool:
        """The answer of the last :meth:`evaluate`."""
        return self._ready and not self._stopping

    @property
    def waiting_for(self) -> str:
        """What is missing, for people; empty if nothing is."""
        if self._stopping:
            return "shutting down"
        if not self._missing:
            return ""
        noun = "provider" if len(self._missing) == 1 else "providers"
        return f"waiting for {noun} {', '.join(sorted(self._missing))} to report once"

    def remembers(self) -> None:
        """GPUs are known from before a restart. They are shown at once, since nothing in them is
        True: only who asks whether all providers have reported still has to wait."""
        self._remembers = True

    def synced(self, provider_id: str) -> None:
        """A provider has reported everything it sees."""
        if provider_id in self._missing:
            self._missing -= {provider_id}
            self.evaluate()

    def reported(self, provider_id: str) -> None:
        """A remote provider has written a condition. It has no call that says "that was all", so
        this counts as having synced; a plugin has one, and must use it."""
        if provider_id not in self._plugins:
            self.synced(provider_id)

    def evaluate(self) -> bool:
        """Look again; to be called too when the grace ends and when GPUs come or go."""
        if not self._stopping and (ready := self._may_answer()) is not self._ready:
            self._ready = ready
            self._changed(ready)
        return self.ready

    def _may_answer(self) -> bool:
        if not self._missing:
            return True
        # Without a provider only what is known can be told, and that may be gone again.
        return self._clock() >= self._grace_ends and self._known_gpus() > 0

    def stop(self) -> None:
        """Shutting down: not ready from now on. Running reads may still finish."""
        if not self._stopping:
            self._stopping = True
            self._changed(False)

    def require(self) -> None:
        """Raises ``Unavailable`` if a read cannot be answered truthfully yet."""
        if self._missing:
            self.evaluate()
        if not self._ready and not (self._remembers and self._known_gpus() > 0):
            raise Unavailable(f"not ready: {self.waiting_for}")
