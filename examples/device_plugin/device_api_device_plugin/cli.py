"""device-api-device-plugin: reads the settings, runs the plugin, obeys signals."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import click

from device_api_core.client.errors import ConfigurationError
from device_api_core.logs import set_up
from device_api_device_plugin import __version__
from device_api_device_plugin.plugin import run
from device_api_device_plugin.settings import DeviceList, InvalidSetting, Settings

logger = logging.getLogger(__name__)

_DEFAULTS = Settings()


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "DEVICE_PLUGIN",
        "show_default": True,
    }
)
@click.option(
    "--target",
    help="The Device API: a socket's path or a gRPC target. By default what NVIDIA_DEVICE_API "
    "names, else the server's own socket.",
)
@click.option("--resource-name", default=_DEFAULTS.resource_name, help="What pods ask for.")
@click.option(
    "--plugin-dir",
    type=click.Path(path_type=Path),
    default=_DEFAULTS.plugin_dir,
    help="The kubelet's directory of device plugins.",
)
@click.option(
    "--max-age-seconds",
    type=float,
    default=_DEFAULTS.max_age_seconds,
    help="No GPU is called healthy on knowledge older than this.",
)
@click.option(
    "--device-list",
    type=click.Choice([str(way) for way in DeviceList]),
    default=str(_DEFAULTS.device_list),
    help="Tell containers of their GPUs by NVIDIA_VISIBLE_DEVICES or by CDI device names.",
)
@click.option("--cdi-kind", default=_DEFAULTS.cdi_kind, help="Vendor and class of the CDI devices.")
@click.option(
    "--poll-seconds",
    type=float,
    default=_DEFAULTS.poll_seconds,
    help="Time between two looks for a kubelet that was restarted.",
)
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json")
@click.option("-v", "--verbosity", count=True, help="Also log how things come about.")
@click.version_option(__version__)
def main(log_format: str, verbosity: int, device_list: str, **values: Any) -> None:
    """Advertise the GPUs of the Device API to this node's kubelet, sick ones as Unhealthy.

    Every option can be set in the environment: --max-age-seconds as DEVICE_PLUGIN_MAX_AGE_SECONDS.
    """
    try:
        settings = Settings(device_list=DeviceList(device_list), **values)
        set_up(log_format, verbosity)
        asyncio.run(_until_signal(settings))
    except (InvalidSetting, ConfigurationError) as error:
        raise click.ClickException(str(error)) from error


async def _until_signal(settings: Settings) -> None:
    loop, plugin = asyncio.get_running_loop(), asyncio.create_task(run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, plugin.cancel)
    try:
        await plugin
    except asyncio.CancelledError:
        # That is how a signal ends it; whatever goes wrong is another error.
        logger.info("stopped")
