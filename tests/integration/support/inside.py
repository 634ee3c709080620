"""A daemon in the test's own event loop, for what needs its clocks, limits or providers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import pluggy

from device_api_core._proto import (
    admin_pb2_grpc,
    gpu_pb2,
    gpu_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
)
from device_api_core.plugins import PROJECT, Provider, Sink, hookimpl, spec
from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.installed import Opened

DEADLINE = 10.0


class Puppet(Provider):
    """A provider that does what the test tells it, in its own thread."""

    contract_version = 1
    interval_seconds = 10.0

    def __init__(
        self, name: str = "puppet", types: tuple[str, ...] = ("PuppetHealthy",), **facts: Any
    ) -> None:
        self.name = name
        self.types = types
        self.cleared: queue.Queue[tuple[str, str]] = queue.Queue()
        self.starts: queue.Queue[_Start] = queue.Queue()
        self._current: _Start | None = None
        vars(self).update(facts)

    def run(self, sink: Sink, stop: threading.Event) -> None:
        start = _Start(sink, stop)
        self._current = start
        self.starts.put(start)
        start.obey()

    def clear(self, gpu: str, type: str) -> None:
        self.cleared.put((gpu, type))

    async def started(self) -> _Start:
        """The next start of it."""
        return await asyncio.to_thread(self.starts.get, timeout=DEADLINE)


class _Start:
    """One run of a puppet."""

    def __init__(self, sink: Sink, stop: threading.Event) -> None:
        self.sink = sink
        self.stop = stop
        self._orders: queue.Queue[tuple[Callable[[Sink], Any], Future[Any]] | None] = queue.Queue()
        self._crash: BaseException | None = None

    def obey(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=0.02)
            except queue.Empty:
                if self.stop.is_set():
                    return
                continue
            if order is None:
                if self._crash is not None:
                    raise self._crash
                return
            act, done = order
            try:
                done.set_result(act(self.sink))
            except BaseException as error:  # noqa: BLE001
                done.set_exception(error)

    async def do(self, act: Callable[[Sink], Any]) -> Any:
        """Run ``act(sink)`` in the provider's thread; returns or raises what it does."""
        return await asyncio.wait_for(asyncio.wrap_future(self.order(act)), DEADLINE)

    def order(self, act: Callable[[Sink], Any]) -> Future[Any]:
        """As :meth:`do`, without waiting."""
        done: Future[Any] = Future()
        self._orders.put((act, done))
        return done

    def end(self, crash: BaseException | None = None) -> None:
        """Let ``run`` return, or raise ``crash``."""
        self._crash = crash
        self._orders.put(None)


def plugin(provider: Any) -> Plugin:
    """An installed plugin whose hook returns that provider; ``provider`` may be a function."""

    class Hooks:
        @hookimpl
        def device_api_provider(self, options: Any) -> Any:
            return provider() if callable(provider) else provider

    host = pluggy.PluginManager(PROJECT)
    host.add_hookspecs(spec)
    host.register(Hooks())
    example = provider() if callable(provider) else provider
    return Plugin(example.name, "test", "1.0", "test", lambda: Opened(example, "", host))


class Hold:
    """An update that a puppet holds until the test ends it."""

    def __init__(self, start: _Start, *gpus: str) -> None:
        self._start = start
        self._gpus = gpus
        self._entered: Future[Any] = Future()
        self._leave = threading.Event()
        self._error: BaseException | None = None
        self._changes: list[Callable[[Any], None]] = []
        self._done: Future[Any] | None = None

    async def __aenter__(self) -> Hold:
        self._done = self._start.order(self._hold)
        await asyncio.wait_for(asyncio.wrap_future(self._entered), DEADLINE)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave.set()
        assert self._done is not None
        await asyncio.to_thread(self._done.exception, DEADLINE)

    async def commit(self, *changes: Callable[[Any], None]) -> None:
        """Apply the changes and end the hold; raises what the provider gets."""
        self._changes = list(changes)
        await self._finish()

    async def fail(self, error: BaseException) -> None:
        """End it by an exception in the block; raises what the provider gets."""
        self._error = error
        await self._finish()

    async def _finish(self) -> None:
        assert self._done is not None
        self._leave.set()
        await asyncio.wait_for(asyncio.wrap_future(self._done), DEADLINE)

    def _hold(self, sink: Sink) -> None:
        try:
            with sink.update(*self._gpus) as update:
                self._entered.set_result(None)
                assert self._leave.wait(DEADLINE)
                if self._error is not None:
                    raise self._error
                for change in self._changes:
                    change(update)
        finally:
            if not self._entered.done():
                self._entered.set_exception(RuntimeError("the update was refused"))


class AsyncApi:
    """The stubs on one asynchronous channel."""

    def __init__(self, target: str, *options: tuple[str, Any]) -> None:
        local = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.aio.insecure_channel(target, options=[local, *options])
        self.gpus = gpu_pb2_grpc.GpuServiceStub(self.channel)
        self.providers = provider_pb2_grpc.ProviderServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)

    async def register(self, name: str, provider_id: str = "", **fields: Any) -> int:
        request = provider_pb2.RegisterGpuRequest(name=name, provider_id=provider_id, **fields)
        response = await self.providers.RegisterGpu(request, timeout=DEADLINE)
        return int(response.resource_version)

    async def set(
        self, name: str, type_: str, status: str = "True", provider_id: str = "", **fields: Any
    ) -> int:
        changed = gpu_pb2.Condition(type=type_, status=status, **fields)
        request = provider_pb2.UpdateGpuConditionRequest(
            name=name, provider_id=provider_id, condition=changed
        )
        response = await self.providers.UpdateGpuCondition(request, timeout=DEADLINE)
        return int(response.resource_version)

    async def heartbeat(self, provider_id: str, *names: str) -> bool:
        request = provider_pb2.HeartbeatRequest(provider_id=provider_id, gpu_names=names)
        return bool((await self.providers.Heartbeat(request, timeout=DEADLINE)).acknowledged)

    async def get(self, name: str, timeout: float = DEADLINE) -> gpu_pb2.Gpu:
        request = gpu_pb2.GetGpuRequest(name=name)
        return (await self.gpus.GetGpu(request, timeout=timeout)).gpu

    async def list(self, timeout: float = DEADLINE) -> gpu_pb2.GpuList:
        response = await self.gpus.ListGpus(gpu_pb2.ListGpusRequest(), timeout=timeout)
        return response.gpu_list

    def watch(self, version: str = "", timeout: float = 30.0, **options: Any) -> Any:
        opts = gpu_pb2.ListOptions(resource_version=version, **options)
        return self.gpus.WatchGpus(gpu_pb2.WatchGpusRequest(opts=opts), timeout=timeout)

    async def close(self) -> None:
        await self.channel.close()


async def until(condition: Callable[[], Any], timeout: float = DEADLINE) -> Any:
    """Let the loop turn until the condition is true; returns its value. For state that has no
    event of its own."""
    async with asyncio.timeout(timeout):
        while not (value := condition()):
            await asyncio.sleep(0.002)
        return value
