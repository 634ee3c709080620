"""Daemons for tests, each on sockets in a directory of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from device_api_core.client import Clientset
from device_api_core.daemon import Daemon, Tuning
from device_api_core.plugins.discovery import discover
from device_api_core.settings import Settings

START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SERVE = "from device_api_core.cli.start import main; main()"
_RUN = "from device_api_core.cli.main import main; main()"


class Node(ABC):
    """A daemon that can be stopped and started again in the same place.

    ``names`` are the providers that it runs, ``isolate`` those of them in processes, ``options``
    their tables by name, ``expect`` the providers elsewhere that it waits for. It keeps its state
    in ``directory`` if ``keeps_state``.
    """

    def __init__(
        self,
        directory: Path,
        *names: str,
        isolate: Iterable[str] = (),
        options: Mapping[str, Mapping[str, object]] | None = None,
        expect: Iterable[str] = (),
        keeps_state: bool = False,
    ) -> None:
        self.directory = directory
        self.socket = directory / "gpu.sock"
        self.provider_socket = directory / "provider.sock"
        self._clients: Clientset | None = None
        self.settings = Settings(
            grpc_address="",
            unix_socket=str(self.socket),
            provider_socket=str(self.provider_socket),
            health_port=0,
            metrics_port=0,
            shutdown_delay=0.0,
            shutdown_timeout=_STOP_SECONDS,
            transport=os.environ.get("DEVICE_API_TRANSPORT", "grpcio"),
            provider=names,
            isolate=tuple(isolate),
            expect_provider=tuple(expect),
            state_dir=str(directory / "state") if keeps_state else "",
            providers=options or {},
        )

    @property
    def clients(self) -> Clientset:
        """A client of the providers' socket, which answers before the daemon is ready."""
        if self._clients is None:
            self._clients = Clientset.connect(f"unix://{self.provider_socket}")
        return self._clients

    @abstractmethod
    def start(self) -> None:
        """Returns when it listens."""

    @abstractmethod
    def stop(self) -> None:
        """In good order. May be repeated."""

    def close(self) -> None:
        """Stop it, and close the client."""
        if self._clients is not None:
            self._clients.close()
        self.stop()


class ThreadNode(Node):
    """A daemon in a thread of this process. ``tuning`` may change its times and limits."""

    def __init__(self, *args: Any, tuning: Tuning | None = None, **how: Any) -> None:
        super().__init__(*args, **how)
        self._tuning = tuning
        self._thread: threading.Thread | None = None
        self._listens = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._metrics_port = 0

    def metrics(self) -> list[Sample]:
        """Every series of the metrics page."""
        url = f"http://{self.settings.http_address}:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=START_SECONDS) as page:
            text = page.read().decode()
        return [s for family in text_string_to_metric_families(text) for s in family.samples]

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of one series, ``None`` if it is not there."""
        found = (s.value for s in self.metrics() if (s.name, s.labels) == (name, labels))
        return next(found, None)

    def start(self) -> None:
        self._listens.clear()
        self._thread = threading.Thread(target=self._main, name="device-api", daemon=True)
        self._thread.start()
        assert self._listens.wait(START_SECONDS), "the daemon did not start"
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        if self._thread is None or self._loop is None or self._error is not None:
            return
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(2 * _STOP_SECONDS)
        assert not self._thread.is_alive(), "the daemon did not stop"
        self._thread = None

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001
            # Raised again in the test's thread.
            self._error = error
        finally:
            self._listens.set()

    async def _serve(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        settings = self.settings
        plugins = discover(settings.provider_options, state_dir=settings.state_dir)
        daemon = Daemon(self.settings, plugins, tuning=self._tuning)
        async with daemon.running() as addresses:
            self._metrics_port = addresses.metrics_port
            self._listens.set()
            await self._leave.wait()


class ProcessNode(Node):
    """A daemon in a process of its own, which can be killed."""

    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None

    def start(self) -> None:
        config = self.directory / "server.toml"
        write_options(config, self.settings.providers)
        flags = [f"--config={config}", "--log-format=json"]
        flags += [f"--provider={name}" for name in self.settings.provider]
        flags += [f"--isolate={name}" for name in self.settings.isolate]
        flags += [f"--expect-provider={name}" for name in self.settings.expect_provider]
        flags += [f"--unix-socket={self.socket}", f"--provider-socket={self.provider_socket}"]
        flags += [f"--state-dir={self.settings.state_dir}"]
        flags += ["--grpc-address=", "--health-port=0", "--metrics-port=0", "--shutdown-delay=0"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, *flags], stderr=subprocess.PIPE, text=True
        )
        listens = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(listens,), daemon=True)
        self._reader.start()
        assert listens.wait(START_SECONDS), "the daemon did not start"
        log = (self.directory / "server.log").read_text(encoding="utf-8")
        assert self._process.poll() is None, log

    def stop(self) -> None:
        self._end(lambda process: process.terminate())

    def kill(self) -> None:
        """As a crash of the whole daemon."""
        self._end(lambda process: process.kill())

    def _end(self, how: Any) -> None:
        process, self._process = self._process, None
        if process is not None:
            how(process)
            process.wait(2 * _STOP_SECONDS)
            assert self._reader is not None
            self._reader.join(_STOP_SECONDS)

    def _read(self, listens: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines, (self.directory / "server.log").open("a") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if '"msg": "serving"' in line:
                    listens.set()
        listens.set()


class ProviderProcess:
    """``device-api provider run`` for a node, in its directory."""

    def __init__(self, node: Node, name: str, options: Mapping[str, object]) -> None:
        config = node.directory / f"{name}.toml"
        write_options(config, {name: options})
        command = [sys.executable, "-c", _RUN, f"--provider-server={node.provider_socket}"]
        command += ["provider", "run", name, f"--config={config}"]
        self.log = node.directory / f"{name}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stderr=log)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> int:
        """End it in good order; returns the exit code."""
        self._process.terminate()
        return self._process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """As a crash of the whole process. May be repeated."""
        self._process.kill()
        self._process.wait(_STOP_SECONDS)


def write_options(path: Path, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Write tables ``[providers.NAME]``. JSON's texts, numbers, switches and lists are TOML's."""
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[providers.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
