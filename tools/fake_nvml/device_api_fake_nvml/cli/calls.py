"""Commands for NVML calls that hang, fail or are slow."""

from __future__ import annotations

import click

from device_api_fake_nvml.calls import FaultKind
from device_api_fake_nvml.cli.parameters import (
    any_gpu_option,
    error_number,
    function_option,
    node_argument,
)
from device_api_fake_nvml.node import FakeNode


@click.command()
@node_argument
@function_option
@any_gpu_option
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="Until unhang if left out."
)
def hang(node: FakeNode, function: str | None, gpu: int | None, seconds: float | None) -> None:
    """Block calls."""
    node.calls.hang(function, gpu, seconds)


@click.command()
@node_argument
@click.option("--function", metavar="NAME", help="Only what hangs for this function.")
@any_gpu_option
def unhang(node: FakeNode, function: str | None, gpu: int | None) -> None:
    """Release blocked calls at once."""
    if node.calls.unhang(function, gpu) == 0:
        raise click.ClickException("nothing hangs there")


@click.command()
@node_argument
@function_option
@any_gpu_option
@click.option(
    "--error", required=True, metavar="ERROR", callback=error_number, help="A number or a name."
)
@click.option("--times", type=click.IntRange(1), help="Until clear if left out.")
def fail(
    node: FakeNode, function: str | None, gpu: int | None, error: int, times: int | None
) -> None:
    """Make calls return an error.

    \b
      fake-nvml fail DIR --function nvmlEventSetWait --error unknown --times 3
      fake-nvml fail DIR --function nvmlDeviceRegisterEvents --gpu 2 --error 3
      fake-nvml fail DIR --function nvmlInit --error driver-not-loaded
    """
    node.calls.fail(function, error, gpu, times)


@click.command()
@node_argument
@function_option
@any_gpu_option
@click.option("--millis", required=True, type=click.IntRange(1), help="Added to each call.")
def slow(node: FakeNode, function: str | None, gpu: int | None, millis: int) -> None:
    """Make calls slow."""
    node.calls.slow(function, millis, gpu)


@click.command()
@node_argument
@click.option("--kind", type=click.Choice([kind.name.lower() for kind in FaultKind]))
@click.option("--function", metavar="NAME", help="Only faults of this function.")
@any_gpu_option
def clear(node: FakeNode, kind: str | None, function: str | None, gpu: int | None) -> None:
    """End call faults: all of them, or those that match."""
    node.calls.clear(None if kind is None else FaultKind[kind.upper()], function, gpu)


COMMANDS = [hang, unhang, fail, slow, clear]
