"""The provider contract, whole: the hooks, :class:`Provider`, :class:`Sink`, :class:`Update`.

A provider learns how GPUs are and says so through its sink; it never sees the cache, the server
or another provider. It runs in a thread of the daemon or in a process of its own and cannot tell
which. What the sink promises is the same in both.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import pluggy

from device_api_core.resources import Condition, Gpu, GpuSpec

if TYPE_CHECKING:
    import click

PROJECT = "device_api"
"""The pluggy project name."""

ENTRY_POINT_GROUP = "device_api.providers"
"""Where installed providers are found. The entry point's name is the provider's name."""

CONTRACT_VERSION = 1
"""The version of this contract. A provider states the one it was written for."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Update(Protocol):
    """Changes that become visible together when the held update ends. A wrong value is refused at
    once, everything else then; either way it drops them all."""

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        """As :meth:`Sink.set_condition`, at the end of the update."""

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        """As :meth:`Sink.set_status`, at the end of the update."""


class Sink(Protocol):
    """The provider's one door to the daemon, bound to its name. Safe to call from any thread of
    the provider. Every call but :meth:`count` and :meth:`gauge` is a sign of life and returns once
    the change is visible to readers and, if it makes health worse and the server keeps its state,
    on the disk; a disk that fails or is slow delays it by a second at the most.

    Calls raise :class:`~device_api_core.errors.SinkClosed` when the provider should return from
    ``run``, and the error that a gRPC caller would get (``InvalidArgument``, ``NotFound``,
    ``Conflict``, ``LimitExceeded`` ...) when the change is refused; a refused change does nothing.
    """

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        """Make the GPU known, or merge the set fields of ``spec`` into a known one, whose health
        stays. Returns whether the GPU is new. Idempotent; call it again after every restart."""

    def withdraw(self, gpu: str) -> None:
        """Say that this provider no longer reports the GPU: its registration and its True and
        Unknown conditions go, a False one stays. Not for GPUs that are lost or broken."""

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        """Set one of the declared condition types. ``recommended_action`` replaces the provider's
        action for this GPU (``""`` removes it); ``None`` leaves it as it is."""

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        """Replace all of the provider's conditions of the GPU, and its action, in one step."""

    def update(self, *gpus: str) -> AbstractContextManager[Update]:
        """Hold an update: from now until the block ends, readers wait. For the moment between a
        fault signal and knowing what it means; never around routine polls.

        ``gpus`` are the GPUs in doubt (none = all of this provider's). After 5 s, or if the block
        raises, the changes are dropped and the provider's True conditions on those GPUs become
        Unknown (``UpdateAborted``). Raises ``LimitExceeded`` on entry if an update is already held
        or the last one ended more recently than it had lasted: then write directly."""

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        """The conditions this provider owns now, by GPU name, without an opinion of Ready: at the
        start of ``run``, what it said before the restart. A latching provider resumes from the
        False ones."""

    def gpus(self) -> Sequence[Gpu]:
        """Every GPU the server knows now, whoever registered it, also before the server is ready
        for readers. For providers that must find out which GPU their source speaks of."""

    def synced(self) -> None:
        """Say that everything present was reported once. The daemon is not ready before."""

    def alive(self, summary: str = "") -> None:
        """Say that the provider works although it has nothing to report. ``summary`` (one line,
        driver version for example) is shown by ``device-api providers``."""

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        """Add to ``device_api_provider_<name>_total{provider_id="...", <labels>}`` on the server's
        metrics page. It rises for the server's life, restarts of the provider included.

        This and :meth:`gauge` cost as much as a dictionary; they never wait, and are no sign of
        life. Shown at once from a thread, else after about ``interval_seconds``. They raise
        ``InvalidArgument`` for a name or label that Prometheus could not take, nothing else. Choose
        labels with few values: series beyond 512 of a provider (2,048 of all) are left out, logged,
        and counted in ``device_api_provider_series_refused_total``."""

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        """Show ``device_api_provider_<name>{provider_id="...", <labels>}`` on the server's metrics
        page until the next value; ``None`` removes it. It vanishes when the provider fails."""


class Provider(Protocol):
    """What a plugin returns. Subclass it or match its shape; constructing one must be cheap and
    must touch no device, since listing the plugins constructs it too."""

    name: str
    """The provider id: the entry point's name, ``[a-z][a-z0-9-]*``."""

    contract_version: int
    """The :data:`CONTRACT_VERSION` it was written for, as a literal number."""

    interval_seconds: float
    """At least this often ``run`` calls its sink. After three intervals of silence its True
    conditions become Unknown."""

    types: tuple[str, ...]
    """The condition types it may set; ``example.com/*`` stands for every type of that domain.
    They are reserved: nobody else can write them while this provider is configured to run."""

    reboot_proof_types: tuple[str, ...] = ()
    """Those of ``types`` whose False survives a reboot of the node, a failed row remap say."""

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Observe until ``stop`` is set; return soon after. May block in vendor calls. Returning
        earlier or raising counts as a crash: it is restarted with growing pauses."""

    def clear(self, gpu: str, type: str) -> None:
        """An operator declares the condition's cause gone: forget what is latched for it and
        report what is observed from now on. Called from another thread than ``run``."""


@hookspec(firstresult=True)
def device_api_provider(options: Mapping[str, object], state_dir: str) -> Provider | None:
    """Called for a listing and before each start, to get the plugin's provider. ``options`` is the
    ``[providers.NAME]`` table of the configuration; :func:`~device_api_core.plugins.read_options`
    checks it. ``state_dir`` is a directory of the provider's own, to be created by it when it has
    something to keep; empty if the server keeps nothing. An implementation may leave out what it
    does not need. Returns the provider; runs nothing."""


@hookspec(firstresult=True)
def device_api_commands() -> click.Command | None:
    """Optional. Called by the ``device-api`` command line to get a click command, which becomes
    ``device-api NAME`` with the plugin's name."""
