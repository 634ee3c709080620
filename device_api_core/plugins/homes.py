"""Where a provider can live, as far as its supervisor cares, and what every home does.

Two homes exist: :class:`~device_api_core.plugins.thread.ThreadHome` in this process and
:class:`~device_api_core.plugins.process.ProcessHome` beside it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.spec import Provider, Sink

logger = logging.getLogger(__name__)


class Hearing(NamedTuple):
    """What a home passes on, on the event loop: that the provider has reported everything, and its
    one line on what it does."""

    synced: Callable[[], None]
    summary: Callable[[str], None]


class Run(Protocol):
    """One start of a provider."""

    ended: asyncio.Event
    """Set when nothing of it runs any more."""

    outcome: str
    """How it ended, for people, once it has."""

    lease_seconds: float
    """How long it may take until it is first heard."""

    def ask_to_stop(self) -> None:
        """Set the provider's stop event."""

    def clear(self, gpu: str, type_: str) -> None:
        """Pass an operator's act on to the provider. Does not wait for it."""

    async def put_down(self, why: str) -> None:
        """Let nothing it says count any more, and be rid of it as far as that can be done in a
        moment; ``ended`` tells whether it could."""


class Home(Protocol):
    """A way to run providers."""

    name: str

    async def start(self, plugin: Plugin, hearing: Hearing) -> Run:
        """Start the provider once. Raises whatever keeps it from starting."""


def leave(code: int) -> None:
    """End this process although threads of a plugin may hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_to_end(provider: Provider, sink: Sink, stop: threading.Event) -> str:
    """Run a provider in this thread; returns how it ended."""
    try:
        provider.run(sink, stop)
    except BaseException as error:
        # The provider boundary: whatever it raises, SystemExit included, ends this provider only.
        if not stop.is_set():
            logger.exception("provider crashed", extra={"provider": provider.name})
        return f"raised {type(error).__name__}: {error}"
    return "returned" if stop.is_set() else "returned although nothing stopped it"


def tell_cleared(provider: Provider, gpu: str, type_: str) -> None:
    """Tell a provider what an operator has cleared, in a thread of its own."""

    def tell() -> None:
        try:
            provider.clear(gpu, type_)
        except Exception:
            # The provider's own code, in a thread of its own: its failure is its owner's to see;
            # the condition stays Unknown until the provider reports again.
            logger.exception("clear failed", extra={"provider": provider.name, "gpu": gpu})

    threading.Thread(target=tell, name=f"clear {provider.name}", daemon=True).start()
