"""Finding publisher plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from device_api_core.entry_points import EntryPoint
from device_api_core.errors import PluginError
from device_api_core.plugins.installed import Installed, Kind, check_methods
from device_api_core.plugins.publishing import (
    PUBLISHER_CONTRACT_VERSION,
    PUBLISHER_GROUP,
    Publisher,
)


@dataclass(frozen=True, slots=True)
class PublisherPlugin(Installed[Publisher]):
    """One installed publisher, or why it cannot be loaded."""

    @property
    def publisher(self) -> Publisher:
        """Its publisher.

        Raises:
            PluginError: it has none.
        """
        opened = self.opened()
        if opened.part is None:
            raise PluginError(f"publisher {self.name} cannot be loaded: {opened.error}")
        return opened.part


def discover_publishers(
    options: Mapping[str, Mapping[str, object]] | None = None,
    *,
    found: Iterable[EntryPoint] | None = None,
) -> list[PublisherPlugin]:
    """Every installed publisher, sorted by name. ``options`` are the ``[publishers.NAME]`` tables;
    ``found`` replaces the installed entry points."""
    configured = options or {}

    def create(host: pluggy.PluginManager, name: str) -> Publisher:
        publisher = host.hook.device_api_publisher(options=configured.get(name, {}))
        return _PUBLISHERS.checked(publisher, name)

    return [PublisherPlugin(*facts) for facts in _PUBLISHERS.each(create, found)]


def load_publisher(name: str, options: Mapping[str, object]) -> Publisher:
    """The installed publisher of that name; no other is imported.

    Raises:
        PluginError: it is not installed or cannot be loaded.
    """
    options_by_name = {name: options}
    return _PUBLISHERS.only(
        name, lambda found: discover_publishers(options_by_name, found=found)
    ).publisher


def _check_shape(publisher: Any) -> None:
    check_methods(publisher, "prepare", "publish")


_PUBLISHERS: Kind[Publisher] = Kind(
    "publisher", PUBLISHER_GROUP, PUBLISHER_CONTRACT_VERSION, _check_shape
)
