"""The hook of the Kubernetes publisher."""

from __future__ import annotations

from collections.abc import Mapping

from device_api_core.plugins import Publisher, hookimpl, read_options


@hookimpl
def device_api_publisher(options: Mapping[str, object]) -> Publisher:
    # Imported when asked for: a listing needs no requests.
    from device_api_kubernetes.options import KubernetesOptions
    from device_api_kubernetes.publisher import KubernetesPublisher

    return KubernetesPublisher(read_options(KubernetesOptions, options))
