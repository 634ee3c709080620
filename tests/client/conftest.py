"""What the client's tests share: real servers, fakes, and a blocking face of the asyncio client."""

from __future__ import annotations

import asyncio
import inspect
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "support"))
sys.path.insert(0, str(Path(__file__).parent / "support"))

from process import Server
from waiting import SECONDS

from device_api_core.client import AsyncClientset, Clientset
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.fake import FakeAsyncClientset, FakeClientset, FakeServer


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def call(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        async def inside() -> Any:
            result = function(*args, **more)
            return await result if inspect.isawaitable(result) else result

        return self.run(inside())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Blocking:
    """An object of the asyncio client as one of the client for threads."""

    def __init__(self, loop: Loop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return Blocking(self._loop, found)

        def call(*args: Any, **more: Any) -> Any:
            result = self._loop.call(found, *args, **more)
            return Blocking(self._loop, result) if isinstance(result, AsyncWatch) else result

        return call

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call(self._inner.close)

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.run(anext(self._inner))
        except StopAsyncIteration:
            raise StopIteration from None


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.close()


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

        def start_one(*arguments: str) -> Server:
            server = stack.enter_context(Server(directory, *arguments))
            servers.append(server)
            return server.wait_serving()

        yield start_one
    for server in servers:
        assert not server.tracebacks, server.text


@pytest.fixture(scope="session")
def real_server() -> Iterator[Server]:
    """One real server for all contract tests, which use GPUs of their own."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        with Server(Path(path)) as running:
            yield running.wait_serving()
            running.stop()
        assert not running.tracebacks, running.text


@contextmanager
def connected(backend: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A clientset of that kind of server, whose calls block."""
    with ExitStack() as stack:
        if backend == "fake":
            yield stack.enter_context(FakeClientset())
            return
        if backend == "fake-server":
            target = f"unix://{request.getfixturevalue('directory')}/fake.sock"
            server = stack.enter_context(FakeServer(target))
            yield stack.enter_context(Clientset.connect(server.target))
            return
        if backend == "real":
            target = str(request.getfixturevalue("real_server").provider_socket)
            yield stack.enter_context(Clientset.connect(target))
            return
        loop = request.getfixturevalue("loop")
        make: Callable[[], Any] = FakeAsyncClientset
        if backend == "real-async":
            target = str(request.getfixturevalue("real_server").provider_socket)

            def make() -> Any:
                return AsyncClientset.connect(target)

        yield stack.enter_context(Blocking(loop, loop.call(make)))


@pytest.fixture(params=["real", "real-async", "fake", "fake-async", "fake-server"])
def clients(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The contract's clientset: every kind of client on every kind of server."""
    with connected(request.param, request) as found:
        yield found


@pytest.fixture
def name() -> str:
    """The name of a GPU that no other test uses."""
    return f"gpu-{uuid.uuid4()}"


@pytest.fixture
def gpus(clients: Any) -> Any:
    return clients.v1alpha1.gpus


@pytest.fixture
def providers(clients: Any) -> Any:
    return clients.v1alpha1.providers
