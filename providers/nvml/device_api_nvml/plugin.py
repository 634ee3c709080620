"""The hooks of the NVML provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from device_api_core.plugins import Provider, hookimpl, read_options

if TYPE_CHECKING:
    import click


@hookimpl
def device_api_provider(options: Mapping[str, object], state_dir: str) -> Provider:
    # Imported when asked for: a listing of commands needs neither pynvml nor the XID table.
    from device_api_nvml.options import NvmlOptions
    from device_api_nvml.provider import NvmlProvider

    return NvmlProvider(read_options(NvmlOptions, options), state_dir)


@hookimpl
def device_api_commands() -> click.Command:
    from device_api_nvml.commands import nvml

    return nvml
