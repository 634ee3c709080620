"""The publisher contract, whole: the hook, :class:`Publisher`, :class:`Count`.

A publisher tells somebody who cannot speak gRPC how the GPUs of this node are: the Kubernetes API,
a ticket system. It is an ordinary consumer in a process of its own (``device-api publish NAME``);
the server knows nothing of it and keeps none of its secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pluggy

from device_api_core.plugins.spec import PROJECT
from device_api_core.resources import Gpu

PUBLISHER_GROUP = "device_api.publishers"
"""Where installed publishers are found. The entry point's name is the publisher's name."""

PUBLISHER_CONTRACT_VERSION = 1
"""The version of this contract. A publisher states the one it was written for."""

hookspec = pluggy.HookspecMarker(PROJECT)


class Count(Protocol):
    """Counts what the publisher did beside publishing."""

    def __call__(self, name: str, amount: float = 1, /, **labels: object) -> None:
        """Add to ``device_api_publisher_<name>_total{publisher="...", <labels>}`` on the page of
        ``--metrics-address``. An amount of 0 shows the series before it first rises. Costs as much
        as a dictionary. Raises ``InvalidArgument`` for a name or label that Prometheus could not
        take; choose labels with few values, for series beyond 512 are left out and logged."""


class Publisher(Protocol):
    """What a plugin returns. Subclass it or match its shape; constructing one must be cheap and
    must reach nobody, since listing the plugins constructs it too."""

    name: str
    """The entry point's name, ``[a-z][a-z0-9-]*``."""

    contract_version: int
    """The :data:`PUBLISHER_CONTRACT_VERSION` it was written for, as a literal number."""

    interval_seconds: float
    """At most once in this time something new is published. The first change after a quiet time is
    published at once."""

    def prepare(self) -> None:
        """Called once before all else, to find out whether it can work with its options in this
        environment. Raises a :class:`~device_api_core.errors.DeviceApiError` that says what to do
        if not; the process then ends with it. Must reach nobody: who is not there yet may come."""

    def publish(self, gpus: Sequence[Gpu], *, stale: str, count: Count) -> None:
        """Make what others see equal to this: **all** GPUs of the node as they are now, by name.

        ``stale`` is empty, or says in one line why the view is not current: since when the server
        has not answered, or that it never has (then ``gpus`` is what was last seen, maybe nothing).
        Then nothing may be shown as good.

        Called when something changed, and every five minutes although nothing did, so that what
        somebody else changed or deleted comes back. Never called twice at a time. It may take its
        time, but bound every wait: the process ends after two minutes in one call, so that its
        supervisor starts it anew.

        Raising is a failure, counted and logged: it is called again, after pauses that grow from 1
        to 60 s, with the view of then. :class:`~device_api_core.errors.PublishFailed` is logged
        without a traceback and may ask for a longer pause.
        """


@hookspec(firstresult=True)
def device_api_publisher(options: Mapping[str, object]) -> Publisher | None:
    """Called for a listing and at the start of ``device-api publish``, to get the plugin's
    publisher. ``options`` is the ``[publishers.NAME]`` table of the configuration;
    :func:`~device_api_core.plugins.read_options` checks it. Returns the publisher; reaches
    nobody."""
