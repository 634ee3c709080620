"""The options of the Kubernetes publisher: the table ``[publishers.kubernetes]``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from device_api_core.plugins import InvalidOption

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where every pod with a service account finds its token and the cluster's authority."""

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_NODE = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")

# Conditions that the kubelet and the controllers of the control plane own.
_TAKEN = frozenset({"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"})


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """Every field has a default that suits a pod of the cluster with ``$NODE_NAME`` set.

    Raises:
        InvalidOption: a value is out of range.
    """

    node_name: str = ""
    """The Node to write to; empty: ``$NODE_NAME``."""

    condition_type: str = "GPUHealthy"
    """The type of the condition. True is good, as in Ready."""

    events: bool = True
    """Also write an Event when a GPU becomes bad, bad for another reason, or good again."""

    events_per_minute: int = 10
    """More are suppressed, and counted; as many may come at once after a quiet time."""

    interval_seconds: float = 10.0
    """At most once in this time the condition is written anew."""

    server: str = ""
    """URL of the API server; empty: that of the cluster in whose pod this runs."""

    token_file: str = f"{ACCOUNT}/token"
    """The token of the service account. Read again for each request, for it is renewed."""

    ca_file: str = f"{ACCOUNT}/ca.crt"
    """Certificates (PEM) of the authorities that may have signed the API server's."""

    def __post_init__(self) -> None:
        if self.node_name and not _NODE.fullmatch(self.node_name):
            raise InvalidOption(f"option 'node_name' is no name of a Node: {self.node_name!r}")
        if not _TYPE.fullmatch(self.condition_type) or self.condition_type in _TAKEN:
            raise InvalidOption(
                "option 'condition_type' must be a CamelCase word other than "
                f"{', '.join(sorted(_TAKEN))}, not {self.condition_type!r}"
            )
        if not 0 < self.interval_seconds < math.inf:
            raise InvalidOption("option 'interval_seconds' must be above zero")
        if self.events_per_minute < 1:
            raise InvalidOption(
                "option 'events_per_minute' must be 1 or more; to write none, set events = false"
            )
        if self.server:
            _check_server(self.server)

    def node(self, environ: Mapping[str, str]) -> str:
        """The Node's name.

        Raises:
            InvalidOption: nothing says it.
        """
        name = self.node_name or environ.get("NODE_NAME", "")
        if not _NODE.fullmatch(name):
            raise InvalidOption(
                "which Node is this? Set NODE_NAME (in a pod by fieldRef: spec.nodeName) or option "
                f"'node_name' of [publishers.kubernetes] to its name; {name!r} is none"
            )
        return name

    def url(self, environ: Mapping[str, str]) -> str:
        """The API server's URL.

        Raises:
            InvalidOption: nothing says it.
        """
        if self.server:
            return self.server.rstrip("/")
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        port = environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise InvalidOption(
                "not in a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set): "
                "name the API server with option 'server' of [publishers.kubernetes]"
            )
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        good = good and parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good or not server.isprintable() or " " in server:
        raise InvalidOption(
            "option 'server' must be a URL like https://10.96.0.1:443, without credentials: the "
            "token is sent to it"
        )
