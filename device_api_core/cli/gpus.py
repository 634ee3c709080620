"""``device-api get gpus``, and how a GPU looks in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import click

from device_api_core.cli.ages import age_of
from device_api_core.cli.failures import Failure
from device_api_core.cli.follow import Follower
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.output import as_json_line, as_yaml, output_option, print_data, print_lines
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table
from device_api_core.client import EventType, GpuList, WatchEvent
from device_api_core.client.convert import gpu_as_json
from device_api_core.resources import READY, ConditionStatus, Gpu

Show = Callable[[Gpu], str]


def ready_reason(gpu: Gpu) -> str:
    """Why Ready is what it is, if there is anything to say."""
    ready = gpu.condition(READY)
    return ready.reason if ready is not None else ""


def _age(gpu: Gpu) -> str:
    ready = gpu.condition(READY)
    return age_of(ready.last_transition_time if ready is not None else None)


def _bad_conditions(gpu: Gpu) -> str:
    return ",".join(
        f"{c.type}={c.status}" + (f"({c.reason})" if c.reason else "")
        for c in gpu.status.conditions
        if c.status is not ConditionStatus.TRUE and c.type != READY
    )


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


_NARROW: dict[str, Show] = {
    "NAME": lambda gpu: gpu.name,
    "READY": lambda gpu: gpu.ready,
    "REASON": ready_reason,
    "ACTION": lambda gpu: gpu.status.recommended_action,
    "AGE": _age,
}
_WIDE: dict[str, Show] = _NARROW | {
    "UUID": lambda gpu: gpu.spec.uuid,
    "INDEX": lambda gpu: _number(gpu.spec.index),
    "PCI": lambda gpu: gpu.spec.pci_bus_id,
    "PRODUCT": lambda gpu: gpu.spec.product_name,
    "CONDITIONS": _bad_conditions,
    "VERSION": lambda gpu: str(gpu.metadata.resource_version),
}


@click.group(cls=KindGroup)
def get() -> None:
    """Show the GPUs of this node."""


@get.command("gpus")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@output_option("table", "wide", "json", "yaml", "name")
@click.option("-w", "--watch", is_flag=True, help="Then print each change, until Ctrl-C.")
@pass_session
def get_gpus(session: Session, names: tuple[str, ...], output: str, watch: bool) -> None:
    """Show all GPUs, or those named.

    AGE is how long Ready has been what it is; ACTION is what the providers recommend.

    \b
    Examples:
      device-api get gpus
      device-api get gpu gpu-1b2c... -o yaml
      device-api get gpus -w
      device-api get gpus -o json | jq '.items[].metadata.name'
    """
    table = Table(_WIDE if output == "wide" else _NARROW)
    with session.connect() as clients:
        found = clients.v1alpha1.gpus.list()
        missing = [name for name in names if name not in {gpu.name for gpu in found.items}]
        shown = GpuList(_selected(found, names), found.resource_version)
        _print_gpus(shown, output, table, single=len(names) == 1)
        if missing:
            raise Failure(
                f"no GPU is named {', '.join(missing)}",
                hint="names are compared exactly, most are a UUID in lower case; "
                "`device-api get gpus` lists them",
            )
        if watch:
            follower = Follower(clients.v1alpha1.gpus, names)
            with suppress(KeyboardInterrupt):
                for event in follower.changes_since(found):
                    _print_change(event, output, table)


def _selected(found: GpuList, names: Sequence[str]) -> tuple[Gpu, ...]:
    if not names:
        return tuple(sorted(found.items, key=_place))
    by_name = {gpu.name: gpu for gpu in found.items}
    return tuple(by_name[name] for name in dict.fromkeys(names) if name in by_name)


def _place(gpu: Gpu) -> tuple[bool, int, str]:
    # In the driver's order; GPUs that have no index come last.
    return gpu.spec.index is None, gpu.spec.index or 0, gpu.name


def _print_gpus(gpus: GpuList, output: str, table: Table[Gpu], *, single: bool) -> None:
    if output in {"json", "yaml"}:
        if not single:
            print_data(gpus.as_json(), output)
        elif gpus.items:
            print_data(gpu_as_json(gpus.items[0]), output)
    elif output == "name":
        print_lines(_names(gpus.items))
    elif gpus.items:
        print_lines(table.lines(gpus.items))
    elif not single:
        click.echo("this node has no GPUs that any provider reports", err=True)


def _print_change(event: WatchEvent, output: str, table: Table[Gpu]) -> None:
    if output == "json":
        click.echo(as_json_line(gpu_as_json(event.gpu)))
    elif output == "yaml":
        click.echo(f"---\n{as_yaml(gpu_as_json(event.gpu))}")
    elif output == "name":
        print_lines(_names([event.gpu]))
    else:
        [line] = table.lines([event.gpu], headings=False)
        gone = "   (deleted)" if event.type is EventType.DELETED else ""
        click.echo(line + gone)


def _names(gpus: Iterable[Gpu]) -> list[str]:
    return [f"gpu/{gpu.name}" for gpu in gpus]
