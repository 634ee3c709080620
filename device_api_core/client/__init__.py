"""The client: typed, synchronous access to a server, in the shape of a Kubernetes clientset.

::

    from device_api_core.client import Clientset

    with Clientset.connect() as clients:
        for gpu in clients.v1alpha1.gpus.list().items:
            print(gpu.name, gpu.ready)
        with clients.v1alpha1.gpus.watch() as events:
            for event in events:
                print(event.type, event.gpu.name, event.gpu.ready)

Values are the frozen dataclasses of :mod:`device_api_core.resources`; failures are the errors of
:mod:`device_api_core.client.errors`.
"""

from device_api_core.client.clientset import Clientset
from device_api_core.client.v1alpha1 import GpuList
from device_api_core.client.watch import EventType, Watch, WatchEvent

__all__ = ["Clientset", "EventType", "GpuList", "Watch", "WatchEvent"]
