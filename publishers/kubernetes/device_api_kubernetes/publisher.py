"""The Kubernetes publisher: keeps a condition of the Node, and tells of its GPUs by Events."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_api_core.plugins import Count, InvalidOption, Publisher
from device_api_core.resources import ConditionStatus, Gpu
from device_api_kubernetes.api import ApiServer, Connection
from device_api_kubernetes.condition import condition_to_send, judge
from device_api_kubernetes.events import Allowance, Told, event_of
from device_api_kubernetes.options import KubernetesOptions

_log = logging.getLogger(__name__)


class KubernetesPublisher(Publisher):
    """Shows the health of all GPUs of a node as one condition of its Node."""

    name = "kubernetes"
    contract_version = 1

    def __init__(
        self,
        options: KubernetesOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or KubernetesOptions()
        self.interval_seconds = self._options.interval_seconds
        self._clock = clock
        self._told = Told()
        self._allowance = Allowance(self._options.events_per_minute, clock())
        self._suppressed = 0

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
        # So that it is there before there is something to count.
        count("events_suppressed", 0)
        with self._api.connected() as api:
            node = api.node(self._node)
            shown = _shown(node, self._options.condition_type)
            if not stale:
                self._told.recall(gpus, shown)
            self._set_condition(api, gpus, stale, shown)
            if self._options.events and not stale:
                self._tell(api, gpus, str(node.get("metadata", {}).get("uid", "")), count)

    def _set_condition(
        self, api: Connection, gpus: Sequence[Gpu], stale: str, shown: Mapping[str, Any]
    ) -> None:
        if stale and not gpus and shown.get("status") == ConditionStatus.FALSE:
            # Whoever saw that GPU fail is gone, and nobody has seen it recover.
            return
        verdict = judge(gpus, stale)
        type_ = self._options.condition_type
        condition = condition_to_send(verdict, type_, shown, datetime.now(UTC))
        if condition is None:
            return
        api.set_condition(self._node, condition)
        if shown.get("message") != verdict.message:
            facts = {"type": type_, "status": verdict.status.value, "why": verdict.message}
            _log.info("condition is set", extra=facts)

    def _tell(self, api: Connection, gpus: Sequence[Gpu], uid: str, count: Count) -> None:
        left_out = 0
        for gpu in self._told.news(gpus):
            if self._allowance.has_room(self._clock()):
                now, suppressed = datetime.now(UTC), self._suppressed
                api.create_event(event_of(gpu, self._node, uid, now=now, suppressed=suppressed))
                self._allowance.take()
                self._suppressed = 0
            else:
                count("events_suppressed")
                self._suppressed += 1
                left_out += 1
            self._told.tell(gpu)
        if left_out:
            facts = {"events": left_out, "events_per_minute": self._options.events_per_minute}
            _log.warning("events are suppressed", extra=facts)


def _shown(node: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """The Node's present condition of that type, empty if it has none."""
    conditions = node.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type_), {})
