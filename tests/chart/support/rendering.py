"""The chart, rendered by Helm's own engine."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from helm_python import _native

CHART = Path(__file__).resolve().parents[3] / "charts" / "device-api-server"
OPERATOR = "monitoring.coreos.com/v1"

Object = dict[str, Any]


class Rendered:
    """The objects of one release."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        self.objects: list[Object] = [
            document
            for path, text in sorted(files.items())
            if path.endswith(".yaml")
            for document in yaml.load_all(text, _NoDuplicates)
            if document
        ]

    def of_kind(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def only(self, kind: str) -> Object:
        (found,) = self.of_kind(kind)
        return found

    @property
    def pods(self) -> list[Object]:
        """The specs of every pod that comes of it, the test's included."""
        specs = [each["spec"] for each in self.of_kind("Pod")]
        return specs + [each["spec"]["template"]["spec"] for each in self.of_kind("DaemonSet")]

    @property
    def pod(self) -> Object:
        """The spec of the DaemonSet's pods."""
        return self.only("DaemonSet")["spec"]["template"]["spec"]

    def container(self, name: str) -> Object:
        (found,) = (each for each in containers(self.pod) if each["name"] == name)
        return found

    @property
    def server_toml(self) -> str:
        (config,) = (
            each["data"] for each in self.of_kind("ConfigMap") if "server.toml" in each["data"]
        )
        text: str = config["server.toml"]
        return text

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads(self.server_toml)


class _NoDuplicates(yaml.SafeLoader):
    """Refuses what the API server's parser would silently merge."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep=deep)


def containers(pod: Object) -> Iterator[Object]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def render(
    values: Mapping[str, Any] | None = None,
    *,
    name: str = "device-api-server",
    kubernetes: str = "1.33",
    chart: Path = CHART,
) -> Rendered:
    """What `helm template` prints. Raises Helm's error if the values are refused."""
    options = {
        "name": name,
        "namespace": "device-api",
        "kube_version": f"v{kubernetes}.0",
        "api_versions": [OPERATOR],
    }
    # Chart.render cannot set the cluster's version.
    text = _native.call_string(
        "helm_render", _load(chart)._raw(), json.dumps(dict(values or {})), json.dumps(options)
    )
    return Rendered(json.loads(text))


@cache
def _load(chart: Path) -> helm.Chart:
    """A chart as it was when it was first rendered."""
    return helm.Chart.load(chart)
