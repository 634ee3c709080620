"""``device-api watch gpus``: every change as one line."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from device_api_core.cli.columns import ready_reason
from device_api_core.cli.completion import complete_gpus
from device_api_core.cli.follow import Follower, until_interrupted
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.output import as_json_line, output_option
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table
from device_api_core.client import GpuEvent
from device_api_core.client.convert import gpu_as_json

# What most lines have, so that the first one already stands where the later ones will.
_WIDTHS = {
    "TYPE": len("MODIFIED"),
    "NAME": len("gpu-") + 36,
    "READY": len("Unknown"),
    "REASON": len("AllConditionsTrue"),
    "ACTION": len("COMPONENT_RESET"),
}


@click.group(cls=KindGroup)
def watch() -> None:
    """Print changes as they happen.

    \b
    Example:
      device-api watch gpus --reconnect
    """


@watch.command("gpus")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_gpus)
@output_option("text", "json")
@click.option(
    "--resource-version",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="Only the changes after this version, instead of the present state first.",
)
@click.option("--reconnect", is_flag=True, help="Go on when the server restarts.")
@pass_session
def watch_gpus(
    session: Session,
    names: tuple[str, ...],
    output: str,
    resource_version: int | None,
    reconnect: bool,
) -> None:
    """Print one line for each change of the GPUs, or of those named, until Ctrl-C.

    The lines have: when it arrived, what happened, the GPU, Ready and its reason, the recommended
    action, the version. The present GPUs come first, as ADDED.

    \b
    Examples:
      device-api watch gpus
      device-api watch gpu gpu-1b2c... --reconnect
      device-api watch gpus -o json | jq -c '[.type, .object.metadata.name]'
    """
    table: Table[GpuEvent] = Table(
        {
            "TIME": lambda _: _now(),
            "TYPE": lambda event: event.type,
            "NAME": lambda event: event.gpu.name,
            "READY": lambda event: event.gpu.ready,
            "REASON": lambda event: ready_reason(event.gpu),
            "ACTION": lambda event: event.gpu.status.recommended_action,
            "VERSION": lambda event: str(event.resource_version),
        },
        least=_WIDTHS,
    )
    with session.connect() as clients, until_interrupted():
        follower = Follower(clients.v1alpha1.gpus, names, reconnect=reconnect)
        for event in follower.events(resource_version):
            if output == "json":
                click.echo(as_json_line(_event_as_json(event)))
            else:
                [line] = table.lines([event], headings=False)
                click.echo(line)


def _event_as_json(event: GpuEvent) -> dict[str, object]:
    return {"time": _now(), "type": str(event.type), "object": gpu_as_json(event.gpu)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
