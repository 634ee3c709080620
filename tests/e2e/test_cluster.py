"""The image as the chart's DaemonSet on a real cluster. The tests share one release, in order."""

import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from cluster import NODE
from gpu_node import GPUS, RESOURCE
from kubectl import APPLICATION
from node_consumer import (
    faults,
    gpu_of,
    wait_for_faults,
    wait_for_ready,
    wait_until_all_ready,
    wait_until_listed_again,
)
from polling import SECONDS, eventually
from rendering import render

pytestmark = pytest.mark.timeout(600)

DATABASE = Path("/var/lib/device-api/state.db")


def restarts(pod):
    return sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


def worker(name, values):
    """A pod that computes on one GPU, as far as Kubernetes can tell."""
    image = render(values).container("server")["image"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "worker"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "worker",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                    "resources": {"limits": {RESOURCE: 1}},
                }
            ],
        },
    }


def test_every_pod_is_ready_and_nothing_was_restarted(kubectl, release, node):
    status = kubectl.get("daemonset", "device-api-server")["status"]
    assert status["desiredNumberScheduled"] > 0, "no node matches the chart's nodeSelector"
    assert status["numberReady"] == status["desiredNumberScheduled"]
    assert [restarts(pod) for pod in kubectl.pods()] == [0] * status["numberReady"]
    command = ("device-api", "get", "gpus", "-o", "json")
    said = kubectl("exec", "daemonset/device-api-server", "--", *command)
    assert node is None or len(json.loads(said)["items"]) == GPUS


def test_helm_test_passes(release, stopwatch):
    release.test()
    stopwatch("helm test")


def uids(pods):
    return {pod["metadata"]["uid"] for pod in pods}


def test_upgrade_and_rollback_replace_the_pods(kubectl, release, node):
    if node is not None:
        pytest.skip("done below, with a consumer on the node")
    revision, before = release.revision, uids(kubectl.pods())
    release.upgrade(logging={"verbosity": 1})
    between = uids(kubectl.pods())
    release.roll_back()
    after = uids(kubectl.pods())
    assert release.revision == revision + 2
    assert before
    assert between.isdisjoint(before)
    assert after.isdisjoint(between)


def test_upgrade_and_rollback_keep_a_consumer_converging(
    own_node, kubectl, release, informer, stopwatch
):
    gone = []
    informer.add_handler(on_delete=gone.append)
    wait_until_all_ready(informer)
    revision, before = release.revision, uids(kubectl.pods())
    failures = informer.progress.failures
    release.upgrade(logging={"verbosity": 1})
    between = uids(kubectl.pods())
    assert between.isdisjoint(before)
    stopwatch("helm upgrade, until the new pod was ready")
    own_node.breaks(2)
    wait_for_ready(informer, 2, "False")
    stopwatch("XID 79: not ready at the consumer")
    told, listed = wait_for_faults(informer, 2), informer.progress.lists
    release.roll_back()
    assert uids(kubectl.pods()).isdisjoint(between)
    assert release.revision == revision + 2
    stopwatch("helm rollback, until the old configuration was ready")
    wait_until_listed_again(informer, listed)
    wait_for_ready(informer, 0, "True")
    assert faults(gpu_of(informer, 2)) == told
    own_node.is_repaired(2)
    wait_until_all_ready(informer)
    stopwatch("reset: ready at the consumer")
    assert not gone, "a GPU vanished on the way"
    assert informer.progress.failures > failures, "the consumer was never cut off"


def test_the_kubelet_takes_the_plugin_and_hands_out_a_gpu(
    own_node, kubectl, plugin, values, informer, stopwatch
):
    stopwatch("the plugin registered, 8 are allocatable")
    kubectl("apply", "--filename=-", given=worker("worker", values))

    def runs():
        return kubectl.get("pod", "worker")["status"]["phase"] == "Running"

    eventually(runs, SECONDS, "the pod runs")
    stopwatch("a pod that asks for a GPU runs")
    environment = kubectl("exec", "worker", "--", "env").splitlines()
    (given,) = (line for line in environment if line.startswith("NVIDIA_VISIBLE_DEVICES="))
    assert given.partition("=")[2] in {gpu.spec.uuid for gpu in informer.lister.list()}
    kubectl("delete", "pod", "worker")


def test_a_fault_and_its_recovery_change_what_is_allocatable(own_node, plugin, stopwatch):
    stopwatch("(preparing)")
    own_node.breaks(6)
    own_node.wait_for_allocatable(GPUS - 1)
    stopwatch("XID 79: allocatable 8 -> 7")
    own_node.is_repaired(6)
    own_node.wait_for_allocatable(GPUS)
    stopwatch("reset: allocatable 7 -> 8")


def test_a_deleted_pod_comes_back_with_its_faults(own_node, kubectl, plugin, informer, stopwatch):
    wait_until_all_ready(informer)
    own_node.breaks(3)
    told, listed = wait_for_faults(informer, 3), informer.progress.lists
    own_node.wait_for_allocatable(GPUS - 1)
    (pod,) = kubectl.pods()
    stopwatch("(a fault)")
    kubectl("delete", "pod", pod["metadata"]["name"])
    kubectl.ready_pod(other_than=pod["metadata"]["uid"])
    stopwatch("kubectl delete pod, until the next one was ready")
    wait_until_listed_again(informer, listed)
    wait_for_ready(informer, 0, "True")
    # Of the same moment: it was remembered, not found again.
    assert faults(gpu_of(informer, 3)) == told
    own_node.wait_for_allocatable(GPUS - 1)
    own_node.is_repaired(3)
    own_node.wait_for_allocatable(GPUS)


def test_after_a_restart_of_the_kubelet_the_plugin_registers_again(
    own_node, kubectl, plugin, informer, stopwatch
):
    wait_until_all_ready(informer)
    (before,) = kubectl.pods()
    registrations, failures = plugin.said.count('"registered"'), informer.progress.failures
    own_node.cluster.kubelet.stop(signal.SIGKILL)
    own_node.cluster.kubelet.start()
    what = "the plugin registers again"
    eventually(lambda: plugin.said.count('"registered"') > registrations, SECONDS, what)
    own_node.cluster.wait_until_node_is_ready()
    own_node.wait_for_allocatable(GPUS)
    stopwatch("kubelet killed and started, until 8 were allocatable")
    own_node.breaks(1)
    own_node.wait_for_allocatable(GPUS - 1)
    own_node.is_repaired(1)
    own_node.wait_for_allocatable(GPUS)
    after = kubectl.ready_pod()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert restarts(after) == restarts(before)
    assert informer.progress.failures == failures, "consumers noticed"


def test_a_drained_node_is_still_watched(own_node, kubectl, plugin, informer, values, stopwatch):
    wait_until_all_ready(informer)
    (before,) = kubectl.pods()
    failures = informer.progress.failures
    kubectl("apply", "--filename=-", given=worker("drained", values))
    kubectl("wait", "pod/drained", "--for=condition=Ready", "--timeout=60s")
    stopwatch("(a pod with a GPU)")
    kubectl("drain", NODE, "--ignore-daemonsets", "--force", "--timeout=60s", seconds=90)
    stopwatch("kubectl drain")
    assert not kubectl.pods("app=worker")
    own_node.breaks(4)
    wait_for_ready(informer, 4, "False")
    own_node.is_repaired(4)
    wait_for_ready(informer, 4, "True")
    after = kubectl.ready_pod()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert informer.progress.failures == failures
    kubectl("uncordon", NODE)


def test_after_a_reboot_nothing_is_believed_until_the_driver_is_there(
    own_node, kubectl, informer, stopwatch
):
    wait_until_all_ready(informer)
    own_node.breaks(5)
    wait_for_ready(informer, 5, "False")
    (before,) = kubectl.pods()
    stopwatch("(a fault)")
    power_fails(own_node.cluster)
    # The driver comes up late, as one that is itself a pod does.
    own_node.is_repaired(5)
    own_node.driver.uninstall_library()
    boots(own_node.cluster)
    eventually(lambda: restarts_again(kubectl, before), SECONDS, "the pod's containers start")

    def is_doubted():
        gpu = gpu_of(informer, 5)
        return gpu.ready == "Unknown" and not faults(gpu)

    eventually(is_doubted, SECONDS, "the fault is of another boot")
    events = kubectl("exec", before["metadata"]["name"], "--", "device-api", "events")
    assert "the node was booted since" in events
    assert {gpu.ready for gpu in informer.lister.list()} == {"Unknown"}
    own_node.driver.install_library()
    wait_until_all_ready(informer)
    kubectl.ready_pod()
    stopwatch("power loss and boot, until 8 GPUs were ready")


def restarts_again(kubectl, before):
    (pod,) = kubectl.pods()
    assert pod["metadata"]["uid"] == before["metadata"]["uid"]
    return restarts(pod) > restarts(before)


def power_fails(cluster):
    """Everything on the node ends at once, and what is in memory is lost."""
    cluster.kubelet.stop(signal.SIGKILL)
    cluster.kill_containers()
    cluster.containerd.stop(signal.SIGKILL)
    cluster.kill_shims()
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(("/run/containerd/", "/run/netns/")):
            subprocess.run(["umount", "--lazy", place], check=True)
    for lost in ("containerd", "netns", "device-api", "device-api-provider"):
        shutil.rmtree(Path("/run") / lost)


def boots(cluster):
    """As after a boot: the kernel's boot id is another one than the one that was kept."""
    with sqlite3.connect(DATABASE) as database:
        database.execute("UPDATE boot SET boot_id = 'the boot before'")
    database.close()
    cluster.containerd.start()
    cluster.wait_for_containerd()
    cluster.kubelet.start()
    cluster.wait_until_node_is_ready()


def test_uninstall_leaves_the_directories_and_no_socket(kubectl, release, node, stopwatch):
    release.uninstall()

    def is_gone():
        return not kubectl.get("pods", f"--selector={APPLICATION}")["items"]

    eventually(is_gone, SECONDS, "every pod ends")
    stopwatch("helm uninstall")
    if node is not None:
        assert not Path("/run/device-api/device.sock").exists()
        assert DATABASE.exists()
