"""What the shell completes: ``device-api completion``, and the names of GPUs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from device_api_core.cli.session import Session
from device_api_core.errors import DeviceApiError

_PROGRAM = "device-api"
_VARIABLE = "_DEVICE_API_COMPLETE"
_TIMEOUT_SECONDS = 1.0


def complete_gpus(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The GPUs of the server that the command line so far names."""
    options = ctx.find_root().params
    session = Session.of(options["server"], options["provider_server"], _TIMEOUT_SECONDS)
    try:
        with session.connect() as clients:
            found = clients.v1alpha1.gpus.list().items
    except DeviceApiError:
        # There is nobody to tell: the line is being typed.
        return []
    given = ctx.params.get(param.name or "")
    taken = given if isinstance(given, tuple) else ()
    return [
        CompletionItem(gpu.name, help=gpu.spec.product_name)
        for gpu in found
        if gpu.name.startswith(incomplete) and gpu.name not in taken
    ]


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and the names of GPUs.

    \b
    Examples:
      source <(device-api completion bash)
      device-api completion bash > /etc/bash_completion.d/device-api
      device-api completion fish > ~/.config/fish/completions/device-api.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, _PROGRAM, _VARIABLE).source())
