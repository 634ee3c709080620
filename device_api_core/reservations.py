"""Which provider ids and condition types are kept for the plugins that this server runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from device_api_core.errors import PermissionDenied, PluginError
from device_api_core.resources import READY, Condition

ANY = "*"


def covers(types: Iterable[str], type_: str) -> bool:
    """Whether a plugin's declared types include ``type_``; ``example.com/*`` covers a domain."""
    domain, slash, _ = type_.partition("/")
    return type_ in types or (bool(slash) and f"{domain}/{ANY}" in types)


class Authority(Protocol):
    """Who may write what through one socket."""

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """Raises ``PermissionDenied`` if this caller may not use the id or one of the types."""


class SoleProvider:
    """The authority of a socket that belongs to one plugin: its id and its declared types only."""

    def __init__(self, provider_id: str, types: Iterable[str]) -> None:
        self._provider_id = provider_id
        self._types = frozenset((*types, READY))

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """See :class:`Authority`."""
        if provider_id != self._provider_id:
            raise PermissionDenied(
                f"this socket belongs to provider {self._provider_id}; {provider_id or 'nobody'} "
                "may not write through it"
            )
        for condition in conditions:
            if not covers(self._types, condition.type):
                raise PermissionDenied(
                    f"provider {provider_id} does not declare {condition.type}: add it to types"
                )


class Reservations:
    """Ids and types that an RPC may not use. Filled before the first RPC is served."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._types: dict[str, str] = {}

    def reserve(self, provider_id: str, types: Iterable[str]) -> None:
        """Keep an id and its declared types. Raises ``PluginError`` if a plugin has one of the
        types already."""
        for type_ in types:
            if others := self._holders(type_) - {provider_id}:
                raise PluginError(
                    f"providers {min(others)} and {provider_id} both declare condition type "
                    f"{type_}: run only one of them"
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

    def _holders(self, type_: str) -> set[str]:
        """All plugins that a declared type, which may cover a domain, collides with."""
        holder = self._holder(type_)
        holders = set() if holder is None else {holder}
        if type_.endswith(f"/{ANY}"):
            domain = type_.removesuffix(ANY)
            holders |= {p for t, p in self._types.items() if t.startswith(domain)}
        return holders

    def _holder(self, type_: str) -> str | None:
        holder = self._types.get(type_)
        if holder is None and "/" in type_:
            holder = self._types.get(f"{type_.partition('/')[0]}/{ANY}")
        return holder
