"""The hook of the Kubernetes publisher."""

from __future__ import annotations

from collections.abc import Mapping

from device_api_core.plugins import Publisher, hookimpl, read_options
from device_api_kubernetes.options import KubernetesOptions
from device_api_kubernetes.publisher import KubernetesPublisher


@hookimpl
def device_api_publisher(options: Mapping[str, object]) -> Publisher:
    return KubernetesPublisher(read_options(KubernetesOptions, options))
