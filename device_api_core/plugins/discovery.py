"""Finding provider plugins: entry points in, validated providers or their errors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from device_api_core.entry_points import EntryPoint
from device_api_core.errors import InvalidArgument, PluginError
from device_api_core.plugins.installed import Installed, Kind, check_methods
from device_api_core.plugins.spec import CONTRACT_VERSION, ENTRY_POINT_GROUP, Provider
from device_api_core.reservations import ANY
from device_api_core.resources import READY
from device_api_core.validation import check_type

if TYPE_CHECKING:
    import click


@dataclass(frozen=True, slots=True)
class Plugin(Installed[Provider]):
    """One installed provider, or why it cannot be loaded. It may keep files in a folder of its own
    below ``server_state_dir``."""

    options: Mapping[str, object] = field(default_factory=dict)
    server_state_dir: str = ""

    @property
    def provider(self) -> Provider | None:
        """Its provider, if it has one that can be loaded."""
        return self.opened().part

    @property
    def reboot_proof_types(self) -> tuple[str, ...]:
        """Those of its types whose faults survive a boot of the node."""
        return tuple(getattr(self.provider, "reboot_proof_types", ()))

    @property
    def commands(self) -> click.Command | None:
        """The click command that it adds to ``device-api``, if any."""
        if (host := self.opened().host) is None:
            return None
        command: click.Command | None = host.hook.device_api_commands()
        return command

    def create(self) -> Provider:
        """A fresh provider, for a start or a restart.

        Raises:
            PluginError: it has none, or its hook fails now.
        """
        if (host := self.opened().host) is None:
            raise PluginError(f"provider {self.name} cannot be loaded: {self.error}")
        return _provider_of(host, self.name, self.options, self.server_state_dir)


def discover(
    options: Mapping[str, Mapping[str, object]] | None = None,
    *,
    state_dir: str = "",
    found: Iterable[EntryPoint] | None = None,
) -> list[Plugin]:
    """Every installed provider plugin, sorted by name.

    ``options`` are the ``[providers.NAME]`` tables; each provider may keep files in a folder of its
    name below ``state_dir``; ``found`` replaces the installed entry points.
    """
    configured = options or {}

    def create(host: pluggy.PluginManager, name: str) -> Provider:
        return _provider_of(host, name, configured.get(name, {}), state_dir)

    return [
        Plugin(*facts, configured.get(facts[0], {}), state_dir)
        for facts in _PROVIDERS.each(create, found)
    ]


def load(name: str, options: Mapping[str, object], *, state_dir: str = "") -> Plugin:
    """The installed plugin of that name; no other is imported. ``state_dir`` is where the server,
    or what runs instead of it, keeps its files.

    Raises:
        PluginError: it is not installed or cannot be loaded.
    """
    return _PROVIDERS.only(
        name, lambda found: discover({name: options}, state_dir=state_dir, found=found)
    )


def named(plugins: Iterable[Plugin], names: Iterable[str]) -> list[Plugin]:
    """The plugins to run, in the order in which they were asked for.

    Raises:
        PluginError: one is not installed or cannot be loaded.
    """
    return _PROVIDERS.named(plugins, names)


def _provider_of(
    host: pluggy.PluginManager, name: str, options: Mapping[str, object], state_dir: str
) -> Provider:
    own = str(Path(state_dir) / "providers" / name) if state_dir else ""
    provider = host.hook.device_api_provider(options=options, state_dir=own)
    return _PROVIDERS.checked(provider, name)


def _check_shape(provider: Any) -> None:
    check_methods(provider, "run", "clear")
    _check_types(getattr(provider, "types", None), "types")
    _check_types(getattr(provider, "reboot_proof_types", ()), "reboot_proof_types")


_PROVIDERS: Kind[Provider] = Kind("provider", ENTRY_POINT_GROUP, CONTRACT_VERSION, _check_shape)


def _check_types(types: Any, attribute: str) -> None:
    if not isinstance(types, tuple):
        raise PluginError(f"{attribute} must be a tuple of condition types, not {types!r}")
    for type_ in types:
        domain, slash, word = str(type_).partition("/")
        checked = f"{domain}/Any" if slash and word == ANY else type_
        try:
            check_type(checked, attribute)
        except InvalidArgument as error:
            raise PluginError(error.message) from error
        if type_ == READY:
            raise PluginError(f"{attribute}: {READY} is computed by the server; do not declare it")
