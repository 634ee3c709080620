"""`device-api publish kubernetes` as a process: over failures of either side, to its end."""

from __future__ import annotations

import time
import urllib.error

import pytest
from kube_api import hangs, refuses
from publishing import Publish, eventually

from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

GPU = "gpu-1b2c77e0-58f2-4ac3-9d5b-0f6a1c2d3e40"
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
FLAGS = ("--metrics-address=127.0.0.1:0", "--grace=1.5")


def report(node, status=TRUE, reason="", action=""):
    providers = node.clients.v1alpha1.providers
    providers.register(GPU, GpuSpec(uuid=GPU.upper()), provider_id="tests")
    condition = Condition("example.com/Healthy", status, reason)
    providers.update_status(GPU, GpuStatus((condition,), action), provider_id="tests")


@pytest.fixture
def node(device_api_node):
    node = device_api_node()
    report(node)
    return node


@pytest.fixture
def options(api):
    return api.options | {"interval_seconds": 0.2}


def test_it_goes_on_over_every_failure_and_says_how_it_does(api, options, node, tmp_path):
    api.for_all = refuses(500, "no leader")
    began = time.time()
    with Publish(tmp_path, node.socket, options, *FLAGS) as publish:
        assert "answers 500 (500: no leader)" in publish.said("publishing failed")["why"]
        eventually(lambda: publish.metric("failures_total") >= 2)
        # Once for the same failure, however often it happens.
        assert publish.text.count("publishing failed") == 1
        assert publish.metric("published_total") == 0
        assert publish.metric("last_success_timestamp_seconds") == 0
        assert publish.metric("stale") == 0
        assert publish.page("/healthz") == "ok\n"
        api.for_all = None
        publish.said("published")
        assert api.condition["status"] == "True"
        eventually(lambda: publish.metric("published_total") == 1)
        assert publish.metric("last_success_timestamp_seconds") >= began
        assert publish.metric("events_suppressed_total") == 0
        report(node, FALSE, "Xid79", "RESTART_BM")
        api.wait_for(lambda api: len(api.events) == 1)
        assert api.condition["message"] == f"1 of 1 GPU is unhealthy: {GPU}: Xid79, RESTART_BM"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            publish.page("/nothing")
        assert publish.stop() == 0
    # What is published stays.
    assert api.condition["status"] == "False"
    assert api.token not in publish.text


def test_a_server_that_goes_is_doubt_and_one_that_comes_back_is_none(api, options, node, tmp_path):
    with Publish(tmp_path, node.socket, options, *FLAGS) as publish:
        api.wait_for(lambda api: api.condition.get("status") == "True")
        node.stop()
        api.wait_for(lambda api: api.condition["status"] == "Unknown")
        message = api.condition["message"]
        assert message.startswith("device-api-server has not answered since 20")
        assert publish.metric("stale") == 1
        node.start()
        report(node)
        api.wait_for(lambda api: api.condition["status"] == "True")
        assert publish.metric("stale") == 0
        assert api.events == {}


def test_a_fault_stays_while_the_server_is_away(api, options, node, tmp_path):
    report(node, FALSE, "Xid79")
    with Publish(tmp_path, node.socket, options, *FLAGS):
        api.wait_for(lambda api: api.condition.get("status") == "False")
        node.stop()
        api.wait_for(lambda api: "has not answered since" in api.condition["message"])
        assert api.condition["status"] == "False"


def test_before_the_server_is_there_nothing_is_said_for_the_grace_time(api, options, tmp_path):
    began = time.monotonic()
    with Publish(tmp_path, tmp_path / "none.sock", options, *FLAGS):
        api.wait_for(lambda api: api.condition)
        assert time.monotonic() - began >= 1.5
        assert api.condition["status"] == "Unknown"
        assert api.condition["message"].startswith("device-api-server has not answered yet: ")


def test_patience_is_kept(api, options, node, tmp_path):
    api.faults.append(refuses(429, "too many requests", **{"Retry-After": "3"}))
    with Publish(tmp_path, node.socket, options, *FLAGS) as publish:
        assert publish.said("asks for patience")["next_try_seconds"] == 3
        asked = time.monotonic()
        api.wait_for(lambda api: api.condition)
        assert time.monotonic() - asked > 2.5


def test_it_ends_although_a_call_hangs(api, options, node, tmp_path):
    api.for_all = hangs
    with Publish(tmp_path, node.socket, options, *FLAGS) as publish:
        api.wait_for(lambda api: api.requests == [])
        eventually(lambda: api.requests)
        began = time.monotonic()
        assert publish.stop() == 4
        assert time.monotonic() - began < 10
        publish.said("did not stop in time")


def test_without_a_server_once_says_so(api, options, tmp_path):
    with Publish(tmp_path, tmp_path / "none.sock", options, "--once") as publish:
        assert publish.ended() == 3
    assert "no server answers" in publish.text
    assert api.requests == []
