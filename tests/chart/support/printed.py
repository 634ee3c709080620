"""The helm commands that a page tells people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm_python as helm

_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class HelmCommand:
    """`helm install` or `helm upgrade`."""

    name: str
    chart: str
    flags: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""

    def __str__(self) -> str:
        return " ".join((self.name, self.chart, *self.flags))


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in that language."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def helm_commands(page: Path) -> Iterator[HelmCommand]:
    """The page's. Raises ValueError for a flag that is not expected of it."""
    for text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] in (["helm", "install"], ["helm", "upgrade"]):
                yield _parsed(*words[2:])


def _parsed(name: str, chart: str, *flags: str) -> HelmCommand:
    values: dict[str, Any] = {}
    namespace = ""
    rest = iter(flags)
    for flag in rest:
        if flag == "--set":
            _set(values, next(rest))
        elif flag == "--namespace":
            namespace = next(rest)
        elif flag not in ("--create-namespace", "--reuse-values"):
            raise ValueError(f"{flag} is not known here")
    return HelmCommand(name, chart, flags, values, namespace)


def _set(values: dict[str, Any], expression: str) -> None:
    """Merge `--set` into values, as far as different keys at each level go."""
    for key, value in helm.parse_set_string(expression).items():
        if isinstance(value, dict):
            values.setdefault(key, {}).update(value)
        else:
            values[key] = value
