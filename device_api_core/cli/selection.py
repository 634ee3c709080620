"""Which GPUs ``get`` shows, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from device_api_core.cli.columns import place
from device_api_core.cli.failures import Failure
from device_api_core.cli.jsonpath import BadTemplate, JsonPathError, Path, as_text, parse_path
from device_api_core.client.convert import gpu_as_json
from device_api_core.resources import ConditionStatus, Gpu

_TERM = re.compile(r"\s*((?:[^=!,\[]|\[[^\]]*\])+?)\s*(==|!=|=)([^,]*)(?:,|$)")
_DIGITS = re.compile(r"([0-9]+)")


class PathType(click.ParamType[Path]):
    """An option that is a path, such as ``{.metadata.name}``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Parse it; a path that cannot be parsed is wrong usage."""
        if isinstance(value, Path):
            return value
        try:
            return parse_path(value)
        except BadTemplate as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Term:
    """``PATH=VALUE`` or ``PATH!=VALUE``. What is missing is empty."""

    path: Path
    equal: bool
    value: str

    def matches(self, gpu: dict[str, Any]) -> bool:
        """Whether it holds of a GPU in JSON form. Raises JsonPathError."""
        found = [as_text(value) for value in self.path.find(gpu)] or [""]
        return (self.value in found) is self.equal


class SelectorType(click.ParamType[tuple[Term, ...]]):
    """``--field-selector``: terms with commas between, all of which must hold."""

    name = "selector"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Term, ...]:
        """Parse it; a selector that cannot be parsed is wrong usage."""
        if isinstance(value, tuple):
            return value
        terms, at = [], 0
        while at < len(value):
            if (found := _TERM.match(value, at)) is None:
                self.fail(f"{value[at:]!r} is not FIELD=VALUE or FIELD!=VALUE", param, ctx)
            try:
                path = parse_path(found[1])
            except BadTemplate as error:
                self.fail(str(error), param, ctx)
            terms.append(Term(path, found[2] != "!=", found[3].strip()))
            at = found.end()
        return tuple(terms)


@dataclass(frozen=True, slots=True)
class Selection:
    """The GPUs of some names (all, if none are given) that have certain values."""

    names: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    unhealthy: bool = False
    sort_by: Path | None = None

    @property
    def single(self) -> bool:
        """Whether it is one GPU by its name, which is then shown as itself and not as a list."""
        return len(self.names) == 1

    def matches(self, gpu: Gpu) -> bool:
        """Whether a GPU is one of them."""
        if self.names and gpu.name not in self.names:
            return False
        if self.unhealthy and gpu.ready is ConditionStatus.TRUE:
            return False
        if not self.terms:
            return True
        data = gpu_as_json(gpu)
        try:
            return all(term.matches(data) for term in self.terms)
        except JsonPathError as error:
            raise Failure(f"the field selector does not fit {gpu.name}: {error}") from error

    def of(self, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
        """Those among some GPUs, in the driver's order, that of the names, or that of
        ``sort_by``."""
        chosen = [gpu for gpu in gpus if self.matches(gpu)]
        if self.sort_by is not None:
            return tuple(_sorted(chosen, self.sort_by))
        if self.names:
            return tuple(sorted(chosen, key=lambda gpu: self.names.index(gpu.name)))
        return tuple(sorted(chosen, key=place))

    def missing(self, gpus: Iterable[Gpu]) -> list[str]:
        """The names that none of these GPUs has."""
        present = {gpu.name for gpu in gpus}
        return [name for name in dict.fromkeys(self.names) if name not in present]


def _sorted(gpus: list[Gpu], path: Path) -> list[Gpu]:
    try:
        found = {gpu.name: path.find(gpu_as_json(gpu)) for gpu in gpus}
    except JsonPathError as error:
        raise Failure(f"--sort-by does not fit: {error}") from error
    if gpus and not any(found.values()):
        hint = "`device-api get gpus -o json` shows the fields that there are"
        raise Failure("no GPU has the field of --sort-by", hint=hint)
    return sorted(gpus, key=lambda gpu: (_natural(found[gpu.name]), place(gpu)))


def _natural(found: list[Any]) -> tuple[int, Any]:
    """Sorts what is missing first, then numbers, then texts with their digits as numbers, since
    numbers of 64 bits are texts in protobuf's JSON."""
    if not found:
        return 0, ()
    value = found[0]
    if isinstance(value, int | float):
        return 1, value
    parts = _DIGITS.split(as_text(value))
    return 2, [_as_number(part) if n % 2 else part for n, part in enumerate(parts)]


def _as_number(digits: str) -> tuple[int, str]:
    # Sorts as the number does, which int() refuses to read from thousands of digits.
    digits = digits.lstrip("0")
    return len(digits), digits
