"""The daemon's memory over restarts: what was kept becomes what is shown, by the rules of
``restoring``; without a state directory there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from device_api_core.cache import DeviceCache, Noted
from device_api_core.clock import Clock
from device_api_core.entries import Entry
from device_api_core.events import EventLog, Kind
from device_api_core.intake import Intake
from device_api_core.observation import StateObservation
from device_api_core.plugins.discovery import Plugin
from device_api_core.readiness import Readiness
from device_api_core.reservations import covers
from device_api_core.restoring import restored

if TYPE_CHECKING:
    from device_api_core.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Memory:
    """Reads what the last server kept, and keeps what this one is told.

    ``boot_id`` is a file whose text changes with every boot of the node. A boot that is not known
    is taken for the same one: then faults stay.

    Raises:
        SettingsError: the state directory cannot be used, or another server uses it.
    """

    def __init__(
        self, state_dir: str, *, events: EventLog, clock: Clock, boot_id: Path = BOOT_ID
    ) -> None:
        self._events = events
        self._clock = clock
        self._checkpoint: Checkpoint | None = None
        self._entries: tuple[Entry, ...] = ()
        self._rebooted = False
        self.first_version = clock.wall() // 1_000
        """The version to start from: the clock in microseconds, or just above what may have been
        handed out."""
        if state_dir:
            self._load(Path(state_dir).absolute(), _boot(boot_id))

    def _load(self, directory: Path, boot: str) -> None:
        # Imported only here: SQLite costs memory.
        from device_api_core.checkpoint import Checkpoint

        self._checkpoint = Checkpoint(
            directory, boot_id=boot, events=self._events, monotonic=self._clock.monotonic
        )
        contents = self._checkpoint.load(self._clock.wall())
        self._entries = contents.entries
        self._rebooted = bool(boot and contents.boot_id) and boot != contents.boot_id
        self.first_version = max(self.first_version, contents.ceiling + 1)
        self._checkpoint.reserve(self.first_version)

    @property
    def noted(self) -> Noted | None:
        """To be told every change; ``None`` if nothing is kept."""
        return self._checkpoint.note if self._checkpoint is not None else None

    @property
    def saving(self) -> Callable[[], asyncio.Future[None] | None] | None:
        """What has to be waited for before an acknowledgement; ``None`` if nothing is kept."""
        return self._checkpoint.saving if self._checkpoint is not None else None

    def observation(self) -> StateObservation | None:
        """The health of the disk, for the metrics; ``None`` if nothing is kept."""
        return self._checkpoint.observation() if self._checkpoint is not None else None

    def recall(
        self, cache: DeviceCache, intake: Intake, readiness: Readiness, plugins: Iterable[Plugin]
    ) -> None:
        """Show what was kept, as far as it is still believed. ``plugins`` are those that this
        server runs."""
        if not self._entries:
            return
        types = {plugin.name: plugin.reboot_proof_types for plugin in plugins}
        now = self._clock.wall()
        entries = [
            replace(
                entry,
                health=restored(
                    entry.health,
                    rebooted=self._rebooted,
                    reboot_proof=lambda id_, type_: covers(types.get(id_, ()), type_),
                    now=now,
                ),
            )
            for entry in self._entries
        ]
        self._entries = ()
        cache.restore(entries)
        readiness.remembers()
        self._say(len(entries))
        for owner in {owner for entry in entries for owner in entry.owners} - set(types):
            intake.leases.remember(owner)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Inside, what is noted is written, everything that was shown so far first."""
        if self._checkpoint is None:
            yield
            return
        await self._checkpoint.start()
        try:
            yield
        finally:
            self._checkpoint.close()

    def _say(self, gpus: int) -> None:
        text = f"{gpus} GPUs are known from before the restart"
        if self._rebooted:
            text += "; the node was booted since, which clears faults that are not reboot-proof"
        self._events.record(Kind.SERVER, "StateRestored", text)


def _boot(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("the boot of the node is not known", extra={"cause": str(error)})
        return ""
