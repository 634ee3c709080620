"""The clientset: one object through which a program reaches a server."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from device_api_core.client.admin import Admin
from device_api_core.client.endpoint import DEFAULT_TIMEOUT_SECONDS, Endpoint
from device_api_core.client.targets import default_provider_target, default_target, parse_target
from device_api_core.client.v1alpha1 import V1Alpha1


class Clientset:
    """All services of one server. Make it with :meth:`connect`; close it, or use ``with``.

    ``v1alpha1.gpus`` reads, ``v1alpha1.providers`` reports, ``admin`` operates. May be shared by
    threads.
    """

    def __init__(self, consumers: Endpoint, providers: Endpoint) -> None:
        self._endpoints = {consumers, providers}
        self.v1alpha1 = V1Alpha1(consumers, providers)
        self.admin = Admin(providers)

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        *,
        provider_target: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> Clientset:
        """A clientset for the server at ``target``. Nothing is connected before the first call.

        ``target`` is a gRPC target (``unix:///path``, ``localhost:50051``) or a path of a socket;
        by default it comes from ``NVIDIA_DEVICE_API``, ``NVIDIA_DEVICE_API_SOCK`` or
        ``NVIDIA_DEVICE_API_PATH``, else it is ``unix:///var/run/device-api/device.sock``.

        ``provider_target`` is where ``v1alpha1.providers`` and ``admin`` are served. By default
        it is ``target`` if that is given, since a server with one socket serves all on it; else
        it comes from ``DEVICE_API_PROVIDER_SOCKET`` or is
        ``unix:///var/run/device-api-provider/provider.sock``.

        Every call but a watch fails after ``timeout_seconds``.
        """
        if provider_target is None:
            provider_target = default_provider_target() if target is None else target
        consumers = parse_target(target) if target is not None else default_target()
        providers = parse_target(provider_target)
        endpoint = Endpoint(consumers, timeout_seconds)
        if providers == consumers:
            return cls(endpoint, endpoint)
        return cls(endpoint, Endpoint(providers, timeout_seconds))

    def __repr__(self) -> str:
        return f"<Clientset {sorted(endpoint.target for endpoint in self._endpoints)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls and watches in flight fail. May be repeated."""
        for endpoint in self._endpoints:
            endpoint.close()
