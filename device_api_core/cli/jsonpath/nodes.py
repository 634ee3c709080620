"""What a parsed template consists of, and what it finds in a value made of JSON's types."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class JsonPathError(Exception):
    """A template that is well formed does not fit the value: an index beyond the end of a list, a
    number compared with a text."""


class Step(Protocol):
    """One step of a path: from values to the values that it leads to."""

    def take(self, values: Sequence[Any]) -> list[Any]:
        """Raises JsonPathError."""


@dataclass(frozen=True, slots=True)
class Field:
    """``.name``: nothing where it is missing."""

    name: str

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [v[self.name] for v in values if isinstance(v, dict) and self.name in v]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """``*``: all members of an object, all items of a list."""

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [child for value in values for child in _children(value)]


@dataclass(frozen=True, slots=True)
class Descent:
    """``..``: the value and everything below it that can have members, each before its own."""

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [found for value in values for found in _descend(value)]


@dataclass(frozen=True, slots=True)
class Index:
    """``[2]``, or from the end ``[-1]``."""

    position: int

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [self._item(_as_list(value)) for value in values]

    def _item(self, items: list[Any]) -> Any:
        if not -len(items) <= self.position < len(items):
            raise _beyond(self.position, items)
        return items[self.position]


@dataclass(frozen=True, slots=True)
class Slice:
    """``[first:beyond:step]``; any may be left out."""

    first: int | None
    beyond: int | None
    step: int | None

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [item for value in values for item in self._items(_as_list(value))]

    def _items(self, items: list[Any]) -> list[Any]:
        first = _from_start(self.first or 0, items)
        beyond = len(items) if self.beyond is None else _from_start(self.beyond, items)
        if first == beyond:
            return []
        if not 0 <= first < len(items):
            raise _beyond(first, items)
        if not 0 <= beyond <= len(items):
            raise _beyond(beyond - 1, items)
        if first > beyond:
            raise JsonPathError(f"the slice starts at {first}, after its end at {beyond}")
        return items[first : beyond : self.step or 1]


@dataclass(frozen=True, slots=True)
class Union:
    """``[0,2]`` or ``['name','uuid']``: what each of them finds, one after the other."""

    branches: tuple[Step, ...]

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [found for branch in self.branches for found in branch.take(values)]


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, number or truth value that is written in the template."""

    value: str | float | bool

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [self.value]


@dataclass(frozen=True, slots=True)
class Path:
    """Steps, one after the other, from one value."""

    steps: tuple[Step, ...]

    def find(self, value: Any) -> list[Any]:
        """All that it leads to. Raises JsonPathError."""
        values = [value]
        for step in self.steps:
            values = step.take(values)
        return values


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """``[?(@.type=="Ready")]``: the items of a list for which it holds. Without an operator: those
    that have what ``left`` names."""

    left: Path
    operator: str = ""
    right: Path | None = None

    def take(self, values: Sequence[Any]) -> list[Any]:
        return [item for value in values for item in _as_list(value) if self._holds(item)]

    def _holds(self, item: Any) -> bool:
        left = self.left.find(item)
        if self.right is None:
            return bool(left)
        right = self.right.find(item)
        if not left or not right:
            # What is missing is neither equal nor different.
            return False
        if len(left) > 1 or len(right) > 1:
            raise JsonPathError("a filter can compare only one value with one other")
        return _compare(left[0], self.operator, right[0])


@dataclass(frozen=True, slots=True)
class Text:
    """What stands outside of braces."""

    text: str

    def render(self, value: Any) -> Iterator[str]:
        yield self.text


@dataclass(frozen=True, slots=True)
class Show:
    """``{.metadata.name}``: what a path finds, with spaces between."""

    path: Path

    def render(self, value: Any) -> Iterator[str]:
        yield " ".join(map(as_text, self.path.find(value)))


@dataclass(frozen=True, slots=True)
class Range:
    """``{range .items[*]}...{end}``: the parts between, once for each value found."""

    path: Path
    parts: tuple[Text | Show | Range, ...]

    def render(self, value: Any) -> Iterator[str]:
        for found in self.path.find(value):
            for part in self.parts:
                yield from part.render(found)


@dataclass(frozen=True, slots=True)
class Template:
    """A whole template."""

    parts: tuple[Text | Show | Range, ...]

    def render(self, value: Any) -> str:
        """The text that it makes of a value. Raises JsonPathError."""
        return "".join(text for part in self.parts for text in part.render(value))


def as_text(value: Any) -> str:
    """A value as kubectl prints it: a text as it is, anything else as JSON without spaces."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _descend(value: Any) -> Iterator[Any]:
    children = list(_children(value))
    if children:
        yield value
        for child in children:
            yield from _descend(child)


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise JsonPathError(f"{_named(value)} is not a list, so it has no items to choose from")
    return value


def _from_start(position: int, items: list[Any]) -> int:
    return position + len(items) if position < 0 else position


def _beyond(position: int, items: list[Any]) -> JsonPathError:
    return JsonPathError(f"index {position} is outside of a list of {len(items)}")


def _compare(left: Any, sign: str, right: Any) -> bool:
    kinds = {_kind(left), _kind(right)}
    ordered = sign not in {"==", "!="}
    if len(kinds) > 1 or not kinds <= {"text", "number", *(() if ordered else ("truth value",))}:
        raise JsonPathError(f"{_named(left)} {sign} {_named(right)} cannot be compared")
    return OPERATORS[sign](left, right)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int | float):
        return "number"
    kinds = ((str, "text"), (dict, "object"), (list, "list"))
    return next((kind for type_, kind in kinds if isinstance(value, type_)), "null")


def _named(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"the {_kind(value)}"
    return f"the {_kind(value)} {json.dumps(value, ensure_ascii=False)}"
