"""Arguments and options that many commands share."""

from __future__ import annotations

from pathlib import Path

import click

from device_api_fake_nvml.node import FakeNode

_ERRORS = {
    "uninitialized": 1,
    "invalid-argument": 2,
    "not-supported": 3,
    "no-permission": 4,
    "not-found": 6,
    "driver-not-loaded": 9,
    "timeout": 10,
    "lost": 15,
    "reset-required": 16,
    "version-mismatch": 18,
    "in-use": 19,
    "not-ready": 27,
    "unknown": 999,
}


def _open_node(ctx: click.Context, param: click.Parameter, value: str) -> FakeNode:
    node = FakeNode.open(Path(value))
    ctx.call_on_close(node.close)
    return node


def error_number(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if value in _ERRORS:
        return _ERRORS[value]
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither an NVML error number nor {', '.join(_ERRORS)}")


def number(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Decimal, or hexadecimal with 0x."""
    try:
        return int(value, 0)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number") from error


def _find_gpu(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    node: FakeNode = ctx.params["node"]
    return None if value is None else node.find(value)


# Eager, so that it is open when --gpu is looked up in it.
node_argument = click.argument("node", metavar="DIR", callback=_open_node, is_eager=True)
gpu_option = click.option(
    "--gpu", required=True, metavar="GPU", callback=_find_gpu, help="Number or UUID."
)
any_gpu_option = click.option(
    "--gpu", metavar="GPU", callback=_find_gpu, help="Number or UUID. Without it: every GPU."
)
function_option = click.option(
    "--function", metavar="NAME", help="An NVML function. Without it: every function."
)
