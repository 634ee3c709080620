"""What a provider elsewhere has said: enough to say it again to a server that forgot it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from device_api_core.entries import Change, SetCondition, SetStatus, merge_spec
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.series import Tally


@dataclass(frozen=True, slots=True)
class Said:
    """One GPU. ``spec`` is ``None`` for a GPU that another provider registered. ``whole`` is
    whether the provider has replaced everything at once: then these are all its conditions, and
    else the server may know more from before. ``action`` is ``None`` if it never said one."""

    spec: GpuSpec | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    action: str | None = None
    whole: bool = False

    def changed(self, change: Change) -> Said:
        """After an accepted change."""
        if isinstance(change, SetStatus):
            conditions = {c.type: c for c in change.conditions}
            return Said(self.spec, conditions, change.recommended_action, whole=True)
        conditions = {**self.conditions, change.condition.type: change.condition}
        action = self.action if change.recommended_action is None else change.recommended_action
        return Said(self.spec, conditions, action, self.whole)

    def changes(self, gpu: str) -> Iterator[Change]:
        """What to send so that the server knows it again."""
        if self.whole:
            yield SetStatus(gpu, tuple(self.conditions.values()), self.action or "")
            return
        for condition in self.conditions.values():
            yield SetCondition(gpu, condition, self.action)


class Mirror:
    """Everything said and acknowledged, by GPU name, and ``tally``, what was counted. But for that
    not safe for threads."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._said: dict[str, Said] = {}

    def __repr__(self) -> str:
        return f"<Mirror of {sorted(self._said)}>"

    def __contains__(self, gpu: str) -> bool:
        return gpu in self._said

    @property
    def gpus(self) -> dict[str, Said]:
        """What was said, by GPU name."""
        return dict(self._said)

    def has_registered(self, gpu: str) -> bool:
        """Whether the provider itself registered the GPU."""
        return gpu in self._said and self._said[gpu].spec is not None

    def register(self, gpu: str, spec: GpuSpec) -> None:
        """Fields that are set replace what was said before."""
        said = self._said.get(gpu, Said())
        merged = spec if said.spec is None else merge_spec(said.spec, spec)
        self._said[gpu] = replace(said, spec=merged)

    def drop(self, gpu: str) -> None:
        """The provider no longer reports the GPU, or may not."""
        self._said.pop(gpu, None)

    def apply(self, change: Change) -> None:
        """A change was accepted."""
        self._said[change.gpu] = self._said.get(change.gpu, Said()).changed(change)

    def retract(self, change: Change) -> None:
        """What was accepted once is refused now."""
        types = {c.type for c in change.conditions}
        if (said := self._said.get(change.gpu)) is not None:
            kept = {type_: c for type_, c in said.conditions.items() if type_ not in types}
            self._said[change.gpu] = replace(said, conditions=kept)

    def lapse(self, reason: str, message: str, gpus: Iterable[str] = ()) -> None:
        """The provider is no longer believed where it said True, on the GPUs named or on all."""

        def unbelieved(c: Condition) -> Condition:
            if c.status is not ConditionStatus.TRUE:
                return c
            return Condition(
                c.type, ConditionStatus.UNKNOWN, reason, message, provider_id=c.provider_id
            )

        self._replace(gpus or self._said, unbelieved)

    def lose(self, reason: str, message: str) -> None:
        """The provider is no longer believed at all: nor are its gauges."""
        self.lapse(reason, message)
        self.tally.drop_gauges()

    def adopt(self, gpu: str, condition: Condition) -> None:
        """What the server put in place of what was said, so that it is not said again."""
        if gpu in self._said and condition.type in self._said[gpu].conditions:
            self._replace((gpu,), lambda c: condition if c.type == condition.type else c)

    def _replace(self, gpus: Iterable[str], change: Callable[[Condition], Condition]) -> None:
        for gpu in tuple(gpus):
            if (said := self._said.get(gpu)) is not None:
                conditions = {type_: change(c) for type_, c in said.conditions.items()}
                self._said[gpu] = replace(said, conditions=conditions)
