"""A pytest plugin that keeps what the raw tests' clients say: the seeds of the fuzzer."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MOST_BYTES = 4_096
_RAW = 1
"""The decision that the input brings its own preface."""


class _Recorder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: dict[Any, bytearray] = {}

    def wrap(self, say: Any) -> Any:
        def said(raw: Any, *parts: Any) -> None:
            data = b"".join(p if isinstance(p, bytes) else p.serialize() for p in parts)
            self._said.setdefault(raw, bytearray()).extend(data)
            say(raw, data)

        return said

    def pytest_collection_finish(self) -> None:
        from raw import Raw  # on the path only since the tests' conftest was read

        Raw.say = self.wrap(Raw.say)

    def pytest_sessionfinish(self) -> None:
        for data in map(bytes, self._said.values()):
            whole = data.startswith(_PREFACE)
            seed = bytes([0 if whole else _RAW, 7, 7])
            seed += (data.removeprefix(_PREFACE) if whole else data)[:_MOST_BYTES]
            (self._folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Recorder(Path(os.environ["FUZZ_SEEDS"])))
