"""A cluster through kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from polling import SECONDS, eventually

Object = dict[str, Any]

APPLICATION = "app.kubernetes.io/name=device-api-server"


class Kubectl:
    """kubectl on one cluster and in one namespace."""

    def __init__(self, program: str, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.program = program
        self._command = [program, f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]

    def __call__(self, *arguments: str, given: object = None, seconds: float = SECONDS) -> str:
        """What it prints. ``given`` is an object that it reads. Raises CalledProcessError."""
        return subprocess.run(
            [*self._command, *arguments],
            input=json.dumps(given) if given is not None else "",
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds,
        ).stdout

    def get(self, *arguments: str) -> Object:
        found: Object = json.loads(self("get", *arguments, "--output=json"))
        return found

    def pods(self, selector: str = APPLICATION) -> list[Object]:
        """The pods that are not on their way out."""
        items: list[Object] = self.get("pods", f"--selector={selector}")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def ready_pod(self, *, other_than: str = "", seconds: float = SECONDS) -> Object:
        """The only pod of the DaemonSet, when it is ready and another one than that uid."""

        def found() -> Object | None:
            pods = self.pods()
            fresh = [pod for pod in pods if pod["metadata"]["uid"] != other_than]
            return fresh[0] if len(pods) == 1 and fresh and is_ready(fresh[0]) else None

        return eventually(found, seconds, "a ready pod")

    def allocatable(self, node: str, resource: str = "nvidia.com/gpu") -> int:
        """How many of them the node's kubelet offers."""
        return int(self.get("node", node)["status"]["allocatable"].get(resource, 0))


def is_ready(thing: Object) -> bool:
    """Whether a pod, a node or a GPU says that it is ready."""
    conditions = thing["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
