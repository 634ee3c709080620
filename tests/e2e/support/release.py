"""The chart's release, through Helm's own engine."""

from __future__ import annotations

from typing import Any

import helm_python as helm
from rendering import CHART

NAMESPACE = "device-api-e2e"
RELEASE = "device-api-server"
SECONDS = 120

Values = dict[str, Any]


class Release:
    """``values`` are those that it is installed with."""

    def __init__(self, helm_config: helm.Config, values: Values) -> None:
        self.helm = helm_config
        self.values = values

    def install(self) -> None:
        self.helm.install(
            CHART,
            RELEASE,
            self.values,
            namespace=NAMESPACE,
            create_namespace=True,
            wait="watcher",
            timeout=SECONDS,
        )

    def upgrade(self, **values: Values) -> None:
        """To these values on top of the release's own."""
        self.helm.upgrade(
            CHART,
            RELEASE,
            {**self.values, **values},
            namespace=NAMESPACE,
            wait="watcher",
            timeout=SECONDS,
        )

    def roll_back(self) -> None:
        self.helm.rollback(RELEASE, wait="watcher", timeout=SECONDS)

    def test(self) -> None:
        """`helm test`. Raises Helm's error with what failed."""
        self.helm.test(RELEASE, timeout=SECONDS, logs=True)

    @property
    def revision(self) -> int:
        return len(self.helm.history(RELEASE))

    def uninstall(self) -> None:
        self.helm.uninstall(RELEASE, wait="watcher", timeout=SECONDS, ignore_not_found=True)
