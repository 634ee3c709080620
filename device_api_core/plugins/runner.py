"""Running one provider in this process, with the server elsewhere.

``device-api provider run`` does it for a sidecar or a unit of its own; ``python -m`` on this module
is what a server executes for a provider that it isolates. That one gets its orders on its standard
input: the first line says what to run, later ones what an operator has cleared, and the end of it
says stop.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from device_api_core.client.clientset import Clientset
from device_api_core.client.endpoint import Endpoint
from device_api_core.client.options import Options, Tls
from device_api_core.client.presence import Presence
from device_api_core.client.retry import NO_RETRY, Backoff
from device_api_core.errors import DeviceApiError
from device_api_core.logs import set_up
from device_api_core.plugins.discovery import Plugin, load
from device_api_core.plugins.homes import leave, run_to_end, tell_cleared
from device_api_core.plugins.mirror import Mirror
from device_api_core.plugins.remote import RemoteSink
from device_api_core.plugins.spec import Provider

logger = logging.getLogger(__name__)

DONE, FAILED, STUCK, SILENT = 0, 1, 4, 5
"""Exit codes: stopped in good order; the provider cannot run, or has ended by itself where the
server restarts it; it did not stop in time; it hangs, so that the process has to be replaced."""

STOP_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LOOK_SECONDS = 0.25
_CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Run:
    provider: Provider
    sink: RemoteSink


class Runner:
    """Runs a plugin's provider in a thread until :meth:`stop`.

    On its own (``supervised`` false) it starts a provider that crashed again after a growing
    pause, and notices when the server comes back. Under a server's supervision it leaves both, and
    what becomes of the provider's conditions, to that server.
    """

    def __init__(
        self,
        plugin: Plugin,
        target: str,
        *,
        supervised: bool = False,
        tls: Tls | None = None,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        self._plugin = plugin
        self._target = target
        self._supervised = supervised
        self._tls = tls
        self._pauses = Backoff(first_pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._mirror = Mirror()
        self._stop = threading.Event()
        # Something happened that the main thread has to look at.
        self._news = threading.Event()
        self._run: _Run | None = None

    def stop(self) -> None:
        """Ask the provider to return. May be called from a signal handler."""
        self._stop.set()
        self._news.set()

    def clear(self, gpu: str, type_: str) -> None:
        """An operator has cleared a condition."""
        if (run := self._run) is not None and run.sink.operator_cleared(gpu, type_):
            tell_cleared(run.provider, gpu, type_)

    def run(self) -> int:
        """Returns the exit code."""
        facts = {"provider": self._plugin.name}
        while True:
            try:
                code, outcome = self._once()
            except Exception as error:
                # The plugin's hook may raise anything; that is one more failed start.
                if self._supervised:
                    raise
                code, outcome = FAILED, f"cannot start: {error}"
            if code != FAILED:
                return code
            logger.error("provider has failed", extra={**facts, "outcome": outcome})
            if self._supervised:
                return FAILED
            if self._stop.wait(self._pauses.pause()):
                return DONE

    def _once(self) -> tuple[int, str]:
        provider = self._plugin.create()
        # The sink tries again by itself, for as long as it takes.
        endpoint = Endpoint(self._target, Options(_CALL_SECONDS, retry=NO_RETRY, tls=self._tls))
        sink = RemoteSink(
            provider.name,
            provider.types,
            Clientset(endpoint, endpoint),
            interval_seconds=provider.interval_seconds,
            mirror=self._mirror,
            cleared=lambda gpu, type_: tell_cleared(provider, gpu, type_),
        )
        presence = None if self._supervised else Presence(endpoint, sink.server_changed)
        self._run = _Run(provider, sink)
        try:
            return self._watch_over(provider, sink)
        finally:
            if presence is not None:
                presence.close()
            sink.close("the provider has ended")

    def _watch_over(self, provider: Provider, sink: RemoteSink) -> tuple[int, str]:
        logger.info("provider is starting", extra={"provider": provider.name})
        stop, ended, outcomes = threading.Event(), threading.Event(), list[str]()

        def run() -> None:
            outcomes.append(run_to_end(provider, sink, stop))
            ended.set()
            self._news.set()

        name = f"provider {provider.name}"
        threading.Thread(target=run, name=name, daemon=True).start()
        running = False
        while not (ended.is_set() or self._stop.is_set()):
            if sink.is_synced and not running:
                running = True
                logger.info("provider is running", extra={"provider": provider.name})
            if sink.is_silent and not self._supervised:
                logger.error("provider is silent", extra={"provider": provider.name})
                return SILENT, ""
            self._news.wait(_LOOK_SECONDS)
            self._news.clear()
        if self._stop.is_set():
            stop.set()
            return self._ending(sink, ended), ""
        if not self._supervised:
            sink.fail("ProviderFailed", f"provider {provider.name} {outcomes[0]}")
        return FAILED, outcomes[0]

    def _ending(self, sink: RemoteSink, ended: threading.Event) -> int:
        facts = {"provider": self._plugin.name}
        logger.info("provider is stopping", extra=facts)
        sink.wait_no_more()
        if ended.wait(STOP_SECONDS):
            logger.info("provider has stopped", extra=facts)
            return DONE
        logger.error("provider did not stop in time", extra=facts)
        return STUCK


def main(arguments: list[str], orders: IO[bytes]) -> int:
    """The process of an isolated provider."""
    # A crash in a vendor library shows where it was.
    faulthandler.enable()
    # Vendor libraries print where they like; the server reads one of the two.
    os.dup2(2, 1)
    [name] = arguments
    order = json.loads(orders.readline())
    set_up("json", order["verbosity"])
    try:
        plugin = load(name, order["options"], state_dir=order["state_dir"])
        runner = Runner(plugin, order["target"], supervised=True)
        signal.signal(signal.SIGTERM, lambda *_: runner.stop())
        obey = threading.Thread(target=_obey, args=(orders, runner), name="orders", daemon=True)
        obey.start()
        return runner.run()
    except DeviceApiError as error:
        logger.error("provider cannot run", extra={"outcome": error.message})  # noqa: TRY400
        return FAILED


def _obey(orders: Iterable[bytes], runner: Runner) -> None:
    for line in orders:
        for act in json.loads(line).values():
            # It may have to wait for a call of the provider; the end of the orders may not.
            clear = threading.Thread(target=runner.clear, args=(act["gpu"], act["type"]))
            clear.daemon = True
            clear.start()
    runner.stop()


if __name__ == "__main__":
    leave(main(sys.argv[1:], sys.stdin.buffer))
