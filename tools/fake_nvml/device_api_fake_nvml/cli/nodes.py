"""Commands for a node as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import click

from device_api_fake_nvml.cli.parameters import node_argument
from device_api_fake_nvml.cli.report import as_json, as_table
from device_api_fake_nvml.control import MAX_GPUS
from device_api_fake_nvml.models import model_names
from device_api_fake_nvml.node import FakeNode


@click.command()
@click.argument("root", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--model", default="h100", show_default=True, type=click.Choice(model_names()), help="Product."
)
@click.option(
    "--gpus", type=click.IntRange(0, MAX_GPUS), help="How many; as the model has if left out."
)
@click.option("--driver-version", metavar="VERSION", help="Always followed by -SIMULATED.")
@click.option("--seed", default="fake", show_default=True, help="Decides UUIDs and serials.")
@click.option(
    "--without-symbol",
    "without",
    multiple=True,
    metavar="NAME",
    help="A function the library lacks, as with an older driver. Repeatable.",
)
def create(
    root: Path,
    model: str,
    gpus: int | None,
    driver_version: str | None,
    seed: str,
    without: tuple[str, ...],
) -> None:
    """Make DIR a driver root with a simulated node.

    The library is DIR/usr/lib64/libnvidia-ml.so.1; its state lies beside it.
    """
    with FakeNode.create(
        root,
        model=model,
        gpus=gpus,
        driver_version=driver_version,
        seed=seed,
        without_symbols=without,
    ) as node:
        click.echo(node.library)


@click.command()
@node_argument
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(node: FakeNode, output: str) -> None:
    """Show the GPUs and every fault that is active."""
    click.echo(as_json(node) if output == "json" else as_table(node))


@click.command(context_settings={"ignore_unknown_options": True})
@node_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(node: FakeNode, command: tuple[str, ...]) -> None:
    """Run an NVML client on the node: fake-nvml run DIR -- COMMAND..."""
    try:
        os.execvpe(command[0], command, node.environment())
    except FileNotFoundError as error:
        raise click.ClickException(f"no command {command[0]!r}") from error


@click.command()
@node_argument
@click.option("--driver-version", metavar="VERSION", help="Of the driver loaded now.")
@click.option(
    "--strand-clients",
    is_flag=True,
    help="Running clients get 18 (version mismatch) from nvmlInit until they start anew.",
)
def reload_driver(node: FakeNode, driver_version: str | None, strand_clients: bool) -> None:
    """Unload and load the driver: clients are uninitialised, event sets dead."""
    node.reload_driver(driver_version, strand_clients=strand_clients)


@click.command()
@node_argument
def uninstall_library(node: FakeNode) -> None:
    """Take the library away: new clients find none."""
    node.uninstall_library()


@click.command()
@node_argument
def install_library(node: FakeNode) -> None:
    """Put the library back."""
    node.install_library()


COMMANDS = [create, status, run, reload_driver, uninstall_library, install_library]
