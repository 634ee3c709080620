"""A real server in a process of its own, on temporary sockets and free ports."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from wire import Api

START_SECONDS = 20.0
PROGRAM = str(Path(sys.executable).with_name("device-api-server"))
_SCRUBBED = ("DEVICE_API_", "NODE_NAME", "GRPC_")
TRANSPORT = "DEVICE_API_TRANSPORT"
"""The one setting that stays: CI runs these tests again on another transport."""


def need(program: str, package: str = "") -> str:
    """The program's path. Only outside of CI may it be missing."""
    found = shutil.which(program) or shutil.which(Path(sys.executable).with_name(program))
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{program} is not installed: apt install {package or program}")
    assert found is not None, f"CI has to install {program}"
    return found


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would change a server."""
    kept = {k: v for k, v in os.environ.items() if k == TRANSPORT or not k.startswith(_SCRUBBED)}
    return {**kept, **extra}


class Server:
    """A started ``device-api-server``. Its log is JSON, read as it comes. ``within`` is a command
    that runs it, such as ``prlimit``."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        plugins: Path | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.socket = directory / "gpu.sock"
        self.provider_socket = directory / "provider.sock"
        defaults = {
            "--unix-socket": str(self.socket),
            "--provider-socket": str(self.provider_socket),
            "--grpc-address": "127.0.0.1:0",
            "--health-port": "0",
            "--metrics-port": "0",
            "--shutdown-delay": "0",
            "--shutdown-timeout": "4",
            "--log-format": "json",
        }
        given = {argument.partition("=")[0] for argument in arguments}
        flags = [f"{flag}={value}" for flag, value in defaults.items() if flag not in given]
        extra = dict(env or {})
        if plugins is not None:
            extra["PYTHONPATH"] = str(plugins)
        self.log: list[dict[str, Any]] = []
        self.output: list[str] = []
        self._changed = threading.Condition()
        self._apis: list[Api] = []
        self.process = subprocess.Popen(
            [*within, PROGRAM, *flags, *arguments],
            env=environment(extra),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for api in self._apis:
            api.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    # --- what it says

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.output.append(line)
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_log(
        self, found: Callable[[dict[str, Any]], bool], timeout: float = START_SECONDS
    ) -> dict[str, Any]:
        """The first log entry for which ``found`` is true, waiting for it if it is yet to come."""

        def entry() -> dict[str, Any] | None:
            return next((e for e in self.log if found(e)), None)

        with self._changed:
            self._changed.wait_for(
                lambda: entry() is not None or not self._reader.is_alive(), timeout
            )
            result = entry()
        assert result is not None, f"not logged:\n{self.text}"
        return result

    def said(self, text: str, timeout: float = START_SECONDS) -> dict[str, Any]:
        """The first log entry whose message contains ``text``."""
        return self.wait_log(lambda e: text in e["msg"], timeout)

    @property
    def text(self) -> str:
        """Everything it wrote."""
        return "".join(self.output)

    @property
    def tracebacks(self) -> list[str]:
        """Log entries and raw output that tell of a defect."""
        marks = (
            "Traceback",
            "Exception ignored",
            "never retrieved",
            "was destroyed",
            "Exception in",
        )
        return [line for line in self.output if any(mark in line for mark in marks)]

    # --- where it listens

    @property
    def addresses(self) -> dict[str, Any]:
        return self.said("serving")

    def api(self, face: str = "provider") -> Api:
        """A client of one face: ``provider``, ``consumer`` or ``tcp``."""
        targets: dict[str, Callable[[], str]] = {
            "provider": lambda: f"unix:{self.provider_socket}",
            "consumer": lambda: f"unix:{self.socket}",
            "tcp": lambda: self.addresses["tcp"],
        }
        api = Api(targets[face]())
        self._apis.append(api)
        return api

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the port that has it; raises ``OSError`` if none answers."""
        where = self.addresses["metrics" if path == "/metrics" else "health"]
        connection = http.client.HTTPConnection(where, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample by name and labels."""
        _, text = self.http("/metrics")
        return {
            (s.name, tuple(sorted(s.labels.items()))): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """One sample of ours; 0 if it is not there yet."""
        return self.metrics().get((f"device_api_server_{name}", tuple(sorted(labels.items()))), 0.0)

    # --- its life

    def wait_serving(self) -> Server:
        """Wait, by the health service on the providers' socket, until it answers reads."""
        return self.wait_serving_on(self.provider_socket.name)

    def wait_serving_on(self, name: str) -> Server:
        """The same on a socket of that name in the server's directory."""
        self.said("serving")
        with grpc.insecure_channel(f"unix:{self.socket.with_name(name)}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=START_SECONDS
            )
            for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return self
        raise AssertionError(f"never served:\n{self.text}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout: float = START_SECONDS) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(10)
        return code

    def stop(self) -> int:
        """End it in good order."""
        self.signal()
        return self.exit_code()
