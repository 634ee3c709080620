"""Signals, heard on the event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(
    numbers: Iterable[signal.Signals], hear: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Call ``hear`` for each of these signals, as asyncio's ``add_signal_handler`` would. That one
    imports ``inspect`` to ask whether the callback is a coroutine: 1 MiB, for nothing else here
    needs it."""
    loop = asyncio.get_running_loop()
    ours, kernels = socket.socketpair()

    def read() -> None:
        for number in ours.recv(4_096):
            if number in before:
                hear(signal.Signals(number))

    with ours, kernels:
        ours.setblocking(False)
        kernels.setblocking(False)
        loop.add_reader(ours, read)
        # The number is written when the signal comes; a handler alone would run, perhaps, only
        # after the loop's next sleep.
        told = signal.set_wakeup_fd(kernels.fileno())
        before = {number: signal.signal(number, _noted) for number in numbers}
        for number in before:
            # Calls of libraries that it comes into go on.
            signal.siginterrupt(number, False)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(told)
            loop.remove_reader(ours)


def _noted(*_: object) -> None:
    """A signal with this handler reaches the descriptor, and does nothing else."""
