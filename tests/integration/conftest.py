"""Fixtures: a real server in its own process, and a daemon in the test's event loop."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from inside import AsyncApi
from process import Server
from prometheus_client import CollectorRegistry
from wire import Api

from device_api_core.daemon import Addresses, Daemon, Tuning
from device_api_core.exposition import registry_of
from device_api_core.plugins.discovery import Plugin
from device_api_core.settings import Settings


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs for minutes; choose it with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow; choose it with -m slow"))


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory whose name leaves room for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        yield Path(path)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that share one directory; ends them and asserts that none has a defect."""
    with ExitStack() as stack:
        servers: list[Server] = []

        def start_one(*arguments: str, **more: Any) -> Server:
            server = stack.enter_context(Server(directory, *arguments, **more))
            servers.append(server)
            return server

        yield start_one
    for server in servers:
        assert not server.tracebacks, server.text


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for a module's tests, which use GPUs of their own."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        with Server(Path(path)) as running:
            yield running.wait_serving()
            running.stop()
        assert not running.tracebacks, running.text


@pytest.fixture(scope="module")
def api(server: Server) -> Api:
    """A provider's client of the module's server."""
    return server.api()


@pytest.fixture
async def run_daemon(directory: Path) -> AsyncIterator[Callable[..., Any]]:
    """Runs daemons in the test's event loop: ``await run_daemon(plugins, tuning=..., **settings)``
    gives a :class:`Running`."""
    async with AsyncExitStack() as stack:

        async def run(*plugins: Plugin, tuning: Tuning | None = None, **settings: Any) -> Running:
            defaults = Settings(
                grpc_address="",
                unix_socket=str(directory / "gpu.sock"),
                provider_socket=str(directory / "provider.sock"),
                health_port=0,
                metrics_port=0,
                shutdown_timeout=2.0,
                transport=os.environ.get("DEVICE_API_TRANSPORT", "grpcio"),
                provider=tuple(p.name for p in plugins),
            )
            daemon = Daemon(replace(defaults, **settings), list(plugins), tuning=tuning or Tuning())
            own = await stack.enter_async_context(AsyncExitStack())
            addresses = await own.enter_async_context(daemon.running())
            return Running(daemon, addresses, directory, own)

        yield run


class Running:
    """A daemon that runs in the test's event loop."""

    def __init__(
        self, daemon: Daemon, addresses: Addresses, directory: Path, stack: AsyncExitStack
    ) -> None:
        self.daemon = daemon
        self.addresses = addresses
        self._directory = directory
        self._stack = stack

    @property
    def registry(self) -> CollectorRegistry:
        """What it counts and shows."""
        return registry_of(self.daemon.metrics, self.daemon.intake.tallies)

    async def stop(self) -> None:
        """Stop it before the test ends."""
        await self._stack.aclose()

    def api(self, face: str = "provider", *options: tuple[str, Any]) -> AsyncApi:
        """A client; it is closed before the daemon stops."""
        name = "provider.sock" if face == "provider" else "gpu.sock"
        api = AsyncApi(f"unix:{self._directory / name}", *options)
        self._stack.push_async_callback(api.close)
        return api
