"""What the cache stores of one GPU, and the changes that providers make to it.

An :class:`Entry` is immutable. A change is applied to one, which gives another; only when the cache
installs it does it get a version and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

from device_api_core import codec, conditions
from device_api_core.conditions import Health
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)


@dataclass(frozen=True)
class Entry:
    """One GPU: what it is, who registered it, what is said of its health.

    ``version`` and ``item`` (the encoded GPU, as a field of ``GpuList``) are those of the last
    :func:`encoded`; ``parts`` are the encoded conditions in the order of ``health.published``.
    """

    name: str
    spec: GpuSpec
    registrants: frozenset[str]
    health: Health
    version: int = 0
    spec_bytes: bytes = b""
    parts: tuple[bytes, ...] = ()
    item: bytes = b""

    def looks_like(self, other: Entry) -> bool:
        """Whether readers could not tell the two apart."""
        if self.health is other.health and self.spec is other.spec:
            return True
        return (
            (self.spec is other.spec or self.spec == other.spec)
            and self.health.published == other.health.published
            and self.health.recommended_action == other.health.recommended_action
        )

    def says_the_same(self, other: Entry) -> bool:
        """Whether it holds nothing new, for readers or for the server alone."""
        return (
            self.health is other.health
            and self.spec is other.spec
            and self.registrants == other.registrants
        )

    @property
    def gpu(self) -> Gpu:
        """The GPU as readers see it."""
        status = GpuStatus(self.health.published, self.health.recommended_action)
        return Gpu(ObjectMeta(self.name, self.version), self.spec, status)

    @cached_property
    def get_response(self) -> bytes:
        """The encoded answer to ``GetGpu``."""
        return codec.get_response(self.item)

    @cached_property
    def added_event(self) -> bytes:
        """The encoded ADDED event of a snapshot; all watchers share one copy."""
        return codec.watch_response("ADDED", self.item)

    @property
    def abandoned(self) -> bool:
        """Whether no registrant and no condition is left, so that the GPU has to go."""
        return not self.registrants and not self.health.conditions

    @property
    def fault(self) -> Condition | None:
        """A condition that is False, if there is one."""
        return next((c for c in self.health.conditions if c.status is ConditionStatus.FALSE), None)

    def with_health(self, health: Health) -> Entry:
        """The entry as it is after a change, not encoded yet."""
        # A tenth of a write's cost would be in dataclasses.replace.
        return Entry(
            self.name,
            self.spec,
            self.registrants,
            health,
            self.version,
            self.spec_bytes,
            self.parts,
            self.item,
        )

    @property
    def owners(self) -> frozenset[str]:
        """The providers that registered the GPU or own a condition on it."""
        return self.registrants | {c.provider_id for c in self.health.conditions}

    def belongs_to(self, provider_id: str) -> bool:
        """Whether the provider registered the GPU or owns a condition on it."""
        if provider_id in self.registrants:
            return True
        return any(c.provider_id == provider_id for c in self.health.conditions)


class SetCondition(NamedTuple):
    """One condition; ``recommended_action`` is ``None`` to leave the provider's action alone."""

    gpu: str
    condition: Condition
    recommended_action: str | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions it sets."""
        return (self.condition,)

    def apply(self, health: Health, provider_id: str, now: int) -> Health:
        """The health after the change. Raises ``Conflict``."""
        changed = conditions.set_condition(health, self.condition, now)
        if self.recommended_action is None:
            return changed
        return conditions.set_action(changed, provider_id, self.recommended_action)


class SetStatus(NamedTuple):
    """All conditions and the action of one provider on one GPU."""

    gpu: str
    conditions: tuple[Condition, ...]
    recommended_action: str = ""

    def apply(self, health: Health, provider_id: str, now: int) -> Health:
        """The health after the change. Raises ``Conflict``."""
        changed = conditions.set_status(health, provider_id, self.conditions, now)
        return conditions.set_action(changed, provider_id, self.recommended_action)


Change = SetCondition | SetStatus


def merge_spec(known: GpuSpec, new: GpuSpec) -> GpuSpec:
    """The known spec with every field that ``new`` sets."""
    unset = ("", None)
    differing = {
        f.name: value
        for f in fields(GpuSpec)
        if (value := getattr(new, f.name)) not in unset and value != getattr(known, f.name)
    }
    # The driver's spelling stays when only the case of the uuid differs.
    if differing.get("uuid", "").casefold() == known.uuid.casefold() and known.uuid:
        del differing["uuid"]
    return replace(known, **differing) if differing else known


def _parts(published: tuple[Condition, ...], previous: Entry | None) -> tuple[bytes, ...]:
    if previous is None or len(previous.parts) != len(published):
        return tuple([codec.encode_condition(c) for c in published])
    return tuple(
        [
            part if c is known else codec.encode_condition(c)
            for c, known, part in zip(
                published, previous.health.published, previous.parts, strict=True
            )
        ]
    )


def encoded(entry: Entry, previous: Entry | None, version: int) -> Entry:
    """The entry with its version and bytes. Parts that ``previous`` has already are reused."""
    health = entry.health
    if previous is not None and previous.spec is entry.spec:
        spec_bytes = previous.spec_bytes
    else:
        spec_bytes = codec.encode_spec(entry.spec)
    parts = _parts(health.published, previous)
    item = codec.encode_item(entry.name, version, spec_bytes, parts, health.recommended_action)
    return Entry(
        entry.name, entry.spec, entry.registrants, health, version, spec_bytes, parts, item
    )
