"""Texts for people who look at a Node: short, on one line, of printable characters."""

from __future__ import annotations

from device_api_core.resources import READY, Gpu
from device_api_core.validation import shortened

_WORD_BYTES = 128


def plain(text: str, limit: int = _WORD_BYTES) -> str:
    """What a provider wrote, on one line and within ``limit`` bytes. It may be anything, and a
    terminal would obey what is no text."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    if len(shown.encode(errors="replace")) <= limit:
        return shortened(shown, limit)
    return f"{shortened(shown, limit - 3)}..."


def which(gpu: Gpu) -> str:
    """The GPU's name, and the number by which ``nvidia-smi`` knows it."""
    return gpu.name if gpu.spec.index is None else f"{gpu.name} (index {gpu.spec.index})"


def why(gpu: Gpu) -> str:
    """Why it is not healthy, and what to do about it."""
    ready = gpu.condition(READY)
    reason = plain(ready.reason) if ready is not None else ""
    words = (reason or "no reason given", plain(gpu.status.recommended_action))
    return ", ".join(filter(None, words))


def trouble(gpu: Gpu) -> str:
    """Which GPU, and :func:`why`."""
    return f"{which(gpu)}: {why(gpu)}"


def counted(number: int, verb: tuple[str, str] = ("is", "are"), of: int | None = None) -> str:
    """``1 of 8 GPUs is``, ``2 GPUs are``."""
    total = number if of is None else of
    noun = "GPU" if total == 1 else "GPUs"
    amount = str(number) if of is None else f"{number} of {of}"
    return f"{amount} {noun} {verb[0] if number == 1 else verb[1]}"
