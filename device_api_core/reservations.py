"""Which provider ids and condition types are kept for the plugins that this server runs."""

from __future__ import annotations

from collections.abc import Iterable

from device_api_core.errors import PermissionDenied, PluginError
from device_api_core.resources import Condition

ANY = "*"


def covers(types: Iterable[str], type_: str) -> bool:
    """Whether a plugin's declared types include ``type_``; ``example.com/*`` covers a domain."""
    domain, slash, _ = type_.partition("/")
    return type_ in types or (bool(slash) and f"{domain}/{ANY}" in types)


class Reservations:
    """Ids and types that an RPC may not use. Filled before the first RPC is served."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._types: dict[str, str] = {}

    def reserve(self, provider_id: str, types: Iterable[str]) -> None:
        """Keep an id and its declared types. Raises ``PluginError`` if a plugin has one of the
        types already."""
        for type_ in types:
            holder = self._holder(type_)
            if holder is None and type_.endswith(f"/{ANY}"):
                domain = type_.removesuffix(ANY)
                holder = next((p for t, p in self._types.items() if t.startswith(domain)), None)
            if holder not in (None, provider_id):
                raise PluginError(
                    f"providers {holder} and {provider_id} both declare condition type {type_}: "
                    "run only one of them"
                )
            self._types[type_] = provider_id
        self._ids.add(provider_id)

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """Raises ``PermissionDenied`` if an RPC uses a reserved id or type."""
        if provider_id in self._ids:
            raise PermissionDenied(
                f"provider id {provider_id} is reserved for the plugin that this server runs"
            )
        for condition in conditions:
            if (holder := self._holder(condition.type)) is not None:
                raise PermissionDenied(
                    f"condition type {condition.type} is reserved for the plugin {holder} that "
                    "this server runs"
                )

    def _holder(self, type_: str) -> str | None:
        holder = self._types.get(type_)
        if holder is None and "/" in type_:
            holder = self._types.get(f"{type_.partition('/')[0]}/{ANY}")
        return holder
