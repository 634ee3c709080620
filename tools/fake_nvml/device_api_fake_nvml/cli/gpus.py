"""Commands for whether and where a GPU is."""

from __future__ import annotations

import click

from device_api_fake_nvml.cli.parameters import error_number, gpu_option, node_argument
from device_api_fake_nvml.node import FakeNode


@click.command()
@node_argument
@gpu_option
@click.option(
    "--with",
    "error",
    callback=error_number,
    default="lost",
    show_default=True,
    metavar="ERROR",
    help="What its calls return: a number or a name such as unknown.",
)
def lose(node: FakeNode, gpu: int, error: int) -> None:
    """Lose the GPU: every call on it fails, and it stays in the count."""
    node.lose(gpu, error)


@click.command()
@node_argument
@gpu_option
def restore(node: FakeNode, gpu: int) -> None:
    """Bring a lost GPU back as it was."""
    node.restore(gpu)


@click.command()
@node_argument
@gpu_option
def remove(node: FakeNode, gpu: int) -> None:
    """Take the GPU out of the enumeration."""
    node.remove(gpu)


@click.command()
@node_argument
@gpu_option
@click.option("--index", type=click.IntRange(0), help="NVML index; where it was if left out.")
def add(node: FakeNode, gpu: int, index: int | None) -> None:
    """Put a removed GPU back."""
    node.add(gpu, index)


@click.command()
@node_argument
@gpu_option
def replace(node: FakeNode, gpu: int) -> None:
    """Put a new board in the GPU's place and print its UUID."""
    click.echo(node.replace(gpu))


@click.command()
@node_argument
@gpu_option
@click.option("--index", type=click.IntRange(0), help="NVML index it has afterwards.")
@click.option("--minor", type=click.IntRange(0), help="Minor number it has afterwards.")
@click.option("--kill-registrations", is_flag=True, help="Event sets hear of it no more.")
def reset(
    node: FakeNode, gpu: int, index: int | None, minor: int | None, kill_registrations: bool
) -> None:
    """Reset the GPU.

    Volatile counters become 0, pending row remaps, repairs and modes are applied, the recovery
    action is none, MIG devices are gone, and a lost GPU is back. Call faults stay: see clear.
    """
    node.reset(gpu, index=index, minor=minor, kill_registrations=kill_registrations)


COMMANDS = [lose, restore, remove, add, replace, reset]
