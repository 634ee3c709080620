"""The Kubernetes publisher: keeps a condition of the Node, and tells of its GPUs by Events."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_api_core.plugins import Count, InvalidOption, Publisher
from device_api_core.resources import Gpu
from device_api_kubernetes.api import ApiServer, Connection
from device_api_kubernetes.condition import condition_to_send, judge
from device_api_kubernetes.options import KubernetesOptions

_log = logging.getLogger(__name__)


class KubernetesPublisher(Publisher):
    """Shows the health of all GPUs of a node as one condition of its Node."""

    name = "kubernetes"
    contract_version = 1

    def __init__(self, options: KubernetesOptions | None = None) -> None:
        self._options = options or KubernetesOptions()
        self.interval_seconds = self._options.interval_seconds

    def prepare(self) -> None:
        """Find the Node's name, the API server and the files that it takes.

        Raises:
            InvalidOption: one of them is missing.
        """
        options = self._options
        self._node = options.node(os.environ)
        for option, path in (("token_file", options.token_file), ("ca_file", options.ca_file)):
            if not Path(path).is_file():
                raise InvalidOption(
                    f"there is no file {path}: in a pod, mount the token of a service account; "
                    f"elsewhere set option {option!r} of [publishers.kubernetes]"
                )
        self._api = ApiServer(
            options.url(os.environ), token_file=options.token_file, ca_file=options.ca_file
        )

    def publish(self, gpus: Sequence[Gpu], *, stale: str, count: Count) -> None:
        """The condition first: others act on it."""
        with self._api.connected() as api:
            node = api.node(self._node)
            shown = _shown(node, self._options.condition_type)
            self._set_condition(api, gpus, stale, shown)

    def _set_condition(
        self, api: Connection, gpus: Sequence[Gpu], stale: str, shown: dict[str, Any] | None
    ) -> None:
        if stale and not gpus and (shown or {}).get("status") == "False":
            # Whoever saw that GPU fail is gone, and nobody has seen it recover.
            return
        verdict = judge(gpus, stale)
        type_ = self._options.condition_type
        condition = condition_to_send(verdict, type_, shown, datetime.now(UTC))
        if condition is None:
            return
        api.set_condition(self._node, condition)
        if (shown or {}).get("message") != verdict.message:
            facts = {"type": type_, "status": verdict.status.value, "why": verdict.message}
            _log.info("condition is set", extra=facts)


def _shown(node: dict[str, Any], type_: str) -> dict[str, Any] | None:
    conditions = node.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type_), None)
