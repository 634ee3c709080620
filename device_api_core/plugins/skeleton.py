"""The package that a new provider starts from."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from device_api_core.errors import SettingsError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 40
_LEFT_OUT = re.compile(r"\..*|__pycache__|.*\.egg-info|build|dist")


class Skeleton:
    """The example that this package carries, under another name.

    Raises:
        SettingsError: ``name`` cannot be a provider's.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise SettingsError(
                f"{name!r} cannot be a provider's name: use lower-case words joined by '-'"
            )
        self.distribution = f"device-api-{name}"
        # The longest first: each is part of the ones before it.
        self._words = (
            ("device_api_template", f"device_api_{name.replace('-', '_')}"),
            ("Template", "".join(word.capitalize() for word in name.split("-"))),
            ("template", name),
        )

    def write(self, directory: Path) -> list[Path]:
        """Write all its files; returns their paths.

        Raises:
            SettingsError: the directory exists, or cannot be written.
        """
        try:
            directory.mkdir(parents=True)
            source = files("device_api_core").joinpath("provider-template")
            return sorted(self._copy(source, directory))
        except FileExistsError as error:
            raise SettingsError(f"{directory} exists: choose another --directory") from error
        except OSError as error:
            raise SettingsError(f"cannot write {directory}: {error.strerror}") from error

    def _copy(self, source: Traversable, directory: Path) -> list[Path]:
        written: list[Path] = []
        for item in source.iterdir():
            if _LEFT_OUT.fullmatch(item.name):
                continue
            path = directory / self._renamed(item.name)
            if item.is_dir():
                path.mkdir()
                written += self._copy(item, path)
            else:
                path.write_text(self._renamed(item.read_text(encoding="utf-8")), encoding="utf-8")
                written.append(path)
        return written

    def _renamed(self, text: str) -> str:
        for old, new in self._words:
            text = text.replace(old, new)
        return text
