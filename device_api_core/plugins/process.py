"""A provider in a process of its own: the home that a vendor library cannot take down the daemon
from.

The child is started by exec, never by fork alone: this process has threads. It gets its orders on
its standard input, as JSON lines; the end of that input is its order to stop, so it ends with this
process whatever happens here. What it reports comes through a socket that is for it alone. What it
writes to its standard error becomes log lines of this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from device_api_core.errors import PluginError
from device_api_core.intake import LEASE_INTERVALS, Intake
from device_api_core.life import Life
from device_api_core.logs import pass_on
from device_api_core.plugins.discovery import Plugin
from device_api_core.plugins.homes import Hearing

logger = logging.getLogger(__name__)

START_SECONDS = 30.0
"""How long a process may take until it is first heard."""

_MODULE = "device_api_core.plugins.runner"
_KILL_SECONDS = 2.0
_LAST_WORDS_SECONDS = 1.0
_CHUNK_BYTES = 64 * 1024


class Door(Protocol):
    """A socket through which one provider may report, until it is closed."""

    target: str

    async def close(self) -> None:
        """Nobody comes in any more, and the socket is gone."""


OpenDoor = Callable[[str, tuple[str, ...]], Awaitable[Door]]
"""Makes the door for a provider id and its condition types."""


class ProcessHome:
    """Starts providers in processes."""

    name = "process"

    def __init__(self, intake: Intake, open_door: OpenDoor) -> None:
        self._intake = intake
        self._open_door = open_door

    async def start(self, plugin: Plugin, hearing: Hearing) -> ProcessRun:
        """See :class:`~device_api_core.plugins.homes.Home`."""
        provider = plugin.provider
        if provider is None:
            raise PluginError(f"provider {plugin.name} cannot be loaded: {plugin.error}")
        self._intake.on_life(plugin.name, lambda life: _pass_on_life(life, hearing))
        door = await self._open_door(plugin.name, provider.types)
        try:
            child = await _spawn(plugin, door.target)
        except BaseException:
            await door.close()
            raise
        lease = max(START_SECONDS, LEASE_INTERVALS * provider.interval_seconds)
        return ProcessRun(plugin.name, child, door, lease)


class ProcessRun:
    """One process. See :class:`~device_api_core.plugins.homes.Run`."""

    def __init__(self, name: str, child: Process, door: Door, lease_seconds: float) -> None:
        self.ended = asyncio.Event()
        self.outcome = ""
        self.lease_seconds = lease_seconds
        self._name = name
        self._child = child
        self._door = door
        self._last_words = ""
        self._reading = asyncio.create_task(self._read(), name=f"log of provider {name}")
        self._waiting = asyncio.create_task(self._wait(), name=f"end of provider {name}")

    def ask_to_stop(self) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        assert self._child.stdin is not None
        self._child.stdin.close()

    def clear(self, gpu: str, type_: str) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        assert self._child.stdin is not None
        if not self._child.stdin.is_closing():
            self._child.stdin.write(_line({"clear": {"gpu": gpu, "type": type_}}))

    async def put_down(self, why: str) -> None:
        """See :class:`~device_api_core.plugins.homes.Run`."""
        await self._door.close()
        if self.ended.is_set():
            return
        logger.info("killing the provider's process", extra={"provider": self._name, "why": why})
        self.ask_to_stop()
        with suppress(ProcessLookupError):
            # It leads a group of its own, so what it has started goes with it.
            os.killpg(self._child.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            # In uninterruptible sleep even this kill waits; then it is left to itself.
            await asyncio.wait_for(self.ended.wait(), _KILL_SECONDS)

    async def _wait(self) -> None:
        code = await self._child.wait()
        with suppress(TimeoutError):
            # Somebody it has started may hold its standard error open.
            await asyncio.wait_for(self._reading, _LAST_WORDS_SECONDS)
        self.outcome = self._last_words or _ending(code)
        self.ended.set()

    async def _read(self) -> None:
        assert self._child.stderr is not None
        rest = b""
        while chunk := await self._child.stderr.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._log(line)
            if len(rest) > _CHUNK_BYTES:
                self._log(rest)
                rest = b""
        self._log(rest)

    def _log(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            facts = pass_on(logger, text, {"provider": self._name})
            self._last_words = str(facts.get("outcome", self._last_words))


async def _spawn(plugin: Plugin, target: str) -> Process:
    order = {
        "options": dict(plugin.options),
        "state_dir": plugin.server_state_dir,
        "target": target,
        "verbosity": int(logging.getLogger().isEnabledFor(logging.DEBUG)),
    }
    # On its standard input, for its options may hold secrets. -P: nothing is imported from
    # whatever directory the daemon was started in.
    try:
        first_line = _line(order)
    except TypeError as error:
        raise PluginError(f"provider {plugin.name}: an option is no JSON value: {error}") from error
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE, plugin.name),
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.write(first_line)
    return child


def _line(order: dict[str, Any]) -> bytes:
    return json.dumps(order).encode() + b"\n"


def _pass_on_life(life: Life, hearing: Hearing) -> None:
    if life.summary:
        hearing.summary(life.summary)
    if life.synced:
        hearing.synced()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal.Signals(-code).name}"
