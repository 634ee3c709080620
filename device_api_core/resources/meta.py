"""What the objects of every kind have in common: a name, a version, and conditions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

READY = "Ready"
"""The condition type that the server computes from all the others."""


class ConditionStatus(StrEnum):
    """Whether a condition holds. ``TRUE`` is good for every type."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of a device's health, as one provider sees it.

    ``type`` is CamelCase, optionally with a domain prefix (``MemoryHealthy``,
    ``example.com/FanHealthy``). ``reason`` is a CamelCase word for programs, ``message`` a
    sentence for people. ``last_transition_time`` is in nanoseconds since the Unix epoch and moves
    only when ``status`` changes; ``None`` lets the server choose it. ``provider_id`` names the
    owner and is filled in by the server.
    """

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    last_transition_time: int | None = None
    provider_id: str = ""

    @property
    def last_transition(self) -> datetime | None:
        """``last_transition_time`` as an aware datetime (microsecond precision), or ``None``."""
        if self.last_transition_time is None:
            return None
        # Not through a float, which rounds and cannot express the last microsecond of year 9999.
        return _EPOCH + timedelta(microseconds=self.last_transition_time // 1_000)


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """Name and version. ``resource_version`` is the server-wide counter's value at the object's
    last change; 0 means "never stored"."""

    name: str
    resource_version: int = 0
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Object:
    """An object of the API. The kinds derive from it."""

    metadata: ObjectMeta

    @property
    def name(self) -> str:
        """Shorthand for ``metadata.name``."""
        return self.metadata.name


class Conditions(Protocol):
    """A status with conditions, each type at most once."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """In the server's order."""


class HasConditions(Protocol):
    """An object with such a status."""

    @property
    def status(self) -> Conditions:
        """How it is."""


class Device(Object):
    """An object whose status has conditions."""

    __slots__ = ()

    def condition(self: HasConditions, type: str) -> Condition | None:
        """The condition of that type, or ``None``."""
        return next((c for c in self.status.conditions if c.type == type), None)

    @property
    def ready(self: HasConditions) -> ConditionStatus:
        """Status of the computed Ready condition; Unknown if the object carries none."""
        ready = next((c for c in self.status.conditions if c.type == READY), None)
        return ConditionStatus.UNKNOWN if ready is None else ready.status
