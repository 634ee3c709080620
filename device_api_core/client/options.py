"""How to reach a server: deadlines, retries, keepalive, TLS; and their defaults."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from device_api_core.client.errors import ConfigurationError
from device_api_core.client.retry import RetryPolicy
from device_api_core.client.targets import socket_path

DEFAULT_TIMEOUT_SECONDS = 10.0
"""Twice the time that a provider may hold reads back, so a healthy server always answers."""

TIMEOUT_VARIABLE = "NVIDIA_DEVICE_API_TIMEOUT_SECONDS"
CA_VARIABLE = "NVIDIA_DEVICE_API_CA_FILE"
CERTIFICATE_VARIABLE = "NVIDIA_DEVICE_API_CERTIFICATE_FILE"
KEY_VARIABLE = "NVIDIA_DEVICE_API_KEY_FILE"
SERVER_NAME_VARIABLE = "NVIDIA_DEVICE_API_SERVER_NAME"
"""Environment variables that are the defaults of the options of these names."""

_CHANNEL_OPTIONS = (
    # A node-local server is never behind a proxy, whatever the environment of a shell says.
    ("grpc.enable_http_proxy", 0),
    # A restarted server should be found within seconds; the default pause grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Otherwise two clients of one process share a connection and its backoff.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Pings on a connection that carries a call: one after ``time_seconds`` of silence; no answer
    within ``timeout_seconds`` breaks it. It finds a dead TCP peer; a server that hangs still
    answers pings, which is why informers probe."""

    time_seconds: float = 30.0
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS by files in PEM. Without ``ca_file`` the system's authorities are trusted.

    ``certificate_file`` and ``key_file`` are this client's own and go together. ``server_name``
    is what the server's certificate must say, if that is not the target's host. The files are read
    once, when the clientset is made.
    """

    ca_file: str | os.PathLike[str] | None = None
    certificate_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ConfigurationError("TLS: certificate_file and key_file go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ``ConfigurationError`` for one that cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.certificate_file),
        )


@dataclass(frozen=True, slots=True)
class Options:
    """Everything about calls that is not the call. ``tls`` is ``None`` for a plain connection, as
    one to a unix socket always is; ``keepalive`` for none; ``wait_for_ready`` lets calls wait, up
    to their deadline, for a server that is not there yet, instead of failing."""

    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    wait_for_ready: bool = False
    keepalive: Keepalive | None = field(default_factory=Keepalive)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if not 0 < self.timeout_seconds < math.inf:
            raise ConfigurationError(f"a deadline of {self.timeout_seconds} s is none")

    @classmethod
    def choose(
        cls, options: Options | None = None, timeout_seconds: float | None = None
    ) -> Options:
        """What is given, else what the environment says."""
        if options is None:
            options = cls(default_timeout_seconds(), tls=default_tls())
        if timeout_seconds is not None:
            options = replace(options, timeout_seconds=timeout_seconds)
        return options

    def credentials(self, target: str) -> grpc.ChannelCredentials | None:
        """What a channel to ``target`` needs, ``None`` for a plain one. Who may open a unix socket
        is for its file to say, so one clientset reads there and reports over TLS elsewhere."""
        if self.tls is None or socket_path(target) is not None:
            return None
        return self.tls.credentials()

    def channel_options(self) -> list[tuple[str, int | str]]:
        """The same for a gRPC channel."""
        options: list[tuple[str, int | str]] = list(_CHANNEL_OPTIONS)
        if self.keepalive is not None:
            options += [
                ("grpc.keepalive_time_ms", round(self.keepalive.time_seconds * 1_000)),
                ("grpc.keepalive_timeout_ms", round(self.keepalive.timeout_seconds * 1_000)),
            ]
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def default_timeout_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """From the environment, else 10 s. Raises ``ConfigurationError`` if it is no number."""
    text = environ.get(TIMEOUT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_TIMEOUT_SECONDS
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{TIMEOUT_VARIABLE} must be seconds, not {text!r}") from error


def default_tls(environ: Mapping[str, str] = os.environ) -> Tls | None:
    """From the environment: TLS if one of its variables is set, else ``None``."""
    variables = (CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE, SERVER_NAME_VARIABLE)
    named = [environ.get(variable, "").strip() or None for variable in variables]
    return Tls(*named) if any(named) else None


def _read(file: str | os.PathLike[str] | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS: cannot read {file}: {error.strerror}") from error
