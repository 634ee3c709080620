"""Which server the command line talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import click

from device_api_core.client import Clientset, Options, Tls
from device_api_core.client.targets import default_provider_target, default_target, parse_target


@dataclass(frozen=True, slots=True)
class Session:
    """The endpoints, the deadline and the certificates that the global options chose."""

    server: str
    provider_server: str
    timeout_seconds: float
    tls: Tls | None = None

    @classmethod
    def of(cls, server: str | None, provider_server: str | None, timeout_seconds: float) -> Self:
        """What the options name, else what the environment does."""
        return cls(
            parse_target(server) if server else default_target(),
            parse_target(provider_server) if provider_server else default_provider_target(),
            timeout_seconds,
        )

    def connect(self) -> Clientset:
        """Reads at the consumers' endpoint, everything else at the providers' one."""
        return self._connect(self.server)

    def connect_as_operator(self) -> Clientset:
        """Everything at the providers' endpoint, which serves reads, too: what an operator is
        shown before an act is the state of the server that will be acted on."""
        return self._connect(self.provider_server)

    def _connect(self, server: str) -> Clientset:
        return Clientset.connect(
            server,
            provider_target=self.provider_server,
            options=Options(self.timeout_seconds, tls=self.tls),
        )


pass_session = click.make_pass_decorator(Session)
"""Gives a command the session as its first argument."""
