"""A server for tests, in memory: the same answers, versions, conflicts, watches and errors.

::

    from device_api_core.client import GpuInformer
    from device_api_core.client.fake import FakeClientset, gpu

    clients = FakeClientset(gpu("gpu-a"), gpu("gpu-b", XidHealthy="False"))
    with GpuInformer(clients.v1alpha1.gpus) as informer:
        informer.wait_for_sync()
        clients.node.set_condition("gpu-a", "XidHealthy", "False", reason="Xid79")

Behind a fake clientset is a :class:`FakeNode`, on which a test plays the providers' part and lets
things go wrong: a server that stops, forgets, is not ready, or refuses. Several clientsets may
share one node, and :class:`FakeServer` puts it behind a socket for programs in other processes.

The rules are not imitated: they are the server's own functions. What is left out: held updates,
leases that run out by themselves (``node.lapse``), a record of events, limits of rate, retries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from device_api_core.client.fake.clientset import FakeClientset
from device_api_core.client.fake.node import FakeNode, gpu

if TYPE_CHECKING:
    from device_api_core.client.fake.aio import FakeAsyncClientset
    from device_api_core.client.fake.server import FakeServer

__all__ = ["FakeAsyncClientset", "FakeClientset", "FakeNode", "FakeServer", "gpu"]

_LAZY = {
    "FakeAsyncClientset": "device_api_core.client.fake.aio",
    "FakeServer": "device_api_core.client.fake.server",
}


def __getattr__(name: str) -> object:
    # The server's side of gRPC is loaded by those who want a socket.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
