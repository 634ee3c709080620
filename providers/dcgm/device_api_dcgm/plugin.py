"""The hooks of the DCGM provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from device_api_core.plugins import Provider, hookimpl, read_options

if TYPE_CHECKING:
    import click


@hookimpl
def device_api_provider(options: Mapping[str, object], state_dir: str) -> Provider:
    # Imported when asked for: a listing of commands needs neither requests nor the tables.
    from device_api_dcgm.options import DcgmOptions
    from device_api_dcgm.provider import DcgmProvider

    return DcgmProvider(read_options(DcgmOptions, options), state_dir)


@hookimpl
def device_api_commands() -> click.Command:
    from device_api_dcgm.commands import dcgm

    return dcgm
