"""Running providers: start, watch over, restart, stop, each in its home.

A provider that crashes or falls silent is no longer believed and is started again after a growing
pause. What cannot be ended, a thread in a vendor call or a process in uninterruptible sleep, is
abandoned, and only a few of them may pile up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from device_api_core.events import EventLog, Kind
from device_api_core.intake import Intake
from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.homes import Hearing, Home, Run
from device_api_core.plugins.thread import ThreadHome
from device_api_core.readiness import Readiness
from device_api_core.roster import ProviderStatus

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_MAX_STUCK = 3


class Supervisor:
    """Runs the chosen plugins, each in a thread or in the home that ``homes`` has for its name.
    Lives on the event loop."""

    def __init__(
        self,
        chosen: Sequence[Plugin],
        available: Sequence[Plugin],
        *,
        intake: Intake,
        readiness: Readiness,
        events: EventLog,
        homes: Mapping[str, Home] | None = None,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        thread, homes = ThreadHome(intake), homes or {}
        self._watched = [
            _Watched(
                plugin,
                homes.get(plugin.name, thread),
                intake=intake,
                readiness=readiness,
                events=events,
                first_pause_seconds=first_pause_seconds,
            )
            for plugin in chosen
        ]
        running = {plugin.name for plugin in chosen}
        self._idle = [p for p in available if p.name not in running]
        self._idle_opened = False

    def start(self) -> None:
        """Start every provider."""
        for watched in self._watched:
            watched.start()

    async def stop(self, grace_seconds: float) -> None:
        """Ask every provider to return and wait for that, ``grace_seconds`` at most."""
        await asyncio.gather(*(w.stop(grace_seconds) for w in self._watched))

    async def statuses(self) -> list[ProviderStatus]:
        """The plugins that run here and those that merely are installed. The first call imports the
        latter, which takes a while, in a thread: reads go on meanwhile."""
        if not self._idle_opened:
            await asyncio.to_thread(lambda: [plugin.opened() for plugin in self._idle])
            self._idle_opened = True
        idle = [_status(p, "error" if p.error else "available", p.error) for p in self._idle]
        return sorted(self.running() + idle, key=lambda s: s.name)

    def running(self) -> list[ProviderStatus]:
        """The plugins that run here, well or badly."""
        return [w.status() for w in self._watched]

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
        home: Home,
        *,
        intake: Intake,
        readiness: Readiness,
        events: EventLog,
        first_pause_seconds: float,
    ) -> None:
        self.name = plugin.name
        self._plugin = plugin
        self._home = home
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
        self._run: Run | None = None
        self._lost = asyncio.Event()
        self._stuck: set[Run] = set()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch_over(), name=f"provider {self.name}")

    async def stop(self, grace_seconds: float) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task
        if (run := self._run) is not None:
            run.ask_to_stop()
            await _first([run.ended], grace_seconds)
            if not run.ended.is_set():
                logger.warning("provider did not stop in time", extra={"provider": self.name})
            await run.put_down("the server is stopping")
        self._state = "stopped"

    def status(self) -> ProviderStatus:
        status = _status(
            self._plugin,
            self._state,
            self._reason,
            self._restarts,
            synced=self._synced,
            summary=self._summary,
        )
        return status._replace(home=self._home.name)

    def clear(self, gpu: str, type_: str) -> None:
        if self._run is not None:
            self._run.clear(gpu, type_)

    async def _watch_over(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                run = await self._begin()
            except (Exception, SystemExit) as error:  # noqa: BLE001
                # The plugin's hook may raise anything; that is one more failed start.
                self._set_state("failed", f"cannot start: {error}")
                await self._pause()
                continue
            began = loop.time()
            await _first([run.ended, self._lost, self._stopping], None)
            if self._stopping.is_set():
                return
            # Only a run that lasted earns a short pause again: one that syncs and dies in a loop
            # does not.
            if loop.time() - began > _LONGEST_PAUSE_SECONDS:
                self._pause_seconds = self._first_pause_seconds
            if run.ended.is_set():
                await self._crashed(run)
            else:
                await self._silent(run)
            await self._pause()

    async def _begin(self) -> Run:
        self._lost.clear()
        self._intake.on_lost(self.name, self._lost.set)
        hearing = Hearing(synced=self._note_synced, summary=self._note_summary)
        self._state, self._reason = "starting", ""
        run = self._run = await self._home.start(self._plugin, hearing)
        self._intake.heard(self.name, lease_seconds=run.lease_seconds)
        return run

    async def _crashed(self, run: Run) -> None:
        await run.put_down("the provider has ended")
        self._disbelieve("ProviderFailed", f"provider {self.name} {run.outcome}")
        self._set_state("failed", run.outcome)

    async def _silent(self, run: Run) -> None:
        run.ask_to_stop()
        self._set_state("silent", "nothing was heard in time; it may hang in a vendor call")
        await run.put_down("nothing was heard in time, so the provider is replaced")
        # Its lease has seen to that already; this is for what it may have said in the meantime.
        self._disbelieve("ProviderLost", f"nothing was heard from provider {self.name} in time")
        self._stuck.add(run)
        while not self._stopping.is_set():
            self._stuck = {r for r in self._stuck if not r.ended.is_set()}
            if len(self._stuck) <= _MAX_STUCK:
                return
            await _first([*(r.ended for r in self._stuck), self._stopping], None)

    def _disbelieve(self, reason: str, message: str) -> None:
        self._intake.failed(self.name, reason, message)
        self._intake.leases.end(self.name)

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


async def _first(events: Sequence[asyncio.Event], timeout: float | None) -> None:
    """Wait until one of the events is set, or for ``timeout`` seconds."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _status(
    plugin: Plugin,
    state: str,
    reason: str,
    restarts: int = 0,
    *,
    synced: bool = False,
    summary: str = "",
) -> ProviderStatus:
    return ProviderStatus(
        plugin.name,
        "",
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
