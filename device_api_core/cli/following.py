"""An informer for a command that goes on over every restart of the server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from device_api_core.cli.failures import reason_of
from device_api_core.cli.session import Session
from device_api_core.client import GpuInformer

PROBE_SECONDS = 2.0
STALE_SECONDS = 2.5 * PROBE_SECONDS
"""An answer may be late without being news."""

_logger = logging.getLogger("device_api_core.client")


@contextmanager
def following(session: Session) -> Iterator[GpuInformer]:
    """A started informer of the server. What it would log of an outage the command itself says."""
    level = _logger.level
    _logger.setLevel(logging.ERROR)
    try:
        with (
            session.connect() as clients,
            GpuInformer(clients.v1alpha1.gpus, probe_seconds=PROBE_SECONDS) as informer,
        ):
            yield informer
    finally:
        _logger.setLevel(level)


class Outage:
    """Says what is wrong with what an informer knows, from one look to the next."""

    def __init__(self, informer: GpuInformer, session: Session) -> None:
        self._informer = informer
        self._session = session
        self._proven: int | None = None
        self._failures = 0

    @property
    def why(self) -> str:
        """Empty as long as the GPUs are proven to be as the server has them, and nothing has
        failed since the last proof."""
        progress, proven = self._informer.progress, self._informer.last_synced
        if proven != self._proven:
            self._proven, self._failures = proven, progress.failures
        age, error = self._informer.age_seconds, progress.last_error
        if progress.failures > self._failures and error is not None:
            return reason_of(error)
        if age is None:
            return f"{self._session.server} has not answered yet"
        return "" if age <= STALE_SECONDS else f"{self._session.server} does not answer"
