"""What each kind of GPU looks like when new. The facts are in models/*.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Model:
    name: str
    gpus: int
    links: int
    driver_version: str
    cuda_version: int
    signals: Mapping[str, int | tuple[int, ...]]

    def row(self, signal: str, width: int) -> tuple[int, ...]:
        """The values a new GPU has in this signal's row."""
        value = self.signals[signal]
        if isinstance(value, tuple):
            return value
        return (value,) * (self.links if signal.startswith("nvlink-") else width)


def model_names() -> list[str]:
    return sorted(path.stem for path in _DIRECTORY.glob("*.toml"))


def load_model(name: str) -> Model:
    with (_DIRECTORY / f"{name}.toml").open("rb") as file:
        facts = tomllib.load(file)
    signals = facts["signals"]
    return Model(
        name=facts["name"],
        gpus=facts["gpus"],
        links=facts["links"],
        driver_version=facts["driver-version"],
        cuda_version=facts["cuda-version"],
        signals={
            signal: tuple(value) if isinstance(value, list) else value
            for signal, value in signals.items()
        },
    )
