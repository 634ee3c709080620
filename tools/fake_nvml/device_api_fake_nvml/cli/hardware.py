"""Commands for hardware conditions."""

from __future__ import annotations

import click

from device_api_fake_nvml.cli.parameters import gpu_option, node_argument, number
from device_api_fake_nvml.errors import SignalNotFound
from device_api_fake_nvml.health import Bank, Location, RecoveryAction
from device_api_fake_nvml.node import FakeNode

_count_option = click.option("--count", type=click.IntRange(1), default=1, show_default=True)


def _words(names: type[Location] | type[Bank] | type[RecoveryAction]) -> click.Choice[str]:
    return click.Choice([member.name.lower().replace("_", "-") for member in names])


def _number_or_unsupported(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    return None if value == "unsupported" else number(ctx, param, value)


def _member(word: str) -> str:
    return word.upper().replace("-", "_")


@click.command()
@node_argument
@gpu_option
@_count_option
@click.option("--corrected", is_flag=True, help="Single-bit errors instead of double-bit ones.")
@click.option("--location", type=_words(Location), default="dram", show_default=True)
def ecc(node: FakeNode, gpu: int, count: int, corrected: bool, location: str) -> None:
    """Count memory errors, volatile and aggregate."""
    where = Location[_member(location)]
    node.health.count_ecc_errors(gpu, count, corrected=corrected, location=where)


@click.command()
@node_argument
@gpu_option
@click.option("--corrected", is_flag=True, help="Because of a correctable error.")
@click.option("--bank", type=_words(Bank), default="max", help="Spares the bank had before.")
@click.option("--failure", is_flag=True, help="The row could not be replaced.")
def remap(node: FakeNode, gpu: int, corrected: bool, bank: str, failure: bool) -> None:
    """Remap a memory row; pending until the GPU is reset."""
    if failure:
        node.health.fail_remap(gpu)
    else:
        node.health.remap_row(gpu, corrected=corrected, bank=Bank[_member(bank)])


@click.command()
@node_argument
@gpu_option
@_count_option
def retire(node: FakeNode, gpu: int, count: int) -> None:
    """Retire memory pages, on GPUs that cannot remap rows."""
    node.health.retire_pages(gpu, count)


@click.command()
@node_argument
@gpu_option
@click.option("--channel", is_flag=True)
@click.option("--tpc", is_flag=True)
def repair(node: FakeNode, gpu: int, channel: bool, tpc: bool) -> None:
    """Set which repairs are pending; without options none."""
    node.health.need_repair(gpu, channel=channel, tpc=tpc)


@click.command()
@node_argument
@gpu_option
@click.argument("celsius", type=int)
def thermal(node: FakeNode, gpu: int, celsius: int) -> None:
    """Set the temperature; margin and clock event reasons follow."""
    node.health.set_temperature(gpu, celsius)


@click.command()
@node_argument
@gpu_option
@click.option("--link", required=True, type=click.IntRange(0))
@click.option("--state", type=click.Choice(["up", "down"]))
@click.option("--counter", metavar="NAME", help="For example replay, crc-flit, recoveries-failed.")
@_count_option
def nvlink(
    node: FakeNode, gpu: int, link: int, state: str | None, counter: str | None, count: int
) -> None:
    """Take an NVLink down or up, or count errors on it."""
    if state is None and counter is None:
        raise click.UsageError("give --state, --counter or both")
    if state is not None:
        node.health.set_nvlink(gpu, link, state == "up")
    if counter is not None:
        node.health.count_nvlink_errors(gpu, link, counter, count)


@click.command()
@node_argument
@gpu_option
@click.argument("action", type=_words(RecoveryAction))
def recovery(node: FakeNode, gpu: int, action: str) -> None:
    """Set the recovery action that field 230 reports."""
    node.health.ask_for(gpu, RecoveryAction[_member(action)])


@click.command()
@node_argument
@gpu_option
@click.argument("mode", type=click.Choice(["on", "off"]))
@click.option("--pending", is_flag=True, help="From the next reset on.")
def mig_mode(node: FakeNode, gpu: int, mode: str, pending: bool) -> None:
    """Turn MIG on or off."""
    node.mig.set_mode(gpu, mode == "on", pending_only=pending)


@click.command()
@node_argument
@gpu_option
@click.argument("profile")
def mig_create(node: FakeNode, gpu: int, profile: str) -> None:
    """Create a MIG device of a PROFILE such as 1g.10gb and print its UUID."""
    click.echo(node.mig.create(gpu, profile).uuid)


@click.command()
@node_argument
@gpu_option
@click.argument("index", type=int)
def mig_destroy(node: FakeNode, gpu: int, index: int) -> None:
    """Destroy the MIG device at INDEX."""
    node.mig.destroy(gpu, index)


# Values may be negative.
@click.command(name="set", context_settings={"ignore_unknown_options": True})
@node_argument
@gpu_option
@click.argument("signal")
@click.argument("value", callback=_number_or_unsupported)
def set_signal(node: FakeNode, gpu: int, signal: str, value: int | None) -> None:
    """Set any SIGNAL to a number or to `unsupported`.

    \b
      fake-nvml set DIR --gpu 0 power-usage 690000
      fake-nvml set DIR --gpu 0 recovery-action unsupported
      fake-nvml set DIR --gpu 0 nvlink-state:4 0      one element of a row
      fake-nvml signals DIR --gpu 0                   their names and values
    """
    name, colon, element = signal.partition(":")
    if colon and not element.isdecimal():
        raise SignalNotFound(f"{element!r} is no element of {name}")
    node.signals.set(gpu, name, value, int(element or 0))


@click.command()
@node_argument
@gpu_option
def signals(node: FakeNode, gpu: int) -> None:
    """Show every signal of a GPU."""
    for name in node.signals.names():
        row = node.signals.row(gpu, name)
        shown = ["-" if value is None else str(value) for value in row]
        known = any(value is not None for value in row)
        click.echo(f"{name:26} {' '.join(shown) if known else 'unsupported'}")


COMMANDS = [
    ecc, remap, retire, repair, thermal, nvlink, recovery,
    mig_mode, mig_create, mig_destroy, set_signal, signals,
]  # fmt: skip
