"""The commands for Kubernetes that pages tell people to type, as they are printed."""

import json
import shlex
from pathlib import Path

import helm_python as helm
import pytest
from gpu_node import GPUS
from kubectl import Kubectl, is_ready
from polling import SECONDS
from printed import blocks, helm_commands

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
QUICK_START = list(helm_commands(ROOT / "README.md"))
(LOOK,) = (
    text.splitlines()
    for text in blocks(ROOT / "docs/kubernetes.md", "bash")
    if "rollout status" in text
)


@pytest.mark.parametrize("command", QUICK_START, ids=str)
def test_the_quick_start_works_as_printed(command, node, stopwatch):
    if node is None:
        pytest.skip("not on another cluster: its nodes may have a server already")
    cluster = node.cluster
    kubectl = Kubectl(cluster.kubectl.program, cluster.kubeconfig, "default")
    with helm.Config(kubeconfig_path=cluster.kubeconfig, namespace=command.namespace) as config:
        config.install(
            ROOT / command.chart,
            command.name,
            command.values,
            namespace=command.namespace,
            create_namespace="--create-namespace" in command.flags,
            wait="watcher",
            timeout=int(SECONDS),
        )
        stopwatch(f"helm install {command}")
        try:
            said = [type_in(line, kubectl, config) for line in LOOK]
            get_gpus = shlex.split(LOOK[1])[1:]
            gpus = json.loads(kubectl(*get_gpus, "-o", "json"))["items"]
        finally:
            config.uninstall(command.name, wait="watcher", timeout=int(SECONDS))
    assert "successfully rolled out" in said[0]
    # Without a provider nobody vouches for what is remembered of an earlier release.
    assert sum(map(is_ready, gpus)) == (GPUS if command.values else 0)
    assert all(gpu["metadata"]["name"] in said[1] for gpu in gpus)


def type_in(line, kubectl, config):
    """What a line of the page prints; Helm is there as a library only."""
    program, *words = shlex.split(line)
    if program == "kubectl":
        return kubectl(*words)
    assert (program, *words[:-1]) == ("helm", "-n", "device-api", "test")
    return config.test(words[-1], timeout=int(SECONDS), logs=True)["logs"]
