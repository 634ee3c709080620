"""The hook of the NVSentinel bridge."""

from __future__ import annotations

from collections.abc import Mapping

from device_api_core.plugins import Provider, hookimpl, read_options


@hookimpl
def device_api_provider(options: Mapping[str, object], state_dir: str) -> Provider:
    # Imported when asked for: a listing of commands needs no gRPC.
    from device_api_nvsentinel_bridge.options import BridgeOptions
    from device_api_nvsentinel_bridge.provider import NvsentinelProvider

    return NvsentinelProvider(read_options(BridgeOptions, options), state_dir)
