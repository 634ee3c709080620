"""The client: typed access to a server, in the shape of a Kubernetes clientset.

::

    from device_api_core.client import Clientset, GpuInformer

    with Clientset.connect() as clients:
        for gpu in clients.v1alpha1.gpus.list().items:
            print(gpu.name, gpu.ready)
        with GpuInformer(clients.v1alpha1.gpus) as informer:
            informer.add_handler(on_update=lambda old, new: print(new.name, old.ready, new.ready))
            informer.wait_for_sync()
            ...

``AsyncClientset`` and ``AsyncGpuInformer`` are the same for asyncio. Values are the frozen
dataclasses of :mod:`device_api_core.resources`; failures are the errors of
:mod:`device_api_core.client.errors`. :mod:`device_api_core.client.fake` replaces a server in tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from device_api_core.client import _generated
from device_api_core.client._generated import *  # noqa: F403  (its __all__ names the kinds' classes)
from device_api_core.client.clientset import Clientset
from device_api_core.client.health import condition_is, conditions, is_healthy
from device_api_core.client.indexers import Indexer
from device_api_core.client.options import Keepalive, Options, Tls
from device_api_core.client.retry import RetryPolicy
from device_api_core.client.watch import EventType, Watch

if TYPE_CHECKING:
    from device_api_core.client.aio._generated import *  # noqa: F403
    from device_api_core.client.aio.clientset import AsyncClientset

__all__ = [
    "AsyncClientset",
    "Clientset",
    "EventType",
    "Indexer",
    "Keepalive",
    "Options",
    "RetryPolicy",
    "Tls",
    "Watch",
    "condition_is",
    "conditions",
    "is_healthy",
]
__all__ += _generated.__all__
__all__ += _generated.ASYNCHRONOUS

_LAZY = {
    "AsyncClientset": "device_api_core.client.aio.clientset",
    **dict.fromkeys(_generated.ASYNCHRONOUS, "device_api_core.client.aio._generated"),
}


def __getattr__(name: str) -> object:
    # Most programs use one of the two clientsets, and need not load the other.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
