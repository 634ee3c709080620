"""Running providers: start, watch over, restart, stop. One daemon thread each.

A provider that crashes or falls silent is no longer believed and is started again after a growing
pause. A thread that is stuck in a vendor call cannot be killed: it is abandoned, its sink is
closed, and only a few of them may pile up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from device_api_core.events import EventLog, Kind
from device_api_core.intake import LEASE_INTERVALS, Intake
from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.sink import ThreadSink
from device_api_core.plugins.spec import Provider
from device_api_core.readiness import Readiness
from device_api_core.roster import ProviderStatus

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_MAX_STUCK_THREADS = 3


@dataclass(eq=False)
class _Run:
    """One start of a provider: its thread, its sink, and how it ended."""

    provider: Provider
    sink: ThreadSink
    stop: threading.Event = field(default_factory=threading.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: str = ""


class Supervisor:
    """Runs the chosen plugins. Lives on the event loop."""

    def __init__(
        self,
        chosen: Sequence[Plugin],
        available: Sequence[Plugin],
        *,
        intake: Intake,
        readiness: Readiness,
        events: EventLog,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._watched = [
            _Watched(plugin, intake, readiness, events, first_pause_seconds) for plugin in chosen
        ]
        running = {plugin.name for plugin in chosen}
        self._idle = [p for p in available if p.name not in running]

    def start(self) -> None:
        """Start every provider."""
        for watched in self._watched:
            watched.start()

    async def stop(self, grace_seconds: float) -> None:
        """Ask every provider to return and wait for that, ``grace_seconds`` at most."""
        await asyncio.gather(*(w.stop(grace_seconds) for w in self._watched))

    def statuses(self) -> list[ProviderStatus]:
        """The plugins that run here and those that merely are installed."""
        idle = [
            _status(p, "error" if p.error else "available", p.error, 0, synced=False, summary="")
            for p in self._idle
        ]
        running = [w.status() for w in self._watched]
        return sorted(running + idle, key=lambda s: s.name)

    def clear(self, provider_id: str, gpu: str, type_: str) -> None:
        """Tell a provider that an operator cleared a condition. Remote providers are not told:
        they see it when they next read."""
        for watched in self._watched:
            if watched.name == provider_id:
                watched.clear(gpu, type_)


class _Watched:
    """One provider under supervision, through all its restarts."""

    def __init__(
        self,
        plugin: Plugin,
        intake: Intake,
        readiness: Readiness,
        events: EventLog,
        first_pause_seconds: float,
    ) -> None:
        self.name = plugin.name
        self._plugin = plugin
        self._intake = intake
        self._readiness = readiness
        self._events = events
        self._first_pause_seconds = first_pause_seconds
        self._pause_seconds = first_pause_seconds
        self._state = "starting"
        self._reason = ""
        self._restarts = 0
        self._synced = False
        self._summary = ""
        self._run: _Run | None = None
        self._stuck: set[_Run] = set()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch_over(), name=f"provider {self.name}")

    async def stop(self, grace_seconds: float) -> None:
        self._stopping.set()
        if self._run is not None:
            self._run.stop.set()
            await _first([self._run.ended], grace_seconds)
            self._run.sink.close("the server is stopping")
            if not self._run.ended.is_set():
                logger.warning("provider did not stop in time", extra={"provider": self.name})
        if self._task is not None:
            await self._task
        self._state = "stopped"

    def status(self) -> ProviderStatus:
        return _status(
            self._plugin,
            self._state,
            self._reason,
            self._restarts,
            synced=self._synced,
            summary=self._summary,
        )

    def clear(self, gpu: str, type_: str) -> None:
        run = self._run
        if run is None:
            return

        def tell() -> None:
            try:
                run.provider.clear(gpu, type_)
            except Exception:
                # The provider's own code, in a thread of its own: its failure is its owner's to
                # see; the condition stays Unknown until the provider reports again.
                logger.exception("clear failed", extra={"provider": self.name, "gpu": gpu})

        threading.Thread(target=tell, name=f"clear {self.name}", daemon=True).start()

    async def _watch_over(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                run = self._begin()
            except Exception as error:  # noqa: BLE001
                # The plugin's hook may raise anything; that is one more failed start.
                self._set_state("failed", f"cannot start: {error}")
                await self._pause()
                continue
            began = loop.time()
            await _first([run.ended, run.lost, self._stopping], None)
            if self._stopping.is_set():
                return
            # Only a run that lasted earns a short pause again: one that syncs and dies in a loop
            # does not.
            if loop.time() - began > _LONGEST_PAUSE_SECONDS:
                self._pause_seconds = self._first_pause_seconds
            if run.ended.is_set():
                self._crashed(run)
            else:
                await self._silent(run)
            await self._pause()

    def _begin(self) -> _Run:
        provider = self._plugin.create()
        sink = ThreadSink(
            self.name,
            provider.types,
            loop=asyncio.get_running_loop(),
            intake=self._intake,
            synced=self._note_synced,
            summary=self._note_summary,
        )
        run = self._run = _Run(provider, sink)
        self._intake.on_lost(self.name, run.lost.set)
        lease = LEASE_INTERVALS * provider.interval_seconds
        self._intake.heard(self.name, lease_seconds=lease)
        self._state, self._reason = "starting", ""
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=_run_provider, args=(run, loop), name=f"provider {self.name}", daemon=True
        ).start()
        return run

    def _crashed(self, run: _Run) -> None:
        run.sink.close("the provider has ended")
        self._intake.failed(self.name, "ProviderFailed", f"provider {self.name} {run.outcome}")
        self._intake.leases.end(self.name)
        self._set_state("failed", run.outcome)

    async def _silent(self, run: _Run) -> None:
        run.stop.set()
        run.sink.close("nothing was heard in time, so the provider is replaced")
        self._set_state("silent", "nothing was heard in time; it may hang in a vendor call")
        self._stuck.add(run)
        while not self._stopping.is_set():
            self._stuck = {r for r in self._stuck if not r.ended.is_set()}
            if len(self._stuck) <= _MAX_STUCK_THREADS:
                return
            await _first([*(r.ended for r in self._stuck), self._stopping], None)

    async def _pause(self) -> None:
        await _first([self._stopping], self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        self._restarts += 1

    def _note_synced(self) -> None:
        if self._state != "running":
            self._set_state("running", "")
        self._synced = True
        self._readiness.synced(self.name)

    def _note_summary(self, summary: str) -> None:
        self._summary = summary

    def _set_state(self, state: str, reason: str) -> None:
        self._state, self._reason = state, reason
        text = f"provider {self.name} is {state}" + (f": {reason}" if reason else "")
        self._events.record(
            Kind.PROVIDER,
            f"Provider{state.capitalize()}",
            text,
            provider_id=self.name,
            warning=state != "running",
        )


def _run_provider(run: _Run, loop: asyncio.AbstractEventLoop) -> None:
    """The provider's thread, from first to last."""
    try:
        run.provider.run(run.sink, run.stop)
        run.outcome = "returned" if run.stop.is_set() else "returned although nothing stopped it"
    except BaseException as error:
        # The provider boundary: whatever it raises, SystemExit included, ends this provider only.
        run.outcome = f"raised {type(error).__name__}: {error}"
        if not run.stop.is_set():
            logger.exception("provider crashed", extra={"provider": run.provider.name})
    finally:
        try:
            loop.call_soon_threadsafe(run.ended.set)
        except RuntimeError:
            # The daemon has exited meanwhile; nobody waits for this thread any more.
            logger.debug("provider ended after the server", extra={"provider": run.provider.name})


async def _first(events: Sequence[asyncio.Event], timeout: float | None) -> None:
    """Wait until one of the events is set, or for ``timeout`` seconds."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _status(
    plugin: Plugin, state: str, reason: str, restarts: int, *, synced: bool, summary: str
) -> ProviderStatus:
    return ProviderStatus(
        plugin.name,
        "thread",
        state,
        reason,
        distribution=plugin.distribution,
        version=plugin.version,
        entry_point=plugin.entry_point,
        contract_version=plugin.contract_version,
        restarts=restarts,
        synced=synced,
        summary=summary,
        types=plugin.provider.types if plugin.provider is not None else (),
    )
