"""The plugin's settings."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SOCKET_PATH_BYTES = 107
"""The kernel's limit for the path of a unix socket."""

_DOMAIN = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_QUALIFIED = re.compile(rf"{_DOMAIN}/[A-Za-z0-9]([-._A-Za-z0-9]{{0,61}}[A-Za-z0-9])?")

_TOKEN_LETTERS = 8


class InvalidSetting(Exception):
    """A setting cannot be used; the message names it and says what is allowed."""


class DeviceList(StrEnum):
    """How a container is told of its GPUs."""

    ENVVAR = "envvar"
    """``NVIDIA_VISIBLE_DEVICES``, for NVIDIA's container runtime."""
    CDI = "cdi"
    """CDI device names, for a container runtime that reads CDI specifications."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field has a default that suits a node.

    Raises:
        InvalidSetting: a value is out of range or malformed.
    """

    target: str | None = None
    """Where the Device API is, ``None`` to let the client choose."""

    resource_name: str = "nvidia.com/gpu"
    """What pods ask for."""

    plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    """The kubelet's directory of device plugins."""

    max_age_seconds: float = 30.0
    """No GPU is called healthy when what is known is older than this."""

    device_list: DeviceList = DeviceList.ENVVAR

    cdi_kind: str = "nvidia.com/gpu"
    """Vendor and class of the CDI devices, whose names are the GPUs' UUIDs."""

    poll_seconds: float = 1.0
    """Time between two looks at the sockets of the kubelet and of the plugin."""

    def __post_init__(self) -> None:
        for name in ("max_age_seconds", "poll_seconds"):
            if not getattr(self, name) > 0:
                raise InvalidSetting(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in ("resource_name", "cdi_kind"):
            if not _QUALIFIED.fullmatch(getattr(self, name)):
                raise InvalidSetting(
                    f'{name} must be like "nvidia.com/gpu", not "{getattr(self, name)}"'
                )
        socket = self.socket("0" * _TOKEN_LETTERS)
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
            raise InvalidSetting(
                f"plugin_dir is too long: a socket's path has at most {SOCKET_PATH_BYTES} bytes, "
                f"and {socket} is longer"
            )

    def socket(self, token: str) -> Path:
        """The path of a socket of the plugin; the token tells it from earlier ones."""
        return self.plugin_dir / f"device-api-{self.resource_name.replace('/', '-')}-{token}.sock"

    def new_socket(self) -> Path:
        """A path that no socket has had."""
        return self.socket(secrets.token_hex(_TOKEN_LETTERS // 2))

    @property
    def kubelet_socket(self) -> Path:
        """Where the kubelet takes registrations."""
        return self.plugin_dir / "kubelet.sock"
