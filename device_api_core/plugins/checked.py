"""What every sink does with a call before it goes anywhere: the checks, and held updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic, TypeVar

from device_api_core.entries import Change, SetCondition, SetStatus
from device_api_core.errors import InvalidArgument
from device_api_core.plugins.spec import Update
from device_api_core.reservations import covers
from device_api_core.resources import READY, Condition, ConditionStatus, GpuSpec
from device_api_core.series import Tally
from device_api_core.validation import (
    MAX_SUMMARY_CHARS,
    check_action,
    check_condition,
    check_conditions,
    check_name,
    check_spec,
)

Held = TypeVar("Held")


class Checks:
    """What one provider may say: well-formed, and of the types that it declares."""

    def __init__(self, provider_id: str, types: Sequence[str]) -> None:
        self._provider_id = provider_id
        self._types = frozenset(types)

    def condition(self, gpu: str, condition: Condition, action: str | None) -> SetCondition:
        """The change that sets one condition. Raises ``InvalidArgument``."""
        check_name(gpu, "gpu")
        if action is not None:
            check_action(action)
        owned = self._own(condition, "condition")
        check_condition(owned)
        return SetCondition(gpu, owned, action)

    def status(self, gpu: str, conditions: Sequence[Condition], action: str) -> SetStatus:
        """The change that replaces them all. Raises ``InvalidArgument``."""
        check_name(gpu, "gpu")
        check_action(action)
        owned = tuple(self._own(c, f"conditions[{i}]") for i, c in enumerate(conditions))
        check_conditions(owned)
        return SetStatus(gpu, owned, action)

    def _own(self, condition: Condition, field: str) -> Condition:
        if condition.type != READY and not covers(self._types, condition.type):
            raise InvalidArgument(
                f"{field}.type",
                f"provider {self._provider_id} does not declare {condition.type}: add it to types",
            )
        try:
            status = ConditionStatus(condition.status)
        except ValueError as error:
            raise InvalidArgument(
                f"{field}.status", f"must be True, False or Unknown, not {condition.status!r}"
            ) from error
        return replace(condition, status=status, provider_id=self._provider_id)


class StagedUpdate:
    """The changes of one held update, checked as they come and applied at its end."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self.changes: list[Change] = []

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        self.changes.append(self._checks.condition(gpu, condition, recommended_action))

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        self.changes.append(self._checks.status(gpu, conditions, recommended_action))


class CheckedSink(ABC, Generic[Held]):
    """The writing half of :class:`~device_api_core.plugins.spec.Sink`. What it calls on its
    children gets valid values; ``Held`` is what stands for an update there."""

    def __init__(self, provider_id: str, types: Sequence[str], tally: Tally) -> None:
        self._provider_id = provider_id
        self._checks = Checks(provider_id, types)
        self._tally = tally

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        check_name(gpu, "gpu")
        check_spec(spec)
        return self._register(gpu, spec)

    def withdraw(self, gpu: str) -> None:
        check_name(gpu, "gpu")
        self._withdraw(gpu)

    def set_condition(
        self, gpu: str, condition: Condition, *, recommended_action: str | None = None
    ) -> None:
        self._apply(self._checks.condition(gpu, condition, recommended_action))

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        self._apply(self._checks.status(gpu, conditions, recommended_action))

    @contextmanager
    def update(self, *gpus: str) -> Iterator[Update]:
        for gpu in gpus:
            check_name(gpu, "gpu")
        held = self._hold(gpus)
        staged = StagedUpdate(self._checks)
        try:
            yield staged
        except BaseException as error:
            self._abort(held, f"{type(error).__name__}: {error}")
            raise
        self._commit(held, staged.changes)

    def alive(self, summary: str = "") -> None:
        self._alive(" ".join(summary.split())[:MAX_SUMMARY_CHARS])

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        self._tally.count(name, amount, labels)

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        self._tally.gauge(name, value, labels)

    @abstractmethod
    def _alive(self, summary: str) -> None:
        """``summary`` is one short line, or empty to leave it as it is."""

    @abstractmethod
    def _register(self, gpu: str, spec: GpuSpec) -> bool:
        """Returns whether the GPU is new."""

    @abstractmethod
    def _withdraw(self, gpu: str) -> None:
        """End this provider's part in the GPU."""

    @abstractmethod
    def _apply(self, change: Change) -> None:
        """One change, now."""

    @abstractmethod
    def _hold(self, gpus: tuple[str, ...]) -> Held:
        """Make readers wait."""

    @abstractmethod
    def _abort(self, held: Held, why: str) -> None:
        """Drop what was staged."""

    @abstractmethod
    def _commit(self, held: Held, changes: Sequence[Change]) -> None:
        """Apply what was staged in one step, and let the readers pass."""
