"""The configuration file.

It is TOML: the fields of :class:`~device_api_core.settings.Settings` by name, one table
``[providers.NAME]`` for each provider's options and one ``[publishers.NAME]`` for each publisher's.
Strings in these tables may name environment variables as ``${NAME}``, so that one file serves all
nodes; the fields have variables of their own for that. An unknown key is an error.

A publisher runs in another process than the server, with another environment, so each reads only
the tables that are its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from device_api_core.errors import SettingsError
from device_api_core.settings import Settings

_VARIABLE = re.compile(r"\$\{(\w+)\}")

_PROVIDERS, _PUBLISHERS = "providers", "publishers"


def read_file(path: str) -> dict[str, Any]:
    """The values of a configuration file that are the server's, by field name.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or has an unknown key or a value of
            the wrong type.
    """
    values = _load(path)
    values.pop(_PUBLISHERS, None)
    known = {f.name: f for f in fields(Settings)}
    for key, value in values.items():
        values[key] = (
            _filled_in_tables(path, key, value)
            if key == _PROVIDERS
            else _checked(path, key, value, known[key].default)
        )
    return values


def read_publisher(path: str, name: str) -> dict[str, object]:
    """The table ``[publishers.NAME]`` of a configuration file, empty if it has none.

    Raises:
        SettingsError: as :func:`read_file`, for what a publisher reads of it.
    """
    tables = _load(path).get(_PUBLISHERS, {})
    found = {name: tables[name]} if name in tables else {}
    own: dict[str, object] = _filled_in_tables(path, _PUBLISHERS, found).get(name, {})
    return own


def _load(path: str) -> dict[str, Any]:
    import tomllib  # only who has a file pays for it

    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"--config: cannot read {path}: {error.strerror}") from error
    # What is no TOML is a ValueError, thousands of digits are too.
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--config: {path} is not valid TOML: {error}") from error
    known = {_PUBLISHERS, *(f.name for f in fields(Settings))}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(
                f"--config: {path}: unknown key {key!r}; known are {', '.join(sorted(known))}"
            )
        tables = isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())
        if key in {_PROVIDERS, _PUBLISHERS} and not tables:
            raise SettingsError(f"--config: {path}: {key} must be tables [{key}.NAME]")
    return values


def _filled_in_tables(path: str, key: str, tables: dict[str, Any]) -> dict[str, Any]:
    try:
        return {name: _filled_in(f"{path}: [{key}.{name}]", v) for name, v in tables.items()}
    except RecursionError as error:
        raise SettingsError(f"--config: {path}: {key} are nested too deeply") from error


def _checked(path: str, key: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise SettingsError(f"--config: {path}: {key} must be a list of strings")
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise SettingsError(
            f"--config: {path}: {key} must be of type {type(default).__name__}, not {value!r}"
        )
    return value


def _filled_in(where: str, value: Any) -> Any:
    """``value`` with the environment's variables in place of their names."""
    if isinstance(value, dict):
        return {key: _filled_in(f"{where}: {key}", each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled_in(where, each) for each in value]
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in os.environ:
            raise SettingsError(f"--config: {where}: environment variable {name} is not set")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)
