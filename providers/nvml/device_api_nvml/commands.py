"""``device-api nvml``: what the NVML provider knows and sees, without the daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import click

from device_api_core.errors import DeviceApiError
from device_api_nvml.areas import MEASURED
from device_api_nvml.library import NOT_SUPPORTED, Handle, Nvml, NvmlError, Unsupported
from device_api_nvml.signals import Area
from device_api_nvml.survey import describe
from device_api_nvml.xid import XidPolicy

_UNLISTED = "other"

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)


@click.group()
def nvml() -> None:
    """The NVML provider's XID policy, and what it sees on this node."""


def _codes(_context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise click.BadParameter("must be numbers, separated by commas", param=option)
    return tuple(int(word) for word in words)


@nvml.command("xid-policy")
@click.option("--ignored-xids", default="", callback=_codes, help="As in the configuration.")
@click.option("--informational-xids", default="", callback=_codes, help="As in the configuration.")
@click.option("--fatal-xids", default="", callback=_codes, help="As in the configuration.")
@output_option
def xid_policy(
    ignored_xids: tuple[int, ...],
    informational_xids: tuple[int, ...],
    fatal_xids: tuple[int, ...],
    output: str,
) -> None:
    """Print what each XID does to a GPU's health, and who says so.

    The options have the meaning of the configuration's settings of these names: give what is
    configured to see the effective table.
    """
    try:
        policy = XidPolicy(ignored_xids, informational_xids, fatal_xids)
    except DeviceApiError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        click.echo(json.dumps([{**asdict(row), "todo": row.todo} for row in policy.rows], indent=2))
        return
    heads = ("XID", "EFFECT", "ACTION", "SOURCE", "BUCKET", "MNEMONIC", "MEANING")
    lines = [
        (
            str(row.code or _UNLISTED),
            row.effect,
            row.action if row.effect == "fatal" else "",
            row.source,
            row.bucket,
            row.mnemonic,
            row.meaning,
        )
        for row in policy.rows
    ]
    _print_table(heads, lines)


@nvml.command()
@click.option("--driver-root", default="", help="As in the configuration.")
@output_option
def probe(driver_root: str, output: str) -> None:
    """Make every call of the provider once, and print what each GPU supports and how long it takes.

    Needs the driver, not the daemon. A wedged driver can block it: interrupt it then.
    """
    try:
        library = Nvml.open(driver_root)
    except NvmlError as error:
        raise click.ClickException(error.message) from error
    try:
        driver = _timed("driver_version", library.driver_version)
        count = _timed("count", library.count)
        if isinstance(count.value, int):
            gpus = [_probe_gpu(library, index) for index in range(count.value)]
        else:
            gpus = []
    finally:
        library.close()
    if output == "json":
        found = {"file": library.file, "driver": asdict(driver), "gpus": gpus}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"library  {library.file}")
    click.echo(f"driver   {driver.value or driver.error}")
    click.echo(f"GPUs     {count.error or count.value}")
    for gpu in gpus:
        click.echo(f"\nGPU {gpu['index']}")
        _print_table(_HEADS, (_row(call) for call in gpu["calls"]))


@dataclass(frozen=True, slots=True)
class Reading:
    """One call: what it returned, or why not, and how long it took."""

    call: str
    supported: bool
    milliseconds: float
    value: Any = None
    error: str = ""


_HEADS = tuple(f.name.upper() for f in fields(Reading))


def _timed(name: str, call: Callable[[], Any]) -> Reading:
    value, failure, supported = None, "", True
    began = time.perf_counter()
    try:
        value = call()
    except NvmlError as error:
        failure, supported = error.message, not isinstance(error, Unsupported)
    took = (time.perf_counter() - began) * 1000
    return Reading(name, supported, round(took, 3), value, failure)


def _probe_gpu(library: Nvml, index: int) -> dict[str, Any]:
    handles: list[Handle] = []
    readings = [_timed("handle", lambda: handles.append(library.handle(index)))]
    for gpu in handles:
        readings += [_timed(name, partial(call, gpu)) for name, call in _calls(library)]
        readings += [_timed(area.type, partial(_reads, library, gpu, area)) for area in MEASURED]
        readings.append(_timed("(all facts)", partial(_describes, library, gpu, index)))
    return {"index": index, "calls": [asdict(reading) for reading in readings]}


def _reads(library: Nvml, gpu: Handle, area: Area) -> Any:
    """Everything that a condition follows from."""
    if (reading := area.read(library, gpu, True)) is None:
        raise Unsupported(area.type, NOT_SUPPORTED, "no such signal")
    return reading


def _describes(library: Nvml, gpu: Handle, index: int) -> bool:
    return bool(describe(library, gpu, "", index))


def _calls(library: Nvml) -> list[tuple[str, Callable[[Handle], Any]]]:
    return [
        ("uuid", library.uuid),
        ("product_name", library.product_name),
        ("serial", library.serial),
        ("minor", library.minor),
        ("pci_bus_id", library.pci_bus_id),
        ("memory_bytes", library.memory_bytes),
        ("architecture", library.architecture),
        ("mig_mode", library.mig_mode),
        ("recovery_action", library.recovery_action),
        ("supported_events", lambda gpu: hex(library.supported_events(gpu))),
    ]


def _row(reading: dict[str, Any]) -> tuple[str, ...]:
    shown = {**reading, "supported": "yes" if reading["supported"] else "no"}
    return tuple("" if value is None else str(value) for value in shown.values())


def _print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
