"""The peer and the load client as processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peer.build import Unbuildable, build
from benchmarks.processes import DeviceServer, LoadClient, Process
from benchmarks.workbench import Workbench

UNLIMITED = [f"--max-{kind}-per-second=1000000" for kind in ("reads", "writes")]
"""The peer knows no limits, and the load is one client."""


def programs(bench: Workbench) -> Path | None:
    """The folder with the peer and its load client; none, with a word about it, without Go."""
    try:
        return build()
    except Unbuildable as reason:
        bench.say(f"Go peer: skipped, for {reason}")
        return None


class Peer(Process):
    """The Go server, which has one socket for all."""

    def __init__(self, programs: Path, folder: Path) -> None:
        folder.mkdir()
        self.target = self.provider_target = f"unix:{folder / 'peer.sock'}"
        with (folder / "log").open("wb") as log:
            super().__init__([str(programs / "server"), str(folder / "peer.sock")], stderr=log)


class GoLoad(LoadClient):
    """The Go load client."""

    def __init__(self, programs: Path) -> None:
        command = [str(programs / "load")]
        self.process = Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, command: str, **arguments: Any) -> None:
        if "request" in arguments:
            arguments["requests"] = [arguments.pop("request")]
        super().tell(command, **arguments)


Side = DeviceServer | Peer


@contextmanager
def ended(process: Process | LoadClient) -> Iterator[None]:
    """Stop it at the end."""
    try:
        yield
    finally:
        process.stop()
