"""Waiting for what nobody announces."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

SECONDS = 20.0
"""How long a test waits for what is to happen; none comes near it on an idle machine."""


def wait_until(holds: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for something that nobody announces; returns what ``holds`` returned."""
    pause = threading.Event()
    for _ in range(round(seconds / 0.01)):
        if found := holds():
            return found
        pause.wait(0.01)
    raise AssertionError(f"never came true: {inspect.getsource(holds).strip()}")
