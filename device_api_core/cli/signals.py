"""Signals, for the event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Signals:
    """Signals that have come and were not heard yet."""

    def __init__(self, numbers: Iterable[signal.Signals], coming: socket.socket) -> None:
        self._numbers = frozenset(numbers)
        self._coming = coming

    def hear(self, heard: Callable[[signal.Signals], None]) -> None:
        """Call this on the running loop for each, those included that came before."""
        asyncio.get_running_loop().add_reader(self._coming, self._read, heard)

    def _read(self, heard: Callable[[signal.Signals], None]) -> None:
        for number in self._coming.recv(4_096):
            if number in self._numbers:
                heard(signal.Signals(number))


@contextmanager
def kept(*numbers: signal.Signals) -> Iterator[Signals]:
    """Keep these signals until they are heard, from before there is a loop on.

    asyncio's ``add_signal_handler`` is for a loop that runs, and imports ``inspect`` to ask whether
    the callback is a coroutine: 1 MiB, which nothing else here needs.
    """
    coming, kernels = socket.socketpair()
    with coming, kernels:
        coming.setblocking(False)
        kernels.setblocking(False)
        # The number is written when the signal comes. A handler alone would perhaps run only after
        # the loop's next sleep.
        told = signal.set_wakeup_fd(kernels.fileno())
        before = {number: signal.signal(number, _noted) for number in numbers}
        for number in numbers:
            # Calls of libraries that it comes into go on.
            signal.siginterrupt(number, False)
        try:
            yield Signals(numbers, coming)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(told)


def _noted(*_: object) -> None:
    """A signal with this handler is written to the descriptor, and does nothing else."""
