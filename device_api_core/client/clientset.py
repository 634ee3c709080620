"""The clientset: one object through which a program reaches a server, for threads."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from device_api_core.client.admin import Admin
from device_api_core.client.endpoint import Caller, Endpoint
from device_api_core.client.options import Options
from device_api_core.client.targets import Targets
from device_api_core.client.v1alpha1 import V1Alpha1


class Clientset:
    """All services of one server. Make it with :meth:`connect`; close it, or use ``with``.

    ``v1alpha1.gpus`` reads, ``v1alpha1.providers`` reports, ``admin`` operates. May be shared by
    threads; not by processes: connect after a fork.
    """

    def __init__(self, consumers: Caller, providers: Caller) -> None:
        self._callers = {consumers, providers}
        self.v1alpha1 = V1Alpha1(consumers, providers)
        self.admin = Admin(providers)

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        *,
        provider_target: str | None = None,
        timeout_seconds: float | None = None,
        options: Options | None = None,
        interceptors: Sequence[Any] = (),
    ) -> Self:
        """A clientset for the server at ``target``. Nothing is connected before the first call.

        ``target`` is a gRPC target (``unix:///path``, ``localhost:50051``) or a path of a socket;
        by default it comes from ``NVIDIA_DEVICE_API``, ``NVIDIA_DEVICE_API_SOCK`` or
        ``NVIDIA_DEVICE_API_PATH``, else it is ``unix:///var/run/device-api/device.sock``.

        ``provider_target`` is where ``v1alpha1.providers`` and ``admin`` are served. By default
        it is ``target`` if that is given, since a server with one socket serves all on it; else
        it comes from ``DEVICE_API_PROVIDER_SOCKET`` or is
        ``unix:///var/run/device-api-provider/provider.sock``.

        Every call but a watch fails after ``timeout_seconds``, which counts before that of
        ``options``; both come from the environment by default. ``interceptors`` are gRPC's own
        (``grpc.UnaryUnaryClientInterceptor`` and so on), the first one outermost.

        Raises ``ConfigurationError`` for an option that is wrong or a TLS file that cannot be read.
        """
        targets = Targets.choose(target, provider_target)
        chosen = Options.choose(options, timeout_seconds)
        consumers = Endpoint(targets.consumers, chosen, interceptors)
        if targets.providers == targets.consumers:
            return cls(consumers, consumers)
        providers = Endpoint(targets.providers, chosen, interceptors)
        return cls(consumers, providers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {sorted(caller.target for caller in self._callers)}>"

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
        for caller in self._callers:
            caller.close()
