"""The terminal: a line that is replaced, and a whole screen that is drawn again and again."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The second screen, without a cursor; and what is too long for a line does not wrap."""


def is_screen(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def size_of(stream: TextIO) -> os.terminal_size:
    """Columns and lines of a terminal; some have never been told theirs."""
    columns, lines = os.get_terminal_size(stream.fileno())
    return os.terminal_size((columns or 80, lines or 24))


class StatusLine:
    """One line on standard error that is replaced by the next; nothing if that is no terminal."""

    def __init__(self) -> None:
        self._usable = is_screen(sys.stderr)
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._usable:
            width = size_of(sys.stderr).columns - 1
            self._write(f"\r{text[:width]}\x1b[K")
            self._shown = True

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


class Screen:
    """The whole terminal, as long as it is entered. Signals that end or stop this process give it
    back first. Only for the main thread, but for :meth:`wake`."""

    def __init__(self) -> None:
        self._in = sys.stdin
        self._out = sys.stdout
        self._modes: list[Any] | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)

    def __enter__(self) -> Self:
        for number, act in (
            (signal.SIGWINCH, self._resized),
            (signal.SIGTERM, self._ended),
            (signal.SIGHUP, self._ended),
            (signal.SIGTSTP, self._stopped),
        ):
            self._handlers[number] = signal.signal(number, act)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # The pipe stays open: an informer's thread may still want to wake somebody.

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines."""
        return size_of(self._out)

    def draw(self, lines: Iterable[str]) -> None:
        """Show these lines and nothing else."""
        self._write("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def wait(self, seconds: float) -> str:
        """Until a key is pressed, somebody calls :meth:`wake`, or the time is over. Returns what
        was typed."""
        watched = [self._awake] + ([self._in] if self._modes is not None else [])
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._awake in ready:
            os.read(self._awake, 4096)
        if self._in not in ready:
            return ""
        return os.read(self._in.fileno(), 1024).decode(errors="replace")

    def wake(self) -> None:
        """End the wait. From any thread."""
        try:
            os.write(self._wake, b".")
        except BlockingIOError:
            # So many calls wait to be heard that one more says nothing.
            return

    def _take(self) -> None:
        if self._in.isatty():
            # One key at a time, not echoed; Ctrl-C and Ctrl-Z stay what they are.
            self._modes = termios.tcgetattr(self._in)
            tty.setcbreak(self._in)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        if self._modes is not None:
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._modes)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _resized(self, number: int, frame: FrameType | None) -> None:
        self.wake()

    def _ended(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def _stopped(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on, after SIGCONT.
        signal.signal(signal.SIGTSTP, self._stopped)
        self._take()
        self.wake()
