"""``device-api events``: what happened on this node's server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import click

from device_api_core.cli.ages import age_of
from device_api_core.cli.output import output_option, print_data, print_lines
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table
from device_api_core.client.admin import Event

Show = Callable[[Event], str]


def _time(event: Event) -> str:
    if event.time is None:
        return ""
    moment = datetime.fromtimestamp(event.time / 1e9, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_AGE: dict[str, Show] = {"AGE": lambda event: age_of(event.time)}
_WHAT: dict[str, Show] = {
    "SEVERITY": lambda event: event.severity,
    "REASON": lambda event: event.reason,
}
_GPU: dict[str, Show] = {"GPU": lambda event: event.gpu_name}
_REST: dict[str, Show] = {
    "PROVIDER": lambda event: event.provider_id,
    "MESSAGE": lambda event: event.message,
}
_NUMBERED: dict[str, Show] = {"SEQUENCE": lambda event: str(event.sequence), "TIME": _time}

OF_ONE_GPU: dict[str, Show] = _AGE | _WHAT | _REST
"""The columns of events that are all about one GPU."""


@click.command("events")
@click.option("--gpu", metavar="NAME", default="", help="Only events about this GPU.")
@click.option("--provider", metavar="ID", default="", help="Only events about this provider.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only the newest N; 0 for all that the server keeps.",
)
@output_option("table", "wide", "json", "yaml")
@pass_session
def events(session: Session, gpu: str, provider: str, limit: int, output: str) -> None:
    """Show what happened, oldest first. The server forgets its events when it restarts.

    \b
    Examples:
      device-api events --limit 20
      device-api events --gpu gpu-1b2c... -o wide
    """
    with session.connect_as_operator() as clients:
        found = clients.admin.list_events(gpu_name=gpu, provider_id=provider, limit=limit)
    if output in {"json", "yaml"}:
        print_data({"events": [event.as_json() for event in found]}, output)
    elif found:
        first = _NUMBERED | _AGE if output == "wide" else _AGE
        print_lines(Table(first | _WHAT | _GPU | _REST).lines(found))
    else:
        click.echo("no events", err=True)
