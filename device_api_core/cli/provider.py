"""``device-api provider run`` and ``new``: for those who run or write a provider."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from device_api_core.cli.failures import Failure
from device_api_core.cli.session import Session, pass_session
from device_api_core.client.targets import parse_target
from device_api_core.configuration import read_file
from device_api_core.errors import DeviceApiError
from device_api_core.logs import set_up
from device_api_core.settings import LOG_FORMATS, Settings


@click.command("run")
@click.argument("name")
@click.option(
    "--server",
    metavar="TARGET",
    help="The providers' socket of the server to report to. Default: that of --provider-server.",
)
@click.option(
    "--config",
    envvar="DEVICE_API_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Read the provider's options from the table [providers.NAME] of this TOML file. It may be "
    "the server's own file.",
)
@click.option(
    "--state-dir",
    envvar="DEVICE_API_STATE_DIR",
    show_envvar=True,
    default="",
    metavar="DIR",
    help="Where the provider may keep what must survive a restart; empty for nowhere.",
)
@click.option("--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True)
@click.option("-v", "--verbosity", count=True, help="Also log how things come about.")
@pass_session
def run(session: Session, /, name: str, server: str | None, config: str | None, **how: str) -> None:
    """Run the installed provider NAME in this process, reporting to a server elsewhere.

    For a sidecar container, a systemd unit, or a first try at the terminal. The provider is the
    same as in the server, which must not run it, too: start the server with --expect-provider NAME
    instead of --provider NAME, and it is not ready before the provider has reported.

    It waits for a server that is not there yet, and tells one that was restarted everything again.
    A provider that crashes is started again after a growing pause; what it held for good is Unknown
    meanwhile. Logs go to standard error.

    \b
    Examples:
      device-api provider run nvml
      device-api provider run dcgm --server unix:///run/device-api-provider/provider.sock
      device-api provider run fan --config fan.toml --state-dir /var/lib/device-api

    \b
    Exit codes:
      0  SIGTERM or SIGINT, and the provider stopped in good order
      1  the provider is not installed or cannot be loaded, or an option is wrong
      4  the provider did not stop within 5 seconds
      5  the provider hung: it was silent for three of its intervals. Let a supervisor restart this
         process (systemd: Restart=on-failure), for a thread cannot be.
    """
    # Neither gRPC nor the plugins are needed to show the help.
    from device_api_core.plugins.discovery import load
    from device_api_core.plugins.homes import leave
    from device_api_core.plugins.runner import Runner

    try:
        settings = Settings(providers=read_file(config).get("providers", {}) if config else {})
        plugin = load(
            name, settings.provider_options.get(name, {}), state_dir=str(how["state_dir"])
        )
    except DeviceApiError as error:
        raise Failure(error.message) from error
    set_up(str(how["log_format"]), int(how["verbosity"]))
    target = parse_target(server) if server else session.provider_server
    runner = Runner(plugin, target, tls=session.tls)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    # Not by returning: a thread in a vendor call would keep the interpreter from ending.
    leave(runner.run())


@click.command("new")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where to write it; must not exist. Default: ./device-api-NAME.",
)
def new(name: str, directory: Path | None) -> None:
    """Write a new provider package called NAME: one condition, its options, its tests.

    \b
    Then:
      cd device-api-NAME
      pip install -e . pytest
      pytest
      device-api providers
    """
    from device_api_core.plugins.skeleton import Skeleton

    try:
        skeleton = Skeleton(name)
        path = directory or Path(skeleton.distribution)
        written = skeleton.write(path)
    except DeviceApiError as error:
        raise Failure(error.message) from error
    for file in written:
        click.echo(file)
    click.echo(f"next: cd {path} && pip install -e . pytest && pytest", err=True)
