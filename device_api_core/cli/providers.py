"""``device-api providers``: who reports health, and how it does."""

from __future__ import annotations

from collections.abc import Callable

import click

from device_api_core.cli.ages import age_of, format_age
from device_api_core.cli.columns import ANONYMOUS
from device_api_core.cli.failures import explain
from device_api_core.cli.output import output_option, print_data, print_lines
from device_api_core.cli.provider import new, run
from device_api_core.cli.session import Session
from device_api_core.cli.tables import Table
from device_api_core.client.admin import ProviderInfo, ProviderList
from device_api_core.client.errors import Unreachable

Show = Callable[[ProviderInfo], str]

_WELL = frozenset({"running", "available"})


def provider_summary(provider: ProviderInfo) -> str:
    """What a provider says of itself; where something is wrong, that comes first."""
    if provider.state in _WELL:
        return provider.summary or provider.state_reason
    return "; ".join(filter(None, (provider.state_reason, provider.summary)))


def _lease(provider: ProviderInfo) -> str:
    return "" if provider.lease_seconds is None else format_age(provider.lease_seconds)


_INSTALLED: dict[str, Show] = {
    "NAME": lambda p: p.name or ANONYMOUS,
    "STATE": lambda p: p.state,
    "VERSION": lambda p: p.version,
    "CONTRACT": lambda p: str(p.contract_version or ""),
}
_LIVE: dict[str, Show] = {
    "GPUS": lambda p: str(p.gpus),
    "RESTARTS": lambda p: str(p.restarts),
    "LAST SEEN": lambda p: age_of(p.last_sign_of_life),
}
_SUMMARY: dict[str, Show] = {"SUMMARY": provider_summary}
_ORIGIN: dict[str, Show] = {
    "DISTRIBUTION": lambda p: p.distribution,
    "ENTRY POINT": lambda p: p.entry_point,
}
_LIVE_WIDE: dict[str, Show] = {
    "HOME": lambda p: p.home,
    "LEASE": _lease,
}
_TYPES: dict[str, Show] = {"TYPES": lambda p: ",".join(p.condition_types)}


@click.group("providers", invoke_without_command=True)
@output_option("table", "wide", "json", "yaml")
@click.pass_context
def providers(ctx: click.Context, output: str) -> None:
    """List the providers: installed, running, and those that report over gRPC.

    Without a running server it lists what is installed here, without the live columns. A provider
    that is available runs when the server is told to: device-api-server --provider NAME.

    \b
    Examples:
      device-api providers
      device-api providers -o wide

    \b
    States:
      available  installed, not asked for      silent   not heard within its lease
      error      installed, cannot be loaded   failed   ended with an error, will be restarted
      starting   first look not finished       stopped  stopped in good order
      running    reports as it should          lost     external, its lease ran out
    """
    if ctx.invoked_subcommand is None:
        _show(ctx.find_object(Session), output)


def _show(session: Session | None, output: str) -> None:
    assert session is not None
    try:
        with session.connect_as_operator() as clients:
            listed = clients.admin.list_providers()
    except Unreachable as error:
        click.echo(f"note: {explain(error, session).message}", err=True)
        click.echo("note: listing what is installed here", err=True)
        listed = installed()
    if output in {"json", "yaml"}:
        print_data(listed.as_json(), output)
    elif listed.providers:
        table = Table(_columns(live=listed.server is not None, wide=output == "wide"))
        print_lines(table.lines(listed.providers))
    else:
        click.echo("no provider is installed, and none has reported", err=True)


for _command in (run, new):
    providers.add_command(_command)


def installed() -> ProviderList:
    """The plugins that are installed beside this program, as providers without a server."""
    # Reading the metadata of all installed distributions takes longer than asking the server.
    from device_api_core.plugins.discovery import discover

    return ProviderList(
        tuple(
            ProviderInfo(
                name=plugin.name,
                state="error" if plugin.error else "available",
                state_reason=plugin.error,
                distribution=plugin.distribution,
                version=plugin.version,
                entry_point=plugin.entry_point,
                contract_version=plugin.contract_version,
                condition_types=plugin.provider.types if plugin.provider is not None else (),
            )
            for plugin in sorted(discover(), key=lambda plugin: plugin.name)
        )
    )


def _columns(*, live: bool, wide: bool) -> dict[str, Show]:
    columns = _INSTALLED | (_LIVE if live else {}) | _SUMMARY
    if wide:
        columns |= _ORIGIN | (_LIVE_WIDE if live else {}) | _TYPES
    return columns
