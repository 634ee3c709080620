"""Finding provider plugins: entry points in, validated providers or their errors out.

Each entry point has a plugin host of its own, so one that raises, lies or misspells a hook is
listed with its error and hurts nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from device_api_core.errors import InvalidArgument, PluginError
from device_api_core.installed import EntryPoint, entry_points
from device_api_core.plugins import spec
from device_api_core.plugins.options import InvalidOption
from device_api_core.plugins.spec import CONTRACT_VERSION, ENTRY_POINT_GROUP, PROJECT, Provider
from device_api_core.reservations import ANY
from device_api_core.resources import READY
from device_api_core.validation import check_type

if TYPE_CHECKING:
    import click

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Opened(NamedTuple):
    """What an entry point leads to. ``provider`` is ``None`` exactly when ``error`` says why."""

    provider: Provider | None = None
    error: str = ""
    host: pluggy.PluginManager | None = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """One installed entry point: its provider, or why there is none.

    ``entry_point`` is what it loads (``package.module``). That is imported when somebody first asks
    what is in it: a server pays nothing for plugins that are installed and not named. Each provider
    may keep files in a folder of its own below ``server_state_dir``.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    opened: Callable[[], Opened] = field(repr=False, compare=False)
    options: Mapping[str, object] = field(default_factory=dict)
    server_state_dir: str = ""

    @property
    def provider(self) -> Provider | None:
        """Its provider, if it has one that can be loaded."""
        return self.opened().provider

    @property
    def error(self) -> str:
        """Why it has no provider."""
        return self.opened().error

    @property
    def contract_version(self) -> int:
        """The contract it was written for; 0 if that is unknown."""
        return self.provider.contract_version if self.provider is not None else 0

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
    points = sorted(
        entry_points(ENTRY_POINT_GROUP) if found is None else found,
        key=lambda point: (point.name, point.value),
    )
    names = [point.name for point in points]
    return [
        Plugin(
            point.name,
            point.distribution,
            point.version,
            point.value,
            _opener(point, own, state_dir, names.count(point.name) - 1),
            own,
            state_dir,
        )
        for point in points
        for own in (configured.get(point.name, {}),)
    ]


def load(name: str, options: Mapping[str, object], *, state_dir: str = "") -> Plugin:
    """The installed plugin of that name; no other is imported. ``state_dir`` is where the server,
    or what runs instead of it, keeps its files.

    Raises:
        PluginError: it is not installed or cannot be loaded.
    """
    found = entry_points(ENTRY_POINT_GROUP)
    own = (point for point in found if point.name == name)
    plugins = discover({name: options}, state_dir=state_dir, found=own)
    if not plugins:
        raise _not_installed(name, {point.name for point in found})
    return named(plugins, [name])[0]


def named(plugins: Iterable[Plugin], names: Iterable[str]) -> list[Plugin]:
    """The plugins to run, in the order in which they were asked for.

    Raises:
        PluginError: one is not installed or cannot be loaded.
    """
    by_name = {plugin.name: plugin for plugin in plugins}
    chosen: list[Plugin] = []
    for name in dict.fromkeys(names):
        plugin = by_name.get(name)
        if plugin is None:
            raise _not_installed(name, by_name)
        if plugin.provider is None:
            raise PluginError(f"provider {name} ({plugin.entry_point}): {plugin.error}")
        chosen.append(plugin)
    return chosen


def _not_installed(name: str, installed: Iterable[str]) -> PluginError:
    names = ", ".join(sorted(installed)) or "none"
    return PluginError(
        f"no provider {name!r} is installed (installed: {names}); try "
        f"`pip install device-api-{name}`, and `device-api providers` to see them"
    )


def _opener(
    point: EntryPoint, options: Mapping[str, object], state_dir: str, others: int
) -> Callable[[], Opened]:
    return cache(partial(_open, point, options, state_dir, others))


def _open(point: EntryPoint, options: Mapping[str, object], state_dir: str, others: int) -> Opened:
    if others:
        return Opened(error=f"{others + 1} installed plugins are called {point.name}")
    try:
        host = pluggy.PluginManager(PROJECT)
        host.add_hookspecs(spec)
        host.register(point.load(), name=point.name)
        host.check_pending()
        provider = _provider_of(host, point.name, options, state_dir)
    except (PluginError, InvalidOption) as error:
        return Opened(error=error.message)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        # Anything can happen while somebody else's module is imported, sys.exit() included; it is
        # listed, not raised. Some of these texts have several lines.
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Opened(error=text)
    return Opened(provider, "", host)


def _provider_of(
    host: pluggy.PluginManager, name: str, options: Mapping[str, object], state_dir: str
) -> Provider:
    own = str(Path(state_dir) / "providers" / name) if state_dir else ""
    provider = host.hook.device_api_provider(options=options, state_dir=own)
    if provider is None:
        raise PluginError(
            "no hook device_api_provider returned a provider: decorate it with "
            "device_api_core.plugins.hookimpl"
        )
    _check_contract(provider)
    _check_shape(provider, name)
    return provider  # type: ignore[no-any-return]


def _check_contract(provider: Any) -> None:
    version = getattr(provider, "contract_version", None)
    if not isinstance(version, int):
        raise PluginError(
            f"{type(provider).__name__} has no contract_version: it is not a Provider"
        )
    if version != CONTRACT_VERSION:
        raise PluginError(
            f"written for provider contract {version}, this server speaks {CONTRACT_VERSION}: "
            f"install a matching version of {'the core' if version > CONTRACT_VERSION else 'it'}"
        )


def _check_shape(provider: Any, name: str) -> None:
    if getattr(provider, "name", None) != name:
        raise PluginError(
            f"the provider calls itself {getattr(provider, 'name', None)!r} and its entry point "
            f"{name!r}: they must be equal"
        )
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"{name!r} is not a provider name: use lower-case letters, digits and '-'"
        )
    interval = getattr(provider, "interval_seconds", None)
    if isinstance(interval, bool) or not isinstance(interval, int | float) or interval <= 0:
        raise PluginError(f"interval_seconds must be a positive number, not {interval!r}")
    for method in ("run", "clear"):
        if not callable(getattr(provider, method, None)):
            raise PluginError(f"it has no method {method}")
    _check_types(getattr(provider, "types", None), "types")
    _check_types(getattr(provider, "reboot_proof_types", ()), "reboot_proof_types")


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
