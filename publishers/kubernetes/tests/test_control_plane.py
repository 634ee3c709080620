"""The publisher at a real kube-apiserver, with a service account that may do what it needs and
nothing else. Runs where the programs of `tests/e2e/programs` are.

It is one test, for the API server takes longer to start than all else together.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from control_plane import CLUSTER_RULES, RULES, ControlPlane, programs
from publishing import Publish, eventually

from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

NODE = "gpu-node-07"
A, B = "gpu-1b2c77e0-58f2-4ac3-9d5b-0f6a1c2d3e40", "gpu-8d0417bb-93aa-4c0e-b1c7-2a54e6f0d922"
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


@pytest.fixture
def plane(tmp_path):
    scratch = tmp_path / "plane"
    scratch.mkdir()
    with ControlPlane.running(programs(), scratch) as running:
        running.create("/api/v1/nodes", {"metadata": {"name": NODE}})
        kubelet = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        running.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [kubelet]}})
        yield running


@pytest.fixture
def options(plane):
    return {
        "node_name": NODE,
        "server": plane.url,
        "token_file": str(plane.allow()),
        "ca_file": str(plane.ca_file),
        "interval_seconds": 0.2,
    }


@pytest.fixture
def node(device_api_node):
    """A server with two good GPUs."""
    node = device_api_node()
    for index, name in enumerate((A, B)):
        spec = GpuSpec(uuid=name.replace("gpu", "GPU"), index=index)
        node.clients.v1alpha1.providers.register(name, spec, provider_id="tests")
        report(node, name)
    return node


def report(node, gpu, status=TRUE, reason="", message="", action=""):
    condition = Condition("example.com/Healthy", status, reason, message)
    node.clients.v1alpha1.providers.update_status(
        gpu, GpuStatus((condition,), action), provider_id="tests"
    )


@pytest.mark.skipif(programs() is None, reason="needs tests/e2e/programs")
@pytest.mark.timeout(180)
def test_a_service_account_with_exactly_these_rules_can_publish(
    plane, options, node, tmp_path, subtests
):
    for step in (
        a_fault_and_its_end_are_seen,
        each_rule_is_needed_and_a_lacking_one_is_named,
        it_may_do_nothing_else,
        once_is_for_trying_it_out,
        what_is_published_can_be_taken_back,
    ):
        with subtests.test(step.__name__):
            step(plane, options, node, tmp_path)


def a_fault_and_its_end_are_seen(plane, options, node, folder):
    with Publish(folder, node.socket, options) as publish:
        publish.said("condition is set")
        good = plane.condition(NODE)
        assert (good["status"], good["reason"]) == ("True", "AllGPUsHealthy")
        assert good["message"] == "2 GPUs are healthy"
        assert plane.events(NODE) == []
        report(node, B, FALSE, "Xid79", "the GPU fell off the bus", "RESTART_BM")
        publish.said("1 of 2 GPUs is unhealthy")
        bad = plane.condition(NODE)
        assert (bad["status"], bad["reason"]) == ("False", "GPUUnhealthy")
        assert bad["message"] == f"1 of 2 GPUs is unhealthy: {B} (index 1): Xid79, RESTART_BM"
        assert bad["lastTransitionTime"] >= good["lastTransitionTime"]
        eventually(lambda: len(plane.events(NODE)) == 1)
        report(node, B)
        eventually(lambda: len(plane.events(NODE)) == 2)
        assert plane.condition(NODE)["status"] == "True"
        # The kubelet's own is as it was.
        assert plane.condition(NODE, "Ready")["reason"] == "KubeletReady"
        before = plane.condition(NODE)
        assert publish.stop() == 0
    assert plane.condition(NODE) == before
    first, second = plane.events(NODE)
    for event in (first, second):
        # Which `kubectl describe node` looks for.
        assert event["involvedObject"]["uid"] == NODE
        assert event["source"] == {"component": "device-api", "host": NODE}
    assert (first["type"], first["reason"]) == ("Warning", "GPUUnhealthy")
    assert first["message"] == f"{B} (index 1): Xid79, RESTART_BM: the GPU fell off the bus"
    assert (second["type"], second["reason"]) == ("Normal", "GPUHealthy")
    assert second["message"] == f"{B} (index 1) is healthy again"


def each_rule_is_needed_and_a_lacking_one_is_named(plane, options, node, folder):
    with Publish(folder, node.socket, options) as publish:
        publish.said("published")
        for rule in (*CLUSTER_RULES, *RULES):
            verb, resource = rule["verbs"][0], rule["resources"][0]
            reason, before = f"Xid{len(resource)}", len(publish.log)
            with plane.without(rule):
                report(node, A, FALSE, reason)
                failed = publish.said("publishing failed", after=before)
                assert f"forbids it: allow {verb} of {resource} by a " in failed["why"]
                assert f'cannot {verb} resource "{resource}"' in failed["why"]
            # As soon as it may, it does.
            publish.said("published", after=publish.log.index(failed))
            assert reason in plane.condition(NODE)["message"]
            assert any(reason in event["message"] for event in plane.events(NODE))
        report(node, A)
        publish.said("2 GPUs are healthy", after=before)


def it_may_do_nothing_else(plane, options, node, folder):
    token = Path(options["token_file"]).read_text()
    answer = requests.post(
        f"{plane.url}/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        json={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": "default"},
        },
        headers={"Authorization": f"Bearer {token}"},
        verify=options["ca_file"],
        timeout=20,
    ).json()
    allowed = {
        (verb, resource)
        for rule in answer["status"]["resourceRules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if not resource.startswith("selfsubject")
    }
    assert allowed == {("get", "nodes"), ("patch", "nodes/status"), ("create", "events")}


def once_is_for_trying_it_out(plane, options, node, folder):
    with Publish(folder, node.socket, options, "--once") as publish:
        assert publish.ended() == 0
        publish.said("published")
    with Publish(folder, node.socket, options | {"node_name": "other"}, "--once") as publish:
        assert publish.ended() == 1
    assert "knows no Node 'other': set NODE_NAME" in publish.text


def what_is_published_can_be_taken_back(plane, options, node, folder):
    assert plane.condition(NODE)
    # As docs/publishers.md says it for kubectl.
    gone = {"type": "GPUHealthy", "$patch": "delete"}
    plane.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [gone]}})
    assert plane.condition(NODE) == {}
    assert plane.condition(NODE, "Ready")["reason"] == "KubeletReady"
