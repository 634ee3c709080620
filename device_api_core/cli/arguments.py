"""The plain command line of device-api-server, read without click.

What the options are and mean, help, and what is wrong with a command line is click's, in
:mod:`~device_api_core.cli.server`. It costs 3 MiB and a tenth of a start, and nearly every start
has nothing but whole options with simple values. Those are read here, with the same result;
whatever is not understood at once is left to click.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from device_api_core.configuration import read_file
from device_api_core.errors import SettingsError
from device_api_core.settings import Settings

_CONFIG = "config"
_NUMBERS = {int: re.compile(r"[0-9]{1,9}"), float: re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")}
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_NVML = "DEVICE_API_NVML_"
"""Variables that stand for options of a provider."""
_COMPLETION = "_COMPLETE"


class _Unusual(Exception):
    """Click has to look at it."""


def plain_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings | None:
    """The settings from flags, environment and file, in this order; ``None`` if click has to look:
    help is wanted, something is wrong, or it is spelled in another way than most do."""
    settings = [f for f in fields(Settings) if f.default is not MISSING]
    try:
        if any(v.startswith(_NVML) or v.endswith(_COMPLETION) for v in environment):
            return None
        given = _given(arguments, settings)
        paths = given.pop(_CONFIG, None) or [environment.get("DEVICE_API_CONFIG", "")]
        file = read_file(paths[-1]) if paths[-1] else {}
        values = {f.name: _value(f, given.get(f.name), environment, file) for f in settings}
        return Settings(**values, providers=file.get("providers", {}))
    except (_Unusual, SettingsError):
        return None


def _given(arguments: Sequence[str], settings: Sequence[Field[Any]]) -> dict[str, list[str]]:
    """The flags' values by setting."""
    names = {f"--{f.name.replace('_', '-')}": f for f in settings}
    names |= {f.metadata["flag"]: f for f in settings if f.metadata["flag"]}
    given: dict[str, list[str]] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        setting = names.get(flag)
        if setting is None and flag != f"--{_CONFIG}":
            raise _Unusual
        if setting is not None and isinstance(setting.default, bool):
            if equals:
                raise _Unusual
            value = "true"
        elif not equals:
            value = next(rest, "-")
            if value.startswith("-"):
                raise _Unusual
        given.setdefault(setting.name if setting else _CONFIG, []).append(value)
    return given


def _value(
    setting: Field[Any],
    flags: list[str] | None,
    environment: Mapping[str, str],
    file: Mapping[str, Any],
) -> Any:
    variable = setting.metadata["env"] or f"DEVICE_API_{setting.name.upper()}"
    text = environment.get(variable, "")
    if isinstance(setting.default, tuple) and (flags or text):
        return tuple(flags or text.split())
    if flags or text:
        value = _converted(setting.default, flags[-1] if flags else text)
    else:
        value = file.get(setting.name, setting.default)
    if setting.name == "verbosity" and value < 0:
        raise _Unusual
    return value


def _converted(default: Any, text: str) -> Any:
    kind = type(default)
    if kind is bool:
        if text not in _WORDS:
            raise _Unusual
        return _WORDS[text]
    if kind in _NUMBERS:
        if not _NUMBERS[kind].fullmatch(text):
            raise _Unusual
        return kind(text)
    return text
