"""What a benchmark works with: a folder, the load client, and servers that end with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.node import GET, UPDATE, get, populate, toggles
from benchmarks.processes import (
    LIST,
    BareServer,
    DeviceServer,
    Failed,
    LoadClient,
    bare_method,
    stopping,
)

_GIVE_UP_SECONDS = 60.0
_POLL_SECONDS = 0.002
_MODIFIED_BYTES = len(b"\x0a\x08MODIFIED")


@dataclass(frozen=True, slots=True)
class Workbench:
    """``quick`` asks for few rounds: to see that a benchmark works, not what it measures."""

    folder: Path
    load: LoadClient
    stack: ExitStack
    quick: bool
    say: Callable[[str], None]
    _numbers: count[int]

    def rounds(self, full: int, quick: int = 2) -> int:
        """How often to do something."""
        return quick if self.quick else full

    def device_server(self, *flags: str, env: dict[str, str] | None = None) -> DeviceServer:
        """A server that is ready."""
        server = DeviceServer(self.new_folder(), *flags, env=env)
        self.stack.enter_context(stopping(server))
        self.ready_at(server)
        return server

    def bare_server(self, sizes: dict[str, int] | None = None) -> BareServer:
        """A bare server that answers."""
        server = BareServer(self.new_folder(), {"ListGpus": 0} | (sizes or {}))
        self.stack.enter_context(stopping(server))
        self.load.ask("first_answer", target=server.target, method=bare_method("ListGpus"))
        return server

    def pair(self) -> tuple[DeviceServer, BareServer]:
        """A server with GPUs, and a bare one whose responses have the sizes of the server's."""
        server = self.device_server()
        populate(self.load, server)

        def size(target: str, method: str, request: bytes = b"") -> int:
            result = self.load.ask("once", target=target, method=method, request=request)
            return int(result["bytes"])

        gpu = size(server.target, GET, get()[0])
        acknowledgement = size(server.provider_target, UPDATE, toggles()[-1])
        sizes = {
            "GetGpu": gpu,
            "ListGpus": size(server.target, LIST),
            "UpdateGpuCondition": acknowledgement,
            "Push": acknowledgement,
            "Watch": gpu + _MODIFIED_BYTES,
        }
        return server, self.bare_server(sizes)

    def ready_at(self, server: DeviceServer) -> float:
        """Wait until the server says that it is ready; returns when, in monotonic seconds."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while not server.is_ready():
            server.require_alive()
            if time.monotonic() > deadline:
                raise Failed("the server does not become ready")
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def new_folder(self) -> Path:
        """A path for a process to make its folder at."""
        return self.folder / str(next(self._numbers))
