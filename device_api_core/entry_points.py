"""The entry points that installed distributions declare, for groups of plugins.

``importlib.metadata`` knows them too, but with it come email, zipfile, csv and more: 2.5 MiB and a
tenth of a start. It is asked only where distributions may lie outside of plain directories.

Source of the rules: the Python packaging specifications "Entry points" and "Recording installed
projects".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_VALUE = re.compile(r"(?P<module>[\w.]+)\s*(:\s*(?P<attribute>[\w.]+)\s*)?(\[.*\]\s*)?")
_SEPARATORS = re.compile(r"[-_.]+")
_FOLDERS = (".dist-info", ".egg-info")


class EntryPoint(NamedTuple):
    """A name for something that can be imported, and the distribution that declares it."""

    name: str
    value: str
    distribution: str = ""
    version: str = ""

    def load(self) -> Any:
        """What it stands for.

        Raises:
            ImportError: it names nothing that can be imported.
            AttributeError: the module has no such attribute.
        """
        if (match := _VALUE.fullmatch(self.value)) is None:
            raise ImportError(f"{self.value!r} is not of the form module:attribute")
        attributes = (match["attribute"] or "").split(".")
        return reduce(getattr, filter(None, attributes), import_module(match["module"]))


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, of each distribution that imports find first."""
    if all(map(_is_plain, sys.path)) and not any(map(_knows_more, sys.meta_path)):
        return list(_in_directories(group))
    from importlib import metadata

    return [
        EntryPoint(point.name, point.value, point.dist.name, point.dist.version)
        if point.dist
        else EntryPoint(point.name, point.value)
        for point in metadata.entry_points(group=group)
    ]


def parse(text: str, group: str) -> Iterator[EntryPoint]:
    """The entry points of a group in the text of an ``entry_points.txt``."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == group and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield EntryPoint(name.strip(), value.strip())


def _is_plain(path: str) -> bool:
    """Whether distributions lie there as files, or not at all: no archive, and no egg."""
    found = Path(path)
    return found.suffix.lower() != ".egg" and (found.is_dir() or not found.exists())


def _knows_more(finder: Any) -> bool:
    """Whether it finds distributions that are in no directory of the path."""
    own = getattr(finder, "find_distributions", None)
    return own is not None and getattr(finder, "__name__", "") != "PathFinder"


def _in_directories(group: str) -> Iterator[EntryPoint]:
    seen = set()
    for directory in sys.path:
        for folder in _metadata_folders(directory or "."):
            stem = folder.name.lower().rpartition(".")[0].partition("-")[0]
            name = _SEPARATORS.sub("-", stem)
            if name not in seen:
                seen.add(name)
                yield from _of_distribution(folder.path, group)


def _metadata_folders(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return [each for each in found if each.name.lower().endswith(_FOLDERS)]
    except OSError:
        # Entries of the path need not exist, nor be readable.
        return []


def _of_distribution(folder: str, group: str) -> Iterator[EntryPoint]:
    points = list(parse(_text(folder, "entry_points.txt"), group))
    if points:
        header = _text(folder, "METADATA") or _text(folder, "PKG-INFO")
        name, version = (_field(header, key) for key in ("Name", "Version"))
        yield from (point._replace(distribution=name, version=version) for point in points)


def _text(folder: str, file: str) -> str:
    try:
        return Path(folder, file).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return ""


def _field(header: str, key: str) -> str:
    match = re.search(rf"^{key}:\s*(\S.*?)\s*$", header, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else ""
