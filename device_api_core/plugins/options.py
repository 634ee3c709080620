"""Reading a provider's options from a configuration table, strictly."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from device_api_core.errors import SettingsError

Options = TypeVar("Options")


class InvalidOption(SettingsError):
    """An option is unknown or has the wrong type; the message names it and what is accepted."""


def read_options(kind: type[Options], options: Mapping[str, object]) -> Options:
    """Build the frozen dataclass ``kind`` from a configuration table.

    Field types may be ``bool``, ``int``, ``float``, ``str``, ``tuple[int, ...]`` and
    ``tuple[str, ...]``. Integers are accepted for floats, lists for tuples. Every key must be a
    field, every field without a default must be there.

    Raises:
        InvalidOption: an unknown key, a missing one, or a value of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(options) - set(fields)):
        raise InvalidOption(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(fields))}")
    values = {name: _convert(name, hints[name], value) for name, value in options.items()}
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise InvalidOption(f"option {name!r} is required")
    return kind(**values)


def _convert(name: str, hint: Any, value: object) -> object:
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise InvalidOption(f"option {name!r} must be a list, not {value!r}")
        return tuple(_convert(f"{name}[{i}]", item, v) for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int: a switch must not pass for a number.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InvalidOption(f"option {name!r} must be {hint.__name__}, not {value!r}")
    return value
