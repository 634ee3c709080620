"""When faults have ended, for as long as another one would be a relapse: also across a restart."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

_FILE = "recoveries.json"
_log = logging.getLogger(__name__)


class Recoveries:
    """A file of times by GPU and condition type. With an empty ``state_dir`` nothing is kept.

    ``clock`` is the provider's, which may begin anew with each process; ``wall`` is in seconds
    since the Unix epoch; after ``seconds`` a time is of no use any more.
    """

    def __init__(
        self,
        state_dir: str,
        seconds: float,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._path = Path(state_dir) / _FILE if state_dir else None
        self._seconds = seconds
        self._clock = clock
        self._wall = wall
        self._times: dict[str, dict[str, list[float]]] = {}

    def __repr__(self) -> str:
        return f"<Recoveries of {sorted(self._times)}>"

    def load(self) -> None:
        """Take up what was stored; nothing if it cannot be understood."""
        if self._path is None or not self._path.exists():
            return
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._times = {
                str(gpu): {str(type_): [float(t) for t in times] for type_, times in types.items()}
                for gpu, types in found.items()
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            # The next hold is shorter than it could be, no more.
            _log.warning("earlier recoveries are forgotten: %s", error)

    def of(self, gpu: str, type_: str) -> tuple[float, ...]:
        """The times that count, by the provider's clock, oldest first."""
        now, wall = self._clock(), self._wall()
        ages = (wall - time for time in self._times.get(gpu, {}).get(type_, []))
        # Of a time that is yet to come the clock was wrong, now or then.
        return tuple(now - age for age in ages if 0 <= age < self._seconds)

    def add(self, gpu: str, type_: str) -> None:
        """A fault has ended now."""
        self._times.setdefault(gpu, {}).setdefault(type_, []).append(self._wall())
        self._store()

    def forget(self, gpu: str, type_: str) -> None:
        """An operator has ended it: the next fault is the first."""
        if self._times.get(gpu, {}).pop(type_, None) is not None:
            self._store()

    def _store(self) -> None:
        since = self._wall() - self._seconds
        kept = {
            gpu: {type_: [t for t in times if t > since] for type_, times in types.items()}
            for gpu, types in self._times.items()
        }
        self._times = {gpu: types for gpu, types in kept.items() if any(types.values())}
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(self._times), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("recoveries cannot be stored: %s", error)
