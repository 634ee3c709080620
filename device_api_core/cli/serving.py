"""device-api-server at work: runs the daemon and obeys signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from device_api_core import __version__
from device_api_core.cli.signals import Signals, kept
from device_api_core.daemon import build
from device_api_core.logs import set_up
from device_api_core.notify import ServiceNotifier
from device_api_core.server.connections import open_as_many_as_allowed
from device_api_core.settings import Settings

logger = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until a signal asks to stop; returns the exit status.

    Raises:
        SettingsError: the settings cannot work.
        PluginError: a provider that was asked for cannot be loaded.
    """
    set_up(settings.log_format, settings.verbosity)
    with kept(signal.SIGTERM, signal.SIGINT) as signals:
        return asyncio.run(_serve(settings, signals))


async def _serve(settings: Settings, signals: Signals) -> int:
    open_as_many_as_allowed()
    asked = asyncio.Event()
    signals.hear(lambda number: _on_signal(number, asked))
    notifier = ServiceNotifier(os.environ)
    # Built here because the parts take the running loop's clocks and timers.
    daemon = build(settings)
    # The watchdog is outside: a server that drains is alive.
    async with notifier.watched(), daemon.running() as addresses:
        logger.info(
            "serving",
            extra={
                "version": __version__,
                "node": settings.node,
                "transport": settings.transport,
                "unix_socket": settings.unix_socket or "none",
                "provider_socket": _provider_socket(settings),
                "tcp": _tcp(settings.grpc_address, addresses.tcp_port),
                "provider_tcp": _tcp(settings.grpc_provider_address, addresses.provider_tcp_port),
                "health": f"{settings.http_address}:{addresses.health_port}",
                "metrics": f"{settings.http_address}:{addresses.metrics_port}",
                "providers": ",".join(settings.provider) or "none",
            },
        )
        if not settings.provider:
            logger.info(
                "no provider was named, so none runs: name one of those installed with --provider",
                extra={"installed": daemon.installed},
            )
        # Not when reads are answered: that can wait for a driver, and systemd would give up.
        notifier.tell(READY=1, STATUS="serving")
        await asked.wait()
        notifier.tell(STOPPING=1, STATUS="stopping")
        logger.info("stopping", extra={"delay_seconds": settings.shutdown_delay})
        daemon.begin_shutdown()
        await asyncio.sleep(settings.shutdown_delay)
    logger.info("stopped")
    return 0


def _on_signal(number: signal.Signals, asked: asyncio.Event) -> None:
    if asked.is_set():
        # Asked twice: whoever is there does not want to wait.
        logger.warning("stopping at once", extra={"signal": number.name})
        os._exit(128 + number)
    logger.info("signal received", extra={"signal": number.name})
    asked.set()


def _provider_socket(settings: Settings) -> str:
    if settings.single_socket:
        return settings.unix_socket
    return settings.provider_socket or "none"


def _tcp(address: str, port: int) -> str:
    host, _, _ = address.rpartition(":")
    return f"{host}:{port}" if address else "none"
