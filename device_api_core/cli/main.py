"""``device-api``: what people ask about the GPUs of a node, and the few things they do."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from device_api_core import __version__
from device_api_core.cli.acts import clear, forget
from device_api_core.cli.completion import completion
from device_api_core.cli.describe import describe
from device_api_core.cli.events import events
from device_api_core.cli.gpus import get
from device_api_core.cli.groups import RootGroup
from device_api_core.cli.providers import providers
from device_api_core.cli.publish import publish, publishers
from device_api_core.cli.session import Session
from device_api_core.cli.top import top
from device_api_core.cli.version import version
from device_api_core.cli.wait import wait
from device_api_core.cli.watch import watch
from device_api_core.client.errors import ConfigurationError
from device_api_core.client.options import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    DEFAULT_TIMEOUT_SECONDS,
    KEY_VARIABLE,
    SERVER_NAME_VARIABLE,
    Tls,
)
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
@click.option(
    "--ca-file",
    envvar=CA_VARIABLE,
    show_envvar=True,
    metavar="FILE",
    help="Whom to trust at a TCP target, in PEM. This option or the next ones turn TLS on.",
)
@click.option(
    "--cert-file",
    envvar=CERTIFICATE_VARIABLE,
    show_envvar=True,
    metavar="FILE",
    help="This client's own certificate, in PEM.",
)
@click.option(
    "--key-file",
    envvar=KEY_VARIABLE,
    show_envvar=True,
    metavar="FILE",
    help="The key of --cert-file, in PEM.",
)
@click.option(
    "--tls-server-name",
    envvar=SERVER_NAME_VARIABLE,
    show_envvar=True,
    metavar="NAME",
    help="What the server's certificate must say, if that is not the target's host.",
)
@click.version_option(__version__, message="device-api %(version)s")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    server: str | None,
    provider_server: str | None,
    timeout: float,
    **tls: str | None,
) -> None:
    """See and operate the GPU health daemon of this node."""
    ctx.obj = replace(Session.of(server, provider_server, timeout), tls=_tls(**tls))
    # Otherwise click decides by whether it writes to a terminal.
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def _tls(
    ca_file: str | None, cert_file: str | None, key_file: str | None, tls_server_name: str | None
) -> Tls | None:
    named = (ca_file or None, cert_file or None, key_file or None, tls_server_name or None)
    if not any(named):
        return None
    try:
        tls = Tls(*named)
        # Now, so that a file that cannot be read is told as what it is and not as no answer.
        tls.credentials()
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    return tls


for _command in (
    *(get, describe, top, watch, wait),
    *(providers, events, clear, forget, publish, publishers, completion, version),
):
    main.add_command(_command)
