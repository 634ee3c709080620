"""What one publisher has done, as ``/metrics`` of ``device-api publish`` shows it."""

from __future__ import annotations

from device_api_core.series import Tally


class Published:
    """Counts for the life of one process. Written by one thread, read by any."""

    def __init__(self, publisher: str) -> None:
        self.publisher = publisher
        self.successes = 0
        self.failures = 0
        self.last_success = 0.0
        """Unix time; 0 before the first."""
        self.stale = True
        """Whether the server's view is not proven to be current."""
        self.tally = Tally()
        """What the publisher counts itself."""

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        """See :class:`~device_api_core.plugins.publishing.Count`."""
        self.tally.count(name, amount, labels)

    def __repr__(self) -> str:
        return f"<Published {self.publisher} {self.successes} times, {self.failures} failures>"
