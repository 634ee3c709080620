"""The options of the bridge: the table ``[providers.nvsentinel]`` of the configuration."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from device_api_core.plugins import InvalidOption

DEFAULT_SOCKET = "/var/run/device-api-nvsentinel/bridge.sock"
_SOCKET_MODES = ("0600", "0660")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """Every field has a default that suits a node, except ``node_name`` inside a pod.

    Raises:
        InvalidOption: a value is out of its range, or nothing is left to listen on.
    """

    socket: str = DEFAULT_SOCKET
    """Path of the Unix socket that receives events; empty for none."""

    socket_mode: str = "0600"
    """Permissions of the socket: ``0600``, or ``0660`` to let the directory's group in."""

    tcp_address: str = ""
    """``HOST:PORT`` that receives events as well, without encryption; empty for none."""

    token_file: str = ""
    """File with the bearer token that every call must bring; read again when it changes. Empty:
    no token is asked for."""

    node_name: str = ""
    """Name of this node in Kubernetes. Events of other nodes are ignored. Empty: the host's
    name."""

    component_classes: tuple[str, ...] = ("GPU",)
    """Component classes of the events that count. One that is not about GPUs (``NIC``, ``EC2``,
    ``gce_instance``) makes its events count for every GPU of the node."""

    ignored_checks: tuple[str, ...] = ()
    """Names of checks whose events shall have no effect."""

    blind_checks: tuple[str, ...] = ("GpuDcgmConnectivityFailure",)
    """Names of checks whose failure means that nobody looks any more: Unknown instead of False."""

    strict_non_fatal: bool = False
    """Let findings that nobody has to act on turn the condition False, too."""

    pending_limit: int = 1000
    """How many events of GPUs that no provider has registered yet are kept."""

    backlog_limit: int = 20_000
    """How many accepted events may wait for the daemon. Above it calls are refused, and
    NVSentinel sends them again."""

    poll_seconds: float = 2.5
    """Time between two looks at the GPUs that the daemon knows."""

    def __post_init__(self) -> None:
        if not (self.socket or self.tcp_address):
            raise InvalidOption("options 'socket' and 'tcp_address' are both empty: set one")
        if self.socket_mode not in _SOCKET_MODES:
            raise InvalidOption(
                f"option 'socket_mode' must be one of {', '.join(_SOCKET_MODES)}, "
                f"not {self.socket_mode!r}"
            )
        for name in ("pending_limit", "backlog_limit", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise InvalidOption(f"option {name!r} must be above zero")

    @property
    def node(self) -> str:
        """The node whose events count, in lower case."""
        return (self.node_name or socket.gethostname()).casefold()
