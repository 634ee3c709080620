"""The composition root: builds, starts and stops everything. What starts first stops last."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from device_api_core import __version__, codec
from device_api_core.cache import DeviceCache
from device_api_core.clock import SystemClock
from device_api_core.errors import Unavailable
from device_api_core.events import EventLog
from device_api_core.intake import MAX_HOLD_SECONDS, Intake
from device_api_core.leases import HEARTBEAT_SECONDS, LeaseTerms
from device_api_core.memory import Memory
from device_api_core.metrics import Metrics
from device_api_core.plugins.discovery import Plugin, discover, named
from device_api_core.plugins.homes import Home
from device_api_core.plugins.process import ProcessHome
from device_api_core.plugins.supervisor import FIRST_PAUSE_SECONDS, Supervisor
from device_api_core.readiness import GRACE_SECONDS, Readiness
from device_api_core.reservations import Reservations
from device_api_core.roster import Roster
from device_api_core.server.admin import Admin, ServerFacts
from device_api_core.server.caretaker import Caretaker
from device_api_core.server.doors import Doors
from device_api_core.server.faces import PROVIDER_FLAG, Faces
from device_api_core.server.http import HttpEndpoint
from device_api_core.server.observer import Observer
from device_api_core.server.pages import Pages, health_pages, metrics_pages
from device_api_core.server.traffic import Traffic
from device_api_core.server.transport import CONSUMER_FLAG, Face, Listening, load_transport
from device_api_core.settings import Settings
from device_api_core.watch import BOOKMARK_SECONDS, HISTORY_EVENTS, QUEUE_EVENTS, WatchHub

logger = logging.getLogger(__name__)

_PROVIDER_STOP_SECONDS = 5.0


class Tuning(NamedTuple):
    """The numbers of the API's promise. They are not settings: clients rely on them."""

    grace_seconds: float = GRACE_SECONDS
    heartbeat_lease_seconds: float = HEARTBEAT_SECONDS
    max_hold_seconds: float = MAX_HOLD_SECONDS
    bookmark_seconds: float = BOOKMARK_SECONDS
    first_pause_seconds: float = FIRST_PAUSE_SECONDS
    queue_events: int = QUEUE_EVENTS
    history_events: int = HISTORY_EVENTS


class Addresses(NamedTuple):
    """Where a running daemon listens; ports are the bound ones."""

    tcp_port: int
    provider_tcp_port: int
    health_port: int
    metrics_port: int


class Daemon:
    """A daemon built from settings. ``plugins`` are what is installed."""

    def __init__(
        self, settings: Settings, plugins: list[Plugin], *, tuning: Tuning | None = None
    ) -> None:
        self._settings = settings
        self._tuning = tuning = tuning or Tuning()
        clock = SystemClock()
        chosen = named(plugins, settings.provider)
        self._traffic = Traffic()
        self._reservations = Reservations()
        for plugin in chosen:
            types = plugin.provider.types if plugin.provider else ()
            self._reservations.reserve(plugin.name, types)
        self.metrics = Metrics(version=__version__, node=settings.node)
        self._events = EventLog(wall=clock.wall, monotonic=clock.monotonic)
        self._memory = Memory(settings.state_dir, events=self._events, clock=clock)
        self._hub = WatchHub(
            self._memory.first_version,
            encode_bookmark=codec.bookmark,
            queue_events=tuning.queue_events,
            history_events=tuning.history_events,
            max_watches=settings.max_watches,
            bookmark_seconds=tuning.bookmark_seconds,
        )
        self.cache = DeviceCache(
            self._hub,
            events=self._events,
            metrics=self.metrics,
            wall=clock.wall,
            noted=self._memory.noted,
            strict_unregister=settings.strict_unregister,
        )
        self.readiness = Readiness(
            [plugin.name for plugin in chosen],
            settings.expect_provider,
            known_gpus=lambda: len(self.cache),
            clock=clock.monotonic,
            changed=self._readiness_changed,
            grace_seconds=tuning.grace_seconds,
        )
        self.intake = Intake(
            self.cache,
            readiness=self.readiness,
            events=self._events,
            metrics=self.metrics,
            clock=clock,
            terms=LeaseTerms(
                tuning.heartbeat_lease_seconds,
                required=settings.require_heartbeat,
                gone_seconds=settings.forget_lost_providers_after,
            ),
            max_hold_seconds=tuning.max_hold_seconds,
            saving=self._memory.saving,
        )
        self._memory.recall(self.cache, self.intake, self.readiness, chosen)
        self.installed = ", ".join(p.name for p in plugins) or "none"
        self._supervisor = Supervisor(
            chosen,
            plugins,
            intake=self.intake,
            readiness=self.readiness,
            events=self._events,
            homes=self._homes(chosen),
            first_pause_seconds=tuning.first_pause_seconds,
        )
        self._roster = Roster(
            self.cache, self.intake, self._supervisor.statuses, self._supervisor.running
        )
        self._facts = ServerFacts(__version__, settings.node, clock.wall())
        self._listening: list[Listening] = []
        self._caretaker = Caretaker()
        self._tasks: set[asyncio.Task[None]] = set()
        self._observer = Observer(
            self.cache,
            hub=self._hub,
            intake=self.intake,
            roster=self._roster,
            events=self._events,
            readiness=self.readiness,
            state=self._memory.observation,
            sockets=self._caretaker.observe,
            facts=self._facts,
        )
        self.metrics.observe = self._observer.observe

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Addresses]:
        """Start everything; leaving the context stops everything.

        Raises:
            SettingsError: an address cannot be had or the transport is unknown.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._memory.writing())
            # First, so that these pages answer to the end: a server that drains is alive.
            pages = health_pages(self.readiness, self._observer)
            health = await self._serve_http(stack, settings.health_port, pages)
            pages = metrics_pages(self.metrics, self.intake.tallies)
            metrics = await self._serve_http(stack, settings.metrics_port, pages)
            stack.push_async_callback(self._shut_down)
            tcp_ports = await self._listen()
            self._caretaker.start(self._listening)
            self._supervisor.start()
            later = asyncio.get_running_loop().call_later
            stack.callback(later(self._tuning.grace_seconds, self.readiness.evaluate).cancel)
            self.readiness.evaluate()
            # What lives now lives as long as the process: keep the collector away from it.
            gc.collect()
            gc.freeze()
            yield Addresses(*tcp_ports, health, metrics)

    def begin_shutdown(self) -> None:
        """Not ready from now on; everything else still works."""
        self.readiness.stop()

    async def _shut_down(self) -> None:
        """Watches first, then the calls that run, then the providers; all within the timeout."""
        timeout = self._settings.shutdown_timeout
        for_providers = min(_PROVIDER_STOP_SECONDS, timeout / 2)
        self.readiness.stop()
        self._hub.close(Unavailable("the server is shutting down"))
        await self._caretaker.stop()
        await asyncio.gather(*(each.stop(timeout - for_providers) for each in self._listening))
        await self._supervisor.stop(for_providers)

    async def _listen(self) -> tuple[int, int]:
        """Returns the TCP ports of consumers and of providers, 0 for none."""
        transport = load_transport(self._settings.transport)
        ports = dict.fromkeys((CONSUMER_FLAG, PROVIDER_FLAG), 0)
        for face in self._faces():
            listening = await transport.listen(face, self.metrics)
            self._listening.append(listening)
            ports[face.tcp_flag] = ports[face.tcp_flag] or listening.tcp_port
        for listening in self._listening:
            # A provider may have made it ready while the last face was still being opened.
            await listening.set_serving(self.readiness.ready)
        return ports[CONSUMER_FLAG], ports[PROVIDER_FLAG]

    def _homes(self, chosen: list[Plugin]) -> dict[str, Home]:
        """The homes of those that do not live in a thread."""
        settings = self._settings
        doors = Doors(
            self.cache,
            hub=self._hub,
            intake=self.intake,
            metrics=self.metrics,
            transport=settings.transport,
            beside=settings.provider_socket or settings.unix_socket,
            traffic=self._traffic,
        )
        home = ProcessHome(self.intake, doors.open)
        return {plugin.name: home for plugin in chosen if plugin.name in settings.isolated}

    def _faces(self) -> list[Face]:
        admin = Admin(
            self.cache,
            intake=self.intake,
            roster=self._roster,
            events=self._events,
            readiness=self.readiness,
            facts=self._facts,
            tell_cleared=self._supervisor.clear,
        )
        return Faces(
            self._settings,
            cache=self.cache,
            hub=self._hub,
            intake=self.intake,
            readiness=self.readiness,
            reservations=self._reservations,
            admin=admin,
            traffic=self._traffic,
        ).all()

    async def _serve_http(self, stack: AsyncExitStack, port: int, pages: Pages) -> int:
        endpoint = HttpEndpoint(pages)
        bound = await endpoint.listen(self._settings.http_address, port)
        stack.push_async_callback(endpoint.stop)
        return bound

    def _readiness_changed(self, ready: bool) -> None:
        logger.info("ready" if ready else "not ready", extra={"gpus": len(self.cache)})
        self.cache.answers.forget()
        for listening in self._listening:
            task = asyncio.get_running_loop().create_task(listening.set_serving(ready))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def build(settings: Settings) -> Daemon:
    """A daemon with the installed plugins.

    Raises:
        SettingsError: the settings cannot work.
        PluginError: a provider that was asked for cannot be loaded.
    """
    return Daemon(settings, discover(settings.provider_options, state_dir=settings.state_dir))
