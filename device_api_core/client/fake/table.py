"""The objects of one kind on a fake node, as readers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic

from google.protobuf.message import Message

from device_api_core.client.fake.watches import Subscription, Watches
from device_api_core.client.kinds import Kind, T, only_field
from device_api_core.client.watch import EventType
from device_api_core.errors import InvalidArgument, NotFound
from device_api_core.validation import check_name

_MAX_VERSION = 2**63 - 1


class Table(Generic[T]):
    """All objects by name, the version, and the watches. It answers the three methods of any kind
    that follows the pattern. The caller sees to it that one thread at a time is here."""

    def __init__(self, kind: Kind[T, Any, Any], version: int) -> None:
        self.kind = kind
        self.version = version
        self.watches = Watches(version)
        self._objects: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Table {len(self._objects)} {self.kind.name}s at version {self.version}>"

    # --- what changes

    def put(self, value: T) -> int:
        """An object comes, or changes to this; returns its version."""
        message = self.kind.to_proto(value)
        check_name(message.metadata.name, "metadata.name")
        known = message.metadata.name in self._objects
        return self._next(EventType.MODIFIED if known else EventType.ADDED, message)

    def remove(self, name: str) -> bool:
        """An object goes. Returns whether it was there."""
        message = self._objects.get(name)
        if message is not None:
            self._next(EventType.DELETED, message)
        return message is not None

    def publish(self, type: EventType, message: Any, version: int) -> None:
        """Something happened to an object; the message carries that version."""
        self.version = version
        name = message.metadata.name
        if type is EventType.DELETED:
            del self._objects[name]
        else:
            self._objects[name] = message
        self.watches.publish(version, self._event(type, message))

    def restart(self, version: int, keep: Iterable[str] | None) -> None:
        """As after a restart of the server: nobody can resume, and only these objects are there."""
        kept = self._objects.keys() & set(self._objects if keep is None else keep)
        self._objects = {name: self._objects[name] for name in sorted(kept)}
        self.version = version
        self.watches.forget(version)

    # --- what readers ask

    @property
    def objects(self) -> tuple[T, ...]:
        """The objects, sorted by name."""
        return tuple(self.kind.from_proto(o) for _, o in sorted(self._objects.items()))

    @property
    def methods(self) -> dict[str, Callable[[Any], Message]]:
        """The unary methods by path."""
        return {self.kind.get_method.path: self._get, self.kind.list_method.path: self._list}

    def subscribe(
        self, since: int | None, marked: bool, wake: Callable[[], object]
    ) -> Subscription:
        """Open a watch, from a version or from the present state, whose end is ``marked`` with a
        bookmark if that is wanted."""
        if since is not None:
            frames = self.watches.since(since)
        else:
            frames = [self._event(EventType.ADDED, o) for o in self._objects.values()]
            if marked:
                frames.append(self.bookmark())
        subscription = Subscription(frames, wake)
        self.watches.add(subscription)
        return subscription

    def bookmark(self) -> bytes:
        """What a watch is sent after silence."""
        message: Any = self.kind.watch_method.response(type=EventType.BOOKMARK)
        message.object.metadata.resource_version = str(self.version)
        return bytes(message.SerializeToString())

    def _get(self, request: Any) -> Message:
        check_name(request.name)
        found = self._objects.get(request.name)
        if found is None:
            raise NotFound(f'{self.kind.name} "{request.name}" not found')
        method = self.kind.get_method
        return method.response(**{only_field(method): found})

    def _list(self, request: Any) -> Message:
        method = self.kind.list_method
        response = method.response()
        listed = getattr(response, only_field(method))
        listed.metadata.resource_version = str(self.version)
        listed.items.extend(self._objects.values())
        return response

    def _event(self, type: EventType, message: Message) -> bytes:
        response = self.kind.watch_method.response(type=type, object=message)
        return response.SerializeToString()

    def _next(self, type: EventType, message: Any) -> int:
        version = self.version + 1
        message.metadata.resource_version = str(version)
        if "resource_version" in message.DESCRIPTOR.fields_by_name:
            message.resource_version = version
        self.publish(type, message, version)
        return version


def watched_version(options: Any) -> int | None:
    """Where a watch is to start; ``None`` for the present state. Raises ``InvalidArgument``."""
    text = options.resource_version
    if text in {"", "0"}:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MAX_VERSION)):
        raise InvalidArgument(
            "opts.resource_version",
            f"must be a decimal version from a list or event, not {text[:64]!r}",
        )
    if int(text) > _MAX_VERSION:
        raise InvalidArgument("opts.resource_version", f"{text} does not fit 63 bits")
    if options.send_initial_events:
        raise InvalidArgument(
            "opts.send_initial_events",
            "cannot be combined with a resource_version: initial events are the current state",
        )
    return int(text)
