"""What ``device-api wait`` can wait for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import click
from click.shell_completion import CompletionItem

from device_api_core.cli.jsonpath import BadTemplate, JsonPathError, Path, as_text, parse_path
from device_api_core.client.convert import gpu_as_json
from device_api_core.resources import Condition, ConditionStatus, Gpu

_STATUSES = {status.value.lower(): status for status in ConditionStatus}
_JSONPATH = re.compile(r"(\{.*\})(?:=(.*))?", re.DOTALL)
_KNOWN = ("condition=", "create", "delete", "jsonpath=")


class Goal(Protocol):
    """Something to be true of a GPU; ``None`` is one that does not exist."""

    @property
    def must_exist(self) -> bool:
        """Whether a GPU that does not exist when the wait begins is a mistake."""

    def met(self, gpu: Gpu | None) -> bool:
        """Whether it is true now."""

    def state(self, gpu: Gpu | None) -> str:
        """How it stands, for people."""


@dataclass(frozen=True, slots=True)
class Existence:
    """``create`` or ``delete``."""

    wanted: bool
    must_exist = False

    def __str__(self) -> str:
        return "creation" if self.wanted else "deletion"

    def met(self, gpu: Gpu | None) -> bool:
        return (gpu is not None) is self.wanted

    def state(self, gpu: Gpu | None) -> str:
        return "does not exist" if gpu is None else f"exists, Ready is {gpu.ready}"


@dataclass(frozen=True, slots=True)
class ConditionIs:
    """``condition=TYPE=STATUS``. Types match in any case of letters, as in kubectl."""

    type: str
    status: ConditionStatus
    must_exist = True

    def __str__(self) -> str:
        return f"condition {self.type}={self.status}"

    def met(self, gpu: Gpu | None) -> bool:
        if gpu is None:
            return False
        return any(c.status is self.status for c in self._of(gpu))

    def state(self, gpu: Gpu | None) -> str:
        if gpu is None:
            return "is gone"
        if not (found := self._of(gpu)):
            return f"has no condition {self.type}"
        reason = f" ({found[0].reason})" if found[0].reason else ""
        return f"is {found[0].status}{reason}"

    def _of(self, gpu: Gpu) -> list[Condition]:
        return [c for c in gpu.status.conditions if c.type.lower() == self.type.lower()]


@dataclass(frozen=True, slots=True)
class JsonPathIs:
    """``jsonpath={PATH}=VALUE``, or any value without one."""

    text: str
    path: Path
    value: str | None
    must_exist = True

    def __str__(self) -> str:
        return self.text if self.value is None else f"{self.text}={self.value}"

    def met(self, gpu: Gpu | None) -> bool:
        try:
            found = self._found(gpu)
        except JsonPathError:
            # What does not fit yet may do so later; the state says it.
            return False
        if self.value is None:
            return bool(found)
        return [as_text(value) for value in found] == [self.value]

    def state(self, gpu: Gpu | None) -> str:
        if gpu is None:
            return "is gone"
        try:
            found = self._found(gpu)
        except JsonPathError as error:
            return f"does not fit: {error}"
        return f"has {', '.join(map(as_text, found))}" if found else f"has no {self.text}"

    def _found(self, gpu: Gpu | None) -> list[Any]:
        return [] if gpu is None else self.path.find(gpu_as_json(gpu))


class GoalType(click.ParamType[Goal]):
    """``--for``."""

    name = "goal"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The kinds, and the condition that every GPU has."""
        known = (*_KNOWN, *(f"condition=Ready={status}" for status in ConditionStatus))
        return [CompletionItem(word) for word in known if word.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Goal:
        """Parse it; what cannot be parsed is wrong usage."""
        kind, equals, rest = str(value).partition("=")
        if kind in {"create", "delete"} and not equals:
            return Existence(kind == "create")
        try:
            return _PARSERS.get(kind, _unknown)(rest)
        except (BadTemplate, ValueError) as error:
            self.fail(str(error), param, ctx)


def _condition(text: str) -> ConditionIs:
    kind, _, status = text.partition("=")
    if not kind:
        raise ValueError("condition= needs a type after it, such as condition=Ready")
    wanted = _STATUSES.get(status.lower() or "true")
    if wanted is None:
        raise ValueError(f"{status!r} is no status: true, false or unknown")
    return ConditionIs(kind, wanted)


def _jsonpath(text: str) -> JsonPathIs:
    if (found := _JSONPATH.fullmatch(text)) is None:
        raise ValueError("jsonpath= needs a path in braces after it: jsonpath='{.PATH}'=VALUE")
    if found[2] == "":
        raise ValueError("after the second = a value is missing; leave both out for any value")
    return JsonPathIs(found[1], parse_path(found[1]), found[2])


def _unknown(text: str) -> Goal:
    raise ValueError("a goal is condition=TYPE[=STATUS], create, delete or jsonpath={PATH}[=VALUE]")


_PARSERS: dict[str, Callable[[str], Goal]] = {"condition": _condition, "jsonpath": _jsonpath}
