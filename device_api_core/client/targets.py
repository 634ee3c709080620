"""Where a server is: gRPC targets, their defaults, and bare socket paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

DEFAULT_TARGET = "unix:///var/run/device-api/device.sock"
DEFAULT_PROVIDER_TARGET = "unix:///var/run/device-api-provider/provider.sock"

TARGET_VARIABLES = ("NVIDIA_DEVICE_API", "NVIDIA_DEVICE_API_SOCK", "NVIDIA_DEVICE_API_PATH")
"""Environment variables that name the consumers' endpoint, the first non-empty one counts.
Clients of this API never agreed on one name."""

PROVIDER_TARGET_VARIABLE = "DEVICE_API_PROVIDER_SOCKET"
"""The environment variable that names the providers' socket."""


def parse_target(text: str) -> str:
    """A gRPC target from what people write: a target stays, a path becomes a unix socket.

    A text without a colon is a path, since a TCP target without a port is of no use here.
    """
    text = text.strip()
    if ":" in text and not text.startswith(("/", ".", "~")):
        return text
    return f"unix://{Path(text).expanduser().absolute()}"


def default_target(environ: Mapping[str, str] = os.environ) -> str:
    """The consumers' endpoint: from the environment, else the socket the server makes."""
    named = (environ.get(variable, "").strip() for variable in TARGET_VARIABLES)
    return parse_target(next(filter(None, named), DEFAULT_TARGET))


def default_provider_target(environ: Mapping[str, str] = os.environ) -> str:
    """The providers' endpoint: from the environment, else the socket the server makes."""
    return parse_target(
        environ.get(PROVIDER_TARGET_VARIABLE, "").strip() or DEFAULT_PROVIDER_TARGET
    )


def socket_path(target: str) -> Path | None:
    """The file of a unix target, ``None`` for any other target."""
    if not target.startswith("unix:"):
        return None
    return Path(target.removeprefix("unix:").removeprefix("//"))


@dataclass(frozen=True, slots=True)
class Targets:
    """The endpoints of one server, as gRPC targets; the two may be one."""

    consumers: str
    providers: str

    @classmethod
    def choose(cls, target: str | None, provider_target: str | None) -> Self:
        """What is given, else what the environment says. A given target serves providers too,
        unless another is given: a server with one socket serves all on it."""
        if provider_target is None:
            provider_target = default_provider_target() if target is None else target
        consumers = parse_target(target) if target is not None else default_target()
        return cls(consumers, parse_target(provider_target))
