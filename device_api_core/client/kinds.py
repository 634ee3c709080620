"""The pattern of a kind of device, from which everything generic here is built.

A kind follows it if its service has ``Get<Kind>``, ``List<Kinds>`` and ``Watch<Kinds>``, where

* the requests have ``name`` (Get) and ``opts`` with ``resource_version``,
  ``allow_watch_bookmarks`` and ``send_initial_events`` (Watch),
* the response of Get has one field, the object; that of List one field, which has ``items`` and
  ``metadata.resource_version``; an answer of Watch has ``type`` and ``object``,
* the object has ``metadata`` with ``name`` and a version.

From its .proto the generator (``tools/codegen``) makes all that is particular to such a kind: the
frozen values and their conversion; and in ``_generated`` its list, its event, a :class:`Kind` that
names them, and short classes over the generic ones: calls and informer, for threads and for
asyncio, and lister. By hand is only what the .proto does not say, in :mod:`.expansions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from device_api_core.client.calls import Method, Streaming, Unary, method
from device_api_core.client.errors import RpcFailed
from device_api_core.client.indexers import Indexer
from device_api_core.client.watch import EventType, WatchEvent
from device_api_core.conversion import parse_version
from device_api_core.resources import ObjectMeta


class Resource(Protocol):
    """An object of the API: an immutable value with a name and a version."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its name and version."""


T = TypeVar("T", bound=Resource)
T_co = TypeVar("T_co", bound=Resource, covariant=True)


@dataclass(frozen=True, slots=True)
class ResourceList(Generic[T_co]):
    """A snapshot of all objects of a kind, sorted by name. A watch from ``resource_version``
    continues it without a gap."""

    items: tuple[T_co, ...]
    resource_version: int


L = TypeVar("L", bound=ResourceList[Any])
E = TypeVar("E", bound=WatchEvent[Any])


@dataclass(frozen=True)
class Kind(Generic[T, L, E]):
    """One kind: what generic code must know of it. ``name`` is for people (``gpu``)."""

    name: str
    value: type[T]
    service: ServiceDescriptor
    from_proto: Callable[[Any], T]
    to_proto: Callable[[T], Any]
    list_of: Callable[[tuple[T, ...], int], L]
    event_of: Callable[[EventType, T, int], E]
    indexers: Mapping[str, Indexer[T]] = field(default_factory=dict)

    @cached_property
    def get_method(self) -> Method:
        """The method that reads one object."""
        return self._method("Get")

    @cached_property
    def list_method(self) -> Method:
        """The method that lists all."""
        return self._method("List")

    @cached_property
    def watch_method(self) -> Method:
        """The method that streams changes."""
        return self._method("Watch")

    def get(self, name: str) -> Unary[T]:
        """One object by its exact name."""
        field = only_field(self.get_method)
        return Unary(
            self.get_method,
            self.get_method.request(name=name),
            lambda response: self.from_proto(getattr(response, field)),
            idempotent=True,
        )

    def list(self, **request: Any) -> Unary[L]:
        """All objects; ``request`` are fields of the request that are this kind's own."""
        field = only_field(self.list_method)

        def convert(response: Any) -> L:
            listed = getattr(response, field)
            items = sorted(map(self.from_proto, listed.items), key=lambda o: o.metadata.name)
            return self.list_of(tuple(items), parse_version(listed.metadata.resource_version))

        return Unary(
            self.list_method, self.list_method.request(**request), convert, idempotent=True
        )

    def version(self) -> Unary[int]:
        """The server's version now: a list of which nothing else is looked at."""
        field = only_field(self.list_method)
        return Unary(
            self.list_method,
            self.list_method.request(),
            lambda response: parse_version(getattr(response, field).metadata.resource_version),
        )

    def watch(
        self,
        resource_version: int | None,
        *,
        allow_bookmarks: bool = False,
        send_initial_events: bool = False,
    ) -> Streaming[E]:
        """The changes after a version, or the present objects and then every change."""
        request = self.watch_method.request()
        options: Any = request
        options.opts.resource_version = str(resource_version) if resource_version else ""
        options.opts.allow_watch_bookmarks = allow_bookmarks
        options.opts.send_initial_events = send_initial_events
        return Streaming(self.watch_method, request, self._event)

    def _event(self, message: Any) -> E:
        value = self.from_proto(message.object)
        try:
            kind = EventType(message.type)
        except ValueError:
            raise RpcFailed(
                f"the server sent an event of type {message.type!r}", status="UNKNOWN"
            ) from None
        return self.event_of(kind, value, value.metadata.resource_version)

    def _method(self, verb: str) -> Method:
        [name] = [m.name for m in self.service.methods if m.name.startswith(verb)]
        return method(self.service, name)


def only_field(method: Method) -> str:
    """The name of the one field of a response."""
    [found] = method.response.DESCRIPTOR.fields
    return found.name
