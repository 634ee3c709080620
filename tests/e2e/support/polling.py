"""Looking until something is true that nobody announces."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 120.0
"""How long a cluster may take. The kubelet alone takes up to a minute to let an ended pod go."""

LOOK_SECONDS = 0.1


def eventually(look: Callable[[], T], seconds: float, what: str) -> T:
    """What ``look`` returns once that is true. Fails with ``what`` was waited for, and with what
    the last look found. Looks may fail on the way."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            last: object = look()
        except (OSError, subprocess.CalledProcessError) as error:
            last = getattr(error, "stderr", None) or error
        else:
            if last:
                return last  # type: ignore[return-value]
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}; it is {last!r}"
        time.sleep(LOOK_SECONDS)
