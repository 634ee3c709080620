"""The README's commands for Kubernetes, as they are printed."""

import json
from pathlib import Path

import helm_python as helm
import pytest
from gpu_node import GPUS
from kubectl import Kubectl, is_ready
from printed import helm_commands

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = list(helm_commands(ROOT / "README.md"))
SECONDS = 120


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_quick_start_works_as_printed(command, node, stopwatch):
    if node is None:
        pytest.skip("not on another cluster: its nodes may have a server already")
    cluster = node.cluster
    kubectl = Kubectl(cluster.kubectl.program, cluster.kubeconfig, command.namespace)
    with helm.Config(kubeconfig_path=cluster.kubeconfig, namespace=command.namespace) as config:
        config.install(
            ROOT / command.chart,
            command.name,
            command.values,
            namespace=command.namespace,
            create_namespace="--create-namespace" in command.flags,
            wait="watcher",
            timeout=SECONDS,
        )
        try:
            kubectl.ready_pod()
            stopwatch(f"helm install {command}")
            get_gpus = ("device-api", "get", "gpus", "-o", "json")
            said = kubectl("exec", "daemonset/device-api-server", "--", *get_gpus)
        finally:
            config.uninstall(command.name, wait="watcher", timeout=SECONDS)
    # Without a provider nobody vouches for what is remembered of an earlier release.
    assert sum(map(is_ready, json.loads(said)["items"])) == (GPUS if command.values else 0)
