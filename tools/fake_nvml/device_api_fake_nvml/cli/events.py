"""Commands for events."""

from __future__ import annotations

import click

from device_api_fake_nvml.cli.parameters import gpu_option, node_argument, number
from device_api_fake_nvml.node import FakeNode

_TIMEOUT = 10

gpu_instance_option = click.option("--gpu-instance", type=int, help="Of a MIG device.")
compute_instance_option = click.option("--compute-instance", type=int, help="Of a MIG device.")


@click.command()
@node_argument
@click.argument("xid", type=int)
@gpu_option
@gpu_instance_option
@compute_instance_option
def xid(
    node: FakeNode,
    xid: int,
    gpu: int,
    gpu_instance: int | None,
    compute_instance: int | None,
) -> None:
    """Send an XID event to every client that registered for it. 999 is an unknown XID."""
    node.inject_xid(gpu, xid, gpu_instance, compute_instance)


@click.command()
@node_argument
@click.argument("event_type", metavar="TYPE", callback=number)
@gpu_option
@click.option(
    "--data", callback=number, default="0", metavar="NUMBER", help="0 for all but XID events."
)
def event(node: FakeNode, event_type: int, gpu: int, data: int) -> None:
    """Send an event of another type, a single bit: 0x2 is a double-bit ECC error."""
    node.inject_event(gpu, event_type, data)


@click.command()
@node_argument
def kill_event_sets(node: FakeNode) -> None:
    """Make every event set that exists now fail for good."""
    node.kill_event_sets()


@click.command()
@node_argument
def wake(node: FakeNode) -> None:
    """Make one wait for events return early, with TIMEOUT."""
    node.calls.fail("nvmlEventSetWait", _TIMEOUT, times=1)


COMMANDS = [xid, event, kill_event_sets, wake]
