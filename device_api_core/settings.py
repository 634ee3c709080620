"""The daemon's settings: one documented field each. Flag over environment over file.

The order differs from the reference implementation, where a non-empty environment variable beats
the flag, on purpose: what is typed should win. The file is read by ``configuration``.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_api_core.errors import SettingsError

LOG_FORMATS = ("text", "json")

_ISOLATE = "isolate"
"""The key of a provider's table that is the server's."""


def _setting(default: Any, text: str, *, env: str = "", flag: str = "") -> Any:
    return field(default=default, metadata={"help": text, "env": env, "flag": flag})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Each field's ``metadata`` has its help, and where they differ
    from the field's name its environment variable and its flag."""

    grpc_address: str = _setting(
        "127.0.0.1:50051",
        "TCP address of GpuService for consumers, read-only; empty for none. Beyond loopback "
        "anyone who reaches it can read.",
    )
    unix_socket: str = _setting(
        "/var/run/device-api/device.sock",
        "Unix socket of GpuService for consumers, mode 0660; empty for none.",
    )
    provider_socket: str = _setting(
        "/var/run/device-api-provider/provider.sock",
        "Unix socket for providers and operators (GpuService, ProviderService, Admin), mode 0600; "
        "empty for none.",
    )
    single_socket: bool = _setting(
        False,
        "Serve everything on --unix-socket, as the reference does, and ignore --provider-socket. "
        "Then whoever can read health can also forge it.",
    )
    grpc_provider_address: str = _setting(
        "",
        "TCP address for providers elsewhere (GpuService, ProviderService), only with mutual TLS: "
        "needs --tls-cert-file, --tls-private-key-file and --client-ca-file. A provider may write "
        "only as a name in its certificate.",
    )
    tls_cert_file: str = _setting(
        "",
        "Certificate of this server with its chain, in PEM, for every TCP gRPC address. Read again "
        "when it changes.",
    )
    tls_private_key_file: str = _setting("", "The key of --tls-cert-file, in PEM.")
    client_ca_file: str = _setting(
        "",
        "Authorities in PEM: a client of a TCP gRPC address needs a certificate from one of them. "
        "Use authorities of your own, not the cluster's.",
    )
    tls_operator_name: tuple[str, ...] = _setting(
        (),
        "Whose client certificate has this name may use Admin at --grpc-provider-address; "
        "repeatable. Without one Admin is not served there.",
    )
    dedicated_socket: tuple[str, ...] = _setting(
        (),
        "ID=PATH: a unix socket, mode 0600, through which only the remote provider ID writes, and "
        "the only one through which it does; repeatable.",
    )
    forbid_anonymous: bool = _setting(
        False, "Refuse writes without a provider_id, which anyone at the socket can send."
    )
    max_reads_per_second: int = _setting(
        10_000,
        "Reads a second from one client: the holder of a certificate, a TCP connection, a process "
        "at a unix socket (transport h2) or everybody there. Faster calls wait, then are refused.",
    )
    max_writes_per_second: int = _setting(3_000, "Writes a second from one client, likewise.")
    max_watches: int = _setting(
        2_000,
        "Watches open at a time; one client may have about a quarter of them, a process at a unix "
        "socket (transport h2) three.",
    )
    http_address: str = _setting("127.0.0.1", "Host of the health and metrics ports.")
    health_port: int = _setting(
        8081, "HTTP port of /healthz, /livez, /readyz and /statusz; 0 picks one."
    )
    metrics_port: int = _setting(9090, "HTTP port of /metrics; 0 picks one.")
    shutdown_timeout: float = _setting(
        30.0, "Seconds for running calls and providers to finish at the end."
    )
    shutdown_delay: float = _setting(
        5.0, "Seconds to stay up, not ready, after SIGTERM, so that clients move away first."
    )
    log_format: str = _setting("text", "Log lines as text or json.")
    verbosity: int = _setting(0, "Log detail: 0 or 1, 2 adds the libraries' own.", flag="-v")
    node_name: str = _setting("", "Name of this node; the host name if empty.", env="NODE_NAME")
    provider: tuple[str, ...] = _setting(
        (), "Run this installed provider; repeatable. See `device-api providers`."
    )
    isolate: tuple[str, ...] = _setting(
        (),
        "Run this one of the providers in a process of its own; repeatable. The same as isolate = "
        "true in [providers.NAME].",
    )
    expect_provider: tuple[str, ...] = _setting(
        (), "Not ready before this remote provider has reported once; repeatable."
    )
    require_heartbeat: bool = _setting(
        False, "Every remote provider needs a lease, also one that never sends Heartbeat."
    )
    forget_lost_providers_after: float = _setting(
        86_400.0,
        "Seconds after which a remote provider whose lease ran out counts as gone for good: its "
        "conditions are dropped, but never a fault. 0 keeps them.",
    )
    state_dir: str = _setting(
        "", "Directory for what must survive a restart; empty for none. Created with mode 0700."
    )
    strict_unregister: bool = _setting(
        False, "Refuse to unregister a GPU whole while any provider holds a fault on it."
    )
    transport: str = _setting("grpcio", "gRPC transport: grpcio, or an installed one by name.")
    providers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The file's ``[providers.NAME]`` tables by name: ``isolate``, and the provider's options."""

    def __post_init__(self) -> None:
        listens = (self.grpc_address, self.unix_socket, self.provider_socket)
        if not any((*listens, self.grpc_provider_address)):
            raise SettingsError(
                "nothing to listen on: set --grpc-address, --unix-socket or --provider-socket"
            )
        if self.single_socket and not self.unix_socket:
            raise SettingsError("--single-socket needs --unix-socket")
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(f"--log-format must be text or json, not {self.log_format!r}")
        self._check_ports()
        self._check_tls()
        for name, table in self.providers.items():
            if not isinstance(table.get(_ISOLATE, False), bool):
                raise SettingsError(f"[providers.{name}]: {_ISOLATE} must be true or false")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("shutdown_timeout", "shutdown_delay", "forget_lost_providers_after"):
            # Not "< 0", which lets "nan" pass.
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"--{name.replace('_', '-')} must be 0 or more seconds")
        for name in ("max_reads_per_second", "max_writes_per_second", "max_watches"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be 1 or more")

    def _check_ports(self) -> None:
        for name in ("health_port", "metrics_port"):
            if not 0 <= getattr(self, name) <= 65_535:
                raise SettingsError(f"--{name.replace('_', '-')} must be 0 to 65535")
        if self.health_port == self.metrics_port != 0:
            raise SettingsError("--health-port and --metrics-port must differ")

    def _check_tls(self) -> None:
        if bool(self.tls_cert_file) is not bool(self.tls_private_key_file):
            raise SettingsError("--tls-cert-file and --tls-private-key-file go together")
        if self.client_ca_file and not self.tls_cert_file:
            raise SettingsError("--client-ca-file needs --tls-cert-file")
        if self.grpc_provider_address and not self.client_ca_file:
            raise SettingsError(
                "--grpc-provider-address needs --tls-cert-file, --tls-private-key-file and "
                "--client-ca-file: writes over TCP are taken with mutual TLS only"
            )
        if len(self.dedicated_sockets) != len(self.dedicated_socket):
            raise SettingsError("--dedicated-socket: a provider has one socket")

    @property
    def dedicated_sockets(self) -> dict[str, str]:
        """The paths of --dedicated-socket by provider id."""
        sockets: dict[str, str] = {}
        for text in self.dedicated_socket:
            provider_id, _, path = text.partition("=")
            if not provider_id or not path:
                raise SettingsError(f"--dedicated-socket must be ID=PATH, not {text!r}")
            sockets[provider_id] = path
        return sockets

    @property
    def isolated(self) -> frozenset[str]:
        """The providers that run in a process of their own."""
        tables = (name for name, table in self.providers.items() if table.get(_ISOLATE))
        return frozenset((*self.isolate, *tables))

    @property
    def provider_options(self) -> dict[str, dict[str, object]]:
        """Each provider's own options: its table without the keys that are the server's."""
        return {
            name: {key: value for key, value in table.items() if key != _ISOLATE}
            for name, table in self.providers.items()
        }

    @property
    def node(self) -> str:
        """The node's name."""
        return self.node_name or socket.gethostname()
