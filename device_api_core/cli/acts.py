"""``device-api clear`` and ``device-api forget``: what an operator does for no provider can."""

from __future__ import annotations

from collections.abc import Iterable

import click

from device_api_core.cli.completion import complete_gpus
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.session import Session, pass_session
from device_api_core.client import Clientset
from device_api_core.client.errors import NotFound, Unavailable, Unreachable
from device_api_core.resources import READY, Condition, ConditionStatus, Gpu

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command("clear")
@click.argument("gpu", shell_complete=complete_gpus)
@click.argument("type")
@pass_session
def clear(session: Session, gpu: str, type: str) -> None:
    """Declare the cause of a bad condition gone.

    The condition of that TYPE becomes Unknown, and its provider forgets the fault and probes
    again. It becomes True only when the provider says so.

    \b
    Example:
      device-api clear gpu-1b2c... XidHealthy
    """
    with session.connect_as_operator() as clients:
        version = clients.admin.clear_condition(gpu, type)
    click.echo(f"{type} of {gpu} is Unknown until its provider reports again (version {version})")


@click.group(cls=KindGroup)
def forget() -> None:
    """Remove what a GPU or a provider has left behind.

    \b
    Examples:
      device-api forget gpu gpu-1b2c...
      device-api forget provider fan --yes
    """


@forget.command("gpu")
@click.argument("name", shell_complete=complete_gpus)
@yes_option
@pass_session
def forget_gpu(session: Session, name: str, yes: bool) -> None:
    """Remove a GPU with everything that was said of it, faults included.

    For a GPU that was taken out for good. A provider that still sees it may register it again.

    \b
    Example:
      device-api forget gpu gpu-1b2c...
    """
    with session.connect_as_operator() as clients:
        if not yes:
            _confirm(_loss_of_gpu(clients, name))
        if not clients.admin.forget_gpu(name):
            raise NotFound(f"no GPU is named {name}")
    click.echo(f"{name} is forgotten")


@forget.command("provider")
@click.argument("provider_id", metavar="ID")
@yes_option
@pass_session
def forget_provider(session: Session, provider_id: str, yes: bool) -> None:
    """Remove everything a provider has left behind, faults included.

    For a provider that will not come back. The server refuses it for a provider that it runs.

    \b
    Example:
      device-api forget provider fan --yes
    """
    with session.connect_as_operator() as clients:
        if not yes:
            _confirm(_loss_of_provider(clients, provider_id))
        forgotten = clients.admin.forget_provider(provider_id)
    click.echo(
        f"{provider_id} is forgotten: {_count(forgotten.conditions, 'condition')} removed, "
        f"{_count(forgotten.gpus, 'GPU')} changed"
    )


def _confirm(loss: list[str]) -> None:
    for line in loss:
        click.echo(line, err=True)
    click.confirm("Go on?", abort=True, err=True)


def _loss_of_gpu(clients: Clientset, name: str) -> list[str]:
    try:
        gpu = clients.v1alpha1.gpus.get(name)
    except Unreachable:
        raise
    except Unavailable as error:
        return [f"This removes {name} with all its conditions. They cannot be shown: {error}"]
    held = [c for c in gpu.status.conditions if c.type != READY]
    product = f" ({gpu.spec.product_name})" if gpu.spec.product_name else ""
    return [
        f"This removes {name}{product} with {_count(len(held), 'condition')}.",
        *_faults((gpu, condition) for condition in held),
    ]


def _loss_of_provider(clients: Clientset, provider_id: str) -> list[str]:
    try:
        gpus = clients.v1alpha1.gpus.list().items
    except Unreachable:
        raise
    except Unavailable as error:
        return [f"This removes all that {provider_id} said. It cannot be shown: {error}"]
    owned = [(g, c) for g in gpus for c in g.status.conditions if c.provider_id == provider_id]
    touched = len({gpu.name for gpu, _ in owned})
    return [
        f"This removes all that {provider_id} said: {_count(len(owned), 'condition')} on "
        f"{_count(touched, 'GPU')}, and its registrations.",
        *_faults(owned),
    ]


def _faults(conditions: Iterable[tuple[Gpu, Condition]]) -> list[str]:
    lost = [(g, c) for g, c in conditions if c.status is ConditionStatus.FALSE]
    return [f"  a fault is lost: {g.name} {c.type} ({c.reason or 'no reason'})" for g, c in lost]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
