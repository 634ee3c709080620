"""``device-api``: what people ask about the GPUs of a node, and the few things they do."""

from __future__ import annotations

import os

import click

from device_api_core import __version__
from device_api_core.cli.acts import clear, forget
from device_api_core.cli.completion import completion
from device_api_core.cli.describe import describe
from device_api_core.cli.events import events
from device_api_core.cli.gpus import get
from device_api_core.cli.groups import RootGroup
from device_api_core.cli.providers import providers
from device_api_core.cli.session import Session
from device_api_core.cli.top import top
from device_api_core.cli.version import version
from device_api_core.cli.wait import wait
from device_api_core.cli.watch import watch
from device_api_core.client.endpoint import DEFAULT_TIMEOUT_SECONDS
from device_api_core.client.targets import (
    DEFAULT_PROVIDER_TARGET,
    DEFAULT_TARGET,
)

_EPILOG = """\b
Examples:
  device-api get gpus                      health of all GPUs of this node
  device-api get gpus -o wide              also UUID, PCI address and product
  device-api describe gpu gpu-1b2c...      everything about one GPU
  device-api top gpus                      the same live, the worst first
  device-api watch gpus                    every change as it happens
  device-api wait gpu gpu-1b2c... --for=condition=Ready
  device-api providers                     who reports health, and how it does
  device-api --server ./run/device.sock get gpus

\b
Completion of commands, options and the names of GPUs (also zsh and fish):
  source <(device-api completion bash)

\b
Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 no server answers.
"""


@click.group(
    cls=RootGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--server",
    metavar="TARGET",
    help="Where to read: unix:///path, host:port or the path of a socket. Default: "
    f"$NVIDIA_DEVICE_API, else {DEFAULT_TARGET}.",
)
@click.option(
    "--provider-server",
    metavar="TARGET",
    help="Where providers and operators are served (providers, events, clear, forget). Default: "
    f"$DEVICE_API_PROVIDER_SOCKET, else {DEFAULT_PROVIDER_TARGET}.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    help="How long to wait for an answer.",
)
@click.version_option(__version__, message="device-api %(version)s")
@click.pass_context
def main(
    ctx: click.Context, server: str | None, provider_server: str | None, timeout: float
) -> None:
    """See and operate the GPU health daemon of this node."""
    ctx.obj = Session.of(server, provider_server, timeout)
    # Otherwise click decides by whether it writes to a terminal.
    if os.environ.get("NO_COLOR"):
        ctx.color = False


for _command in (
    *(get, describe, top, watch, wait),
    *(providers, events, clear, forget, completion, version),
):
    main.add_command(_command)
