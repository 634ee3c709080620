"""What the chart's publisher says in the Kubernetes API, and what its account may do there."""

import re
import signal
import ssl
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import helm_python as helm
import pytest
from cluster import ADDRESS, NODE, TOKEN
from node_consumer import (
    gpu_of,
    wait_for_ready,
    wait_until_all_ready,
    wait_until_listed_again,
)
from polling import SECONDS, eventually
from printed import blocks
from release import NAMESPACE, RELEASE, Release

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
TYPE = "GPUHealthy"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
SIDECAR = "kubernetes-publisher"


@pytest.fixture(scope="module")
def release(node, kubectl, values, stopwatch):
    """In place of that of other tests: one with the publisher, installed, every pod of it ready."""
    if node is None:
        pytest.skip("not on another cluster: it needs the node itself")
    publisher = {"enabled": True, "graceSeconds": 30, "options": {"interval_seconds": 1}}
    with helm.Config(kubeconfig_path=kubectl.kubeconfig, namespace=NAMESPACE) as config:
        release = Release(config, {**values, "kubernetesPublisher": publisher})
        # That of other tests, if they left it.
        release.uninstall()
        release.install()
        stopwatch("helm install with the publisher, every pod ready")
        yield release
        release.uninstall()


def conditions(kubectl):
    return {each["type"]: each for each in kubectl.get("node", NODE)["status"]["conditions"]}


def wait_for_condition(kubectl, status):
    """The Node's condition, as soon as it has that status."""

    def found():
        condition = conditions(kubectl).get(TYPE, {})
        return condition if condition.get("status") == status else None

    return eventually(found, SECONDS, f"{TYPE} of the Node is {status}")


def events(kubectl, kind):
    """The publisher's Events of the Node, of that type."""
    selector = f"involvedObject.kind=Node,involvedObject.name={NODE},type={kind}"
    found = kubectl.get("events", "--namespace=default", f"--field-selector={selector}")["items"]
    return [each for each in found if each["source"]["component"] == "device-api"]


@contextmanager
def without_the_kubelet(cluster):
    """While it is away nothing that ended is started again."""
    cluster.kubelet.stop(signal.SIGKILL)
    try:
        yield
    finally:
        cluster.kubelet.start()
        cluster.wait_until_node_is_ready()


def test_a_fault_is_said_of_the_node_and_so_is_its_end(own_node, kubectl, informer, stopwatch):
    wait_until_all_ready(informer)
    before = wait_for_condition(kubectl, "True")
    stopwatch("(all GPUs are healthy)")
    own_node.breaks(2)
    after = wait_for_condition(kubectl, "False")
    stopwatch("XID 79: the Node's condition is False")
    sick = gpu_of(informer, 2)
    assert sick.name in after["message"]
    assert sick.ready == "False"
    assert after["lastTransitionTime"] >= before["lastTransitionTime"]
    (warning,) = eventually(lambda: events(kubectl, "Warning"), SECONDS, "an Event")
    assert sick.name in warning["message"]
    # It is among those that people are shown.
    assert warning["message"] in kubectl("describe", "node", NODE).partition("\nEvents:")[2]
    own_node.is_repaired(2)
    wait_for_condition(kubectl, "True")
    stopwatch("reset: the Node's condition is True")
    said = eventually(lambda: events(kubectl, "Normal"), SECONDS, "an Event")
    assert any(sick.name in each["message"] for each in said)
    # What the kubelet says of the Node, it still says.
    assert conditions(kubectl)["Ready"]["status"] == "True"
    kubectl("wait", f"node/{NODE}", f"--for=condition={TYPE}", "--timeout=10s")


def test_without_the_server_the_node_is_in_doubt_until_it_is_back(own_node, kubectl, stopwatch):
    wait_for_condition(kubectl, "True")
    stopwatch("(all GPUs are healthy)")
    with without_the_kubelet(own_node.cluster):
        own_node.cluster.kill_containers("server")
        wait_for_condition(kubectl, "Unknown")
        stopwatch("server killed: the Node's condition is Unknown")
    wait_for_condition(kubectl, "True")
    stopwatch("kubelet and server started: it is True")


def test_an_upgrade_is_no_transition(own_node, release, informer, kubectl, stopwatch):
    wait_until_all_ready(informer)
    before = wait_for_condition(kubectl, "True")
    stopwatch("(all GPUs are healthy)")
    listed = informer.progress.lists
    release.upgrade(logging={"verbosity": 1})
    wait_until_listed_again(informer, listed)
    wait_until_all_ready(informer)
    stopwatch("helm upgrade, until all GPUs were healthy again")
    after = conditions(kubectl)[TYPE]
    assert after["status"] == "True"
    assert after["lastTransitionTime"] == before["lastTransitionTime"]


def test_a_publisher_that_was_killed_says_what_it_missed(own_node, kubectl, informer, stopwatch):
    wait_until_all_ready(informer)
    before = wait_for_condition(kubectl, "True")
    stopwatch("(all GPUs are healthy)")
    with without_the_kubelet(own_node.cluster):
        own_node.cluster.kill_containers(SIDECAR)
        own_node.breaks(4)
        wait_for_ready(informer, 4, "False")
        # Nobody is left who could change it; that is what its heartbeat is for.
        after = conditions(kubectl)[TYPE]
        since = (before["status"], before["lastTransitionTime"])
        assert (after["status"], after["lastTransitionTime"]) == since
    assert gpu_of(informer, 4).name in wait_for_condition(kubectl, "False")["message"]
    stopwatch("publisher killed, XID 79, kubelet started: the Node's condition is False")
    own_node.is_repaired(4)
    wait_for_condition(kubectl, "True")


def test_its_metrics_are_where_the_monitors_look(own_node, release, kubectl):
    wait_for_condition(kubectl, "True")
    (pod,) = kubectl.pods()
    (sidecar,) = (each for each in pod["spec"]["containers"] if each["name"] == SIDECAR)
    (port,) = (each["containerPort"] for each in sidecar["ports"] if each["name"] == "publisher")
    with urllib.request.urlopen(
        f"http://{pod['status']['podIP']}:{port}/metrics", timeout=10
    ) as page:
        series = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines())
    ours = '{publisher="kubernetes"}'
    assert float(series[f"device_api_publisher_stale{ours}"]) == 0
    said = float(series[f"device_api_publisher_last_success_timestamp_seconds{ours}"])
    assert time.time() - said < 300


def may(kubectl, account, namespace):
    """What RBAC lets it do there: resource and verbs."""
    question = ("auth", "can-i", "--list", f"--as={account}", f"--namespace={namespace}")
    rows = [re.split(r"\s{2,}", line.strip()) for line in kubectl(*question).splitlines()[1:]]
    return {(row[0], row[-1]) for row in rows if not row[0].startswith("[")}


def test_the_publishers_account_may_do_the_least(own_node, release, kubectl):
    nobody = f"system:serviceaccount:{NAMESPACE}:nobody"
    everywhere = {("nodes", "[get]"), ("nodes/status", "[patch]")}
    for namespace, more in ((NAMESPACE, set()), ("default", {("events", "[create]")})):
        allowed = may(kubectl, ACCOUNT, namespace)
        assert allowed - may(kubectl, nobody, namespace) == everywhere | more
    for question in ("list nodes", "update nodes", "get secrets", "create events", "get pods"):
        with pytest.raises(subprocess.CalledProcessError) as denied:
            kubectl("auth", "can-i", *question.split(), f"--as={ACCOUNT}")
        assert denied.value.stdout == "no\n"


def test_no_other_container_has_the_token(own_node, release, kubectl):
    (pod,) = kubectl.pods()
    name, place = pod["metadata"]["name"], "/var/run/secrets/kubernetes.io/serviceaccount"
    look = ("sh", "-c", f"cat {place}/token")
    assert kubectl("exec", name, f"--container={SIDECAR}", "--", *look).count(".") == 2
    with pytest.raises(subprocess.CalledProcessError) as failed:
        kubectl("exec", name, "--container=server", "--", *look)
    assert "No such file" in failed.value.stderr
    mounts = {
        each["name"]: [m["name"] for m in each["volumeMounts"]]
        for each in pod["spec"]["containers"] + pod["spec"]["initContainers"]
    }
    assert [each for each in mounts if "kubernetes-token" in mounts[each]] == [SIDECAR]


def remove_condition(cluster):
    """The page's patch, by hand: this kubectl knows no subresources yet."""
    (patch,) = (
        found[1]
        for text in blocks(ROOT / "docs/publishers.md", "bash")
        if (found := re.search(r"--subresource=status --type=strategic \\\s+-p '(.*)'", text))
    )
    request = urllib.request.Request(
        f"https://{ADDRESS}/api/v1/nodes/{NODE}/status",
        data=patch.encode(),
        method="PATCH",
        headers={
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/strategic-merge-patch+json",
        },
    )
    trust = ssl.create_default_context(cafile=cluster.scratch / "ca.crt")
    with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
        assert answer.status == 200


def test_after_uninstall_the_condition_stays_until_it_is_removed(own_node, release, kubectl):
    release.uninstall()
    before = conditions(kubectl)
    assert before[TYPE]["status"] == "True"
    remove_condition(own_node.cluster)
    assert conditions(kubectl).keys() == before.keys() - {TYPE}
