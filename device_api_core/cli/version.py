"""``device-api version``: this program, the server, and what its providers drive."""

from __future__ import annotations

from typing import Any

import click

from device_api_core import __version__
from device_api_core.cli.ages import age_of
from device_api_core.cli.columns import ANONYMOUS
from device_api_core.cli.failures import explain
from device_api_core.cli.output import output_option, print_data, print_lines
from device_api_core.cli.providers import provider_summary
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table, indented
from device_api_core.client.admin import ProviderInfo, ProviderList, ServerInfo
from device_api_core.client.errors import DeviceApiError

_IDLE = frozenset({"available", "error"})


@click.command("version")
@output_option("text", "json", "yaml")
@pass_session
def version(session: Session, output: str) -> None:
    """Show the versions of this program and of the server, and what its providers drive.

    Works without a server, too.

    \b
    Examples:
      device-api version
      device-api version -o json
    """
    listed, problem = _ask(session)
    if output == "text":
        print_lines([f"Client:     {__version__}", *_server_lines(session, listed, problem)])
    else:
        print_data(_as_data(listed, problem), output)


def _ask(session: Session) -> tuple[ProviderList, str]:
    try:
        with session.connect_as_operator() as clients:
            return clients.admin.list_providers(), ""
    except DeviceApiError as error:
        return ProviderList(()), explain(error, session).message


def _server_lines(session: Session, listed: ProviderList, problem: str) -> list[str]:
    if (server := listed.server) is None:
        return [f"Server:     {_reads(session)}", f"            {problem}"]
    return [
        f"Server:     {server.version} at {session.provider_server}",
        f"Node:       {server.node_name or '-'}",
        f"State:      {_state(server)}",
        f"Started:    {age_of(server.started)} ago",
        "Providers:",
        *indented(_provider_lines(listed)),
    ]


def _reads(session: Session) -> str:
    # Who may read need not be who may ask for the version.
    try:
        with session.connect() as clients:
            found = clients.v1alpha1.gpus.list()
    except DeviceApiError:
        return "not reached"
    return f"version unknown, but {session.server} answers with {len(found.items)} GPUs"


def _state(server: ServerInfo) -> str:
    if server.ready:
        return "ready"
    return f"not ready, waits for {server.waiting_for or 'its first look'}"


def _provider_lines(listed: ProviderList) -> list[str]:
    active = [provider for provider in listed.providers if provider.state not in _IDLE]
    table: Table[ProviderInfo] = Table(
        {
            "NAME": lambda p: p.name or ANONYMOUS,
            "VERSION": lambda p: p.version,
            "STATE": lambda p: p.state,
            "SUMMARY": provider_summary,
        }
    )
    return table.lines(active, headings=False) if active else ["none runs or has reported"]


def _as_data(listed: ProviderList, problem: str) -> dict[str, Any]:
    client = {"version": __version__}
    if listed.server is None:
        return {"client": client, "server": None, "problem": problem}
    return {"client": client, **listed.as_json()}
