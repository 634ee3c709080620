"""A handler that keeps what it is told."""

from __future__ import annotations

import queue
from typing import Any

from waiting import SECONDS


class Told:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.handlers = {
            "on_add": lambda gpu: self.queue.put(("add", gpu.name, gpu.ready)),
            "on_update": lambda old, new: self.queue.put(
                ("update", new.name, old.ready, new.ready)
            ),
            "on_delete": lambda gpu: self.queue.put(("delete", gpu.name)),
        }

    def next(self) -> tuple[Any, ...]:
        return self.queue.get(timeout=SECONDS)
