"""The processes that take part: the server, the bare server and the load client."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.bare import SERVICE

_STOP_SECONDS = 10.0
_PROCESS_CPU_CLOCK = 2
# gRPC reports each connection that ends.
_QUIET = {"GRPC_VERBOSITY": "NONE"}

LIST = "/nvidia.device.v1alpha1.GpuService/ListGpus"
WATCH = "/nvidia.device.v1alpha1.GpuService/WatchGpus"


P = TypeVar("P", "DeviceServer", "BareServer", "DevicePlugin", "LoadClient")


class Failed(Exception):
    """A process of the benchmark did not do what it was started for."""


class Process:
    """A child process and what the kernel says of it."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        environment = {**os.environ, **options.pop("env", {})}
        # Start-up and memory are those of an installed server, whose bytecode is there.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.started = time.monotonic()
        self._popen = subprocess.Popen(command, env=environment, **options)
        self.pid = self._popen.pid

    @property
    def stdin(self) -> Any:
        return self._popen.stdin

    @property
    def stdout(self) -> Any:
        return self._popen.stdout

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all threads, ended ones included, in nanosecond resolution."""
        # The kernel's clock id of another process; see clock_getcpuclockid(3).
        return time.clock_gettime((~self.pid << 3) | _PROCESS_CPU_CLOCK)

    @property
    def rss_mib(self) -> float:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise Failed(f"process {self.pid} is gone")

    def require_alive(self) -> None:
        """Raises :class:`Failed` if it has ended."""
        if (code := self._popen.poll()) is not None:
            raise Failed(f"{self._popen.args!r} ended with status {code}")

    def stop(self) -> None:
        """End it, by force if it does not listen."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


class LoadClient:
    """Gives commands to the load client."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.load"]
        self.process = Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_QUIET)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have a command done and wait for its result."""
        self.tell(command, **arguments)
        return self.result()

    def tell(self, command: str, **arguments: Any) -> None:
        """Have a command done; :meth:`result` waits for it."""
        line = json.dumps({"command": command, **arguments}, default=_as_text)
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What the command given last has found."""
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the load client has ended")
        result: dict[str, Any] = json.loads(line)
        return result

    def stop(self) -> None:
        self.process.stop()


class DeviceServer(Process):
    """A real server on sockets in ``folder``. ``flags`` are added to its command line."""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir()
        self.target = f"unix:{folder / 'device.sock'}"
        self.provider_target = f"unix:{folder / 'provider.sock'}"
        self.health_port = _free_port()
        command = [
            str(Path(sys.executable).parent / "device-api-server"),
            *("--unix-socket", str(folder / "device.sock")),
            *("--provider-socket", str(folder / "provider.sock")),
            *("--grpc-address", "", "--health-port", str(self.health_port)),
            *("--metrics-port", "0", "--shutdown-delay", "0"),
            *flags,
        ]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            super().__init__(command, stderr=log, env=env or {})

    @property
    def tcp_target(self) -> str:
        """Where it listens over TCP, if a flag asked for it."""
        found = re.search(r" tcp=(\S+)", self._log.read_text())
        if found is None:
            raise Failed("the server's log does not say where it listens")
        return found[1]

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            with socket.create_connection(("127.0.0.1", self.health_port), 1.0) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


class BareServer(Process):
    """A bare server whose responses have the given ``sizes``."""

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        folder.mkdir()
        self.target = f"unix:{folder / 'bare.sock'}"
        command = [sys.executable, "-m", "benchmarks.bare", str(folder / "bare.sock")]
        super().__init__([*command, json.dumps({"Watch": 0, "Push": 0, **sizes})], env=_QUIET)


class DevicePlugin(Process):
    """The device plugin of the examples, between a server and a kubelet's directory."""

    def __init__(self, folder: Path, target: str, plugin_dir: Path) -> None:
        folder.mkdir()
        command = [
            str(Path(sys.executable).parent / "device-api-device-plugin"),
            *("--target", target, "--plugin-dir", str(plugin_dir), "--poll-seconds", "0.05"),
        ]
        with (folder / "log").open("wb") as log:
            super().__init__(command, stderr=log)


Server = DeviceServer | BareServer


def bare_method(name: str) -> str:
    """The path of a method of the bare server."""
    return f"/{SERVICE}/{name}"


@contextmanager
def stopping(process: P) -> Iterator[P]:
    """Stop the process at the end."""
    try:
        yield process
    finally:
        process.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"cannot send {value!r}")
