"""Plugins of any kind: entry points in, parts that keep their contract or errors out.

Each entry point has a plugin host of its own, so one that raises, lies or misspells a hook is
listed with its error and hurts nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Generic, NamedTuple, TypeVar

import pluggy

from device_api_core.entry_points import EntryPoint, entry_points
from device_api_core.errors import PluginError
from device_api_core.plugins import publishing, spec
from device_api_core.plugins.options import InvalidOption

Part = TypeVar("Part")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Opened(NamedTuple, Generic[Part]):
    """What an entry point leads to. ``part`` is ``None`` exactly when ``error`` says why."""

    part: Part | None = None
    error: str = ""
    host: pluggy.PluginManager | None = None


@dataclass(frozen=True, slots=True)
class Installed(Generic[Part]):
    """One installed entry point: its part, or why there is none.

    ``entry_point`` is what it loads (``package.module``). That is imported when somebody first asks
    what is in it: nobody pays for plugins that are installed and not named.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    opened: Callable[[], Opened[Part]] = field(repr=False, compare=False)

    @property
    def error(self) -> str:
        """Why it has no part that can be used."""
        return self.opened().error

    @property
    def contract_version(self) -> int:
        """The contract it was written for; 0 if that is unknown."""
        part: Any = self.opened().part
        return int(part.contract_version) if part is not None else 0


Plugin = TypeVar("Plugin", bound=Installed[Any])


@dataclass(frozen=True, slots=True)
class Kind(Generic[Part]):
    """A kind of plugin. ``noun`` is what people call one, ``check`` refuses (``PluginError``) what
    does not have the shape of one."""

    noun: str
    group: str
    contract_version: int
    check: Callable[[Any], None]

    def each(
        self,
        create: Callable[[pluggy.PluginManager, str], Part],
        found: Iterable[EntryPoint] | None = None,
    ) -> Iterator[tuple[str, str, str, str, Callable[[], Opened[Part]]]]:
        """The fields of an :class:`Installed` for each entry point of this kind, sorted by name.
        ``create`` asks the hook of a plugin of that name; ``found`` replaces the installed ones."""
        points = sorted(
            entry_points(self.group) if found is None else found,
            key=lambda point: (point.name, point.value),
        )
        names = [point.name for point in points]
        for point in points:
            others = names.count(point.name) - 1
            yield (
                point.name,
                point.distribution,
                point.version,
                point.value,
                # Opened once, when first asked for.
                cache(partial(self._open, point, create, others)),
            )

    def only(self, name: str, discover: Callable[[Iterable[EntryPoint]], list[Plugin]]) -> Plugin:
        """The installed plugin of that name; no other is imported.

        Raises:
            PluginError: it is not installed or cannot be loaded.
        """
        found = entry_points(self.group)
        plugins = discover(point for point in found if point.name == name)
        if not plugins:
            raise self.not_installed(name, {point.name for point in found})
        return self.named(plugins, [name])[0]

    def checked(self, part: Part | None, name: str) -> Part:
        """What a hook returned, if it keeps the contract.

        Raises:
            PluginError: it does not.
        """
        if part is None:
            raise PluginError(
                f"no hook device_api_{self.noun} returned a {self.noun}: decorate it with "
                "device_api_core.plugins.hookimpl"
            )
        self._check_contract(part)
        self._check_name(part, name)
        self.check(part)
        return part

    def named(self, plugins: Iterable[Plugin], names: Iterable[str]) -> list[Plugin]:
        """Those to run, in the order in which they were asked for.

        Raises:
            PluginError: one is not installed or cannot be loaded.
        """
        by_name = {plugin.name: plugin for plugin in plugins}
        chosen: list[Plugin] = []
        for name in dict.fromkeys(names):
            plugin = by_name.get(name)
            if plugin is None:
                raise self.not_installed(name, by_name)
            if plugin.error:
                raise PluginError(f"{self.noun} {name} ({plugin.entry_point}): {plugin.error}")
            chosen.append(plugin)
        return chosen

    def not_installed(self, name: str, installed: Iterable[str]) -> PluginError:
        """The error that names those that are."""
        names = ", ".join(sorted(set(installed))) or "none"
        return PluginError(
            f"no {self.noun} {name!r} is installed (installed: {names}); try "
            f"`pip install device-api-{name}`, and `device-api {self.noun}s` to see them"
        )

    def _open(
        self,
        point: EntryPoint,
        create: Callable[[pluggy.PluginManager, str], Part],
        others: int,
    ) -> Opened[Part]:
        if others:
            return Opened(error=f"{others + 1} installed plugins are called {point.name}")
        try:
            host = pluggy.PluginManager(spec.PROJECT)
            # One module may have hooks of several kinds.
            host.add_hookspecs(spec)
            host.add_hookspecs(publishing)
            host.register(point.load(), name=point.name)
            host.check_pending()
            part = create(host, point.name)
        except (PluginError, InvalidOption) as error:
            return Opened(error=error.message)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # Anything can happen while somebody else's module is imported, sys.exit() included; it
            # is listed, not raised. Some of these texts have several lines.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Opened(error=text)
        return Opened(part, "", host)

    def _check_contract(self, part: Any) -> None:
        version = getattr(part, "contract_version", None)
        if not isinstance(version, int):
            raise PluginError(
                f"{type(part).__name__} has no contract_version: it is not a "
                f"{self.noun.capitalize()}"
            )
        if version != self.contract_version:
            newer = version > self.contract_version
            raise PluginError(
                f"written for {self.noun} contract {version}, this core speaks "
                f"{self.contract_version}: install a matching version of "
                f"{'the core' if newer else 'it'}"
            )

    def _check_name(self, part: Any, name: str) -> None:
        if getattr(part, "name", None) != name:
            raise PluginError(
                f"the {self.noun} calls itself {getattr(part, 'name', None)!r} and its entry point "
                f"{name!r}: they must be equal"
            )
        if not _NAME.fullmatch(name):
            raise PluginError(
                f"{name!r} is not a {self.noun} name: use lower-case letters, digits and '-'"
            )
        interval = getattr(part, "interval_seconds", None)
        if isinstance(interval, bool) or not isinstance(interval, int | float) or interval <= 0:
            raise PluginError(f"interval_seconds must be a positive number, not {interval!r}")


def check_methods(part: Any, *names: str) -> None:
    """Raises ``PluginError`` if it lacks one of these methods."""
    for name in names:
        if not callable(getattr(part, name, None)):
            raise PluginError(f"it has no method {name}")
