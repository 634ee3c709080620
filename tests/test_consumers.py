"""The examples of docs/consumers.md, run against a real server."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from device_api_core.client.fake import gpu
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "consumers.md").read_text(encoding="utf-8")
SNIPPETS = dict(
    zip(
        ("device plugin", "DRA driver", "node agent"),
        re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL),
        strict=True,
    )
)

# By name: status, reason, recommended action.
NODE = {
    "gpu-a": ("True", "", ""),
    "gpu-b": ("False", "Xid46", "COMPONENT_RESET"),
    "gpu-c": ("False", "FanStuck", "CONTACT_SUPPORT"),
    "gpu-d": ("Unknown", "NodeRebooted", "RESTART_BM"),
}


@pytest.fixture
def run(device_api_server, monkeypatch, capsys):
    """Runs an example on a node; returns what it printed and the names that it defined."""
    node = device_api_server()
    providers = node.clients.v1alpha1.providers
    for name, (status, reason, action) in NODE.items():
        spec = GpuSpec(uuid=name.upper(), pci_bus_id="0000:1b:00.0", memory_bytes=1 << 30)
        providers.register(name, spec, provider_id="test")
        condition = Condition("Healthy", ConditionStatus(status), reason)
        providers.update_condition(name, condition, provider_id="test", recommended_action=action)
    monkeypatch.setenv("NVIDIA_DEVICE_API", str(node.socket))

    def run_snippet(which):
        names = {}
        exec(compile(SNIPPETS[which], f"docs/consumers.md, {which}", "exec"), names)
        # A handler that has joined may have told of what is there, too.
        return ast.literal_eval(capsys.readouterr().out.splitlines()[-1]), names

    return run_snippet


def test_a_device_plugin_tells_what_is_proven(run):
    devices, _ = run("device plugin")
    assert devices == {
        "GPU-A": "Healthy",
        "GPU-B": "Unhealthy",
        "GPU-C": "Unhealthy",
        "GPU-D": "Unhealthy",
    }


def test_a_dra_driver_taints_what_is_not(run):
    devices, _ = run("DRA driver")
    effects = {d["name"]: [taint["effect"] for taint in d["taints"]] for d in devices}
    assert effects == {
        "gpu-a": [],
        "gpu-b": ["NoExecute"],
        "gpu-c": ["NoSchedule"],
        "gpu-d": ["NoSchedule"],
    }
    assert devices[0]["attributes"] == {
        "uuid": {"string": "GPU-A"},
        "resource.kubernetes.io/pciBusID": {"string": "0000:1b:00.0"},
    }
    assert devices[0]["capacity"] == {"memory": {"value": "1073741824"}}
    assert re.fullmatch(r"[-\d]{10}T[:\d]{8}\+00:00", devices[1]["taints"][0]["timeAdded"])


def test_a_node_agent_takes_the_strongest_action_that_is_proven(run):
    verdict, _ = run("node agent")
    assert verdict == {
        "act": "COMPONENT_RESET",
        "why": {"gpu-b": "Xid46", "gpu-c": "FanStuck", "gpu-d": "NodeRebooted"},
        "stale": False,
    }


def test_the_table_of_taints_is_what_the_example_does(run):
    _, names = run("DRA driver")
    rows = re.findall(r"^\| `(\w+)`(, stale)? \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for ready, stale, actions, expected in rows:
        named = re.findall(r"`(\w+)`", actions) + ["", "Call me."] * ("none" in actions)
        for action in named or ["", "RESTART_BM"]:
            condition = Condition("Ready", ConditionStatus(ready), last_transition_time=1)
            found = replace(gpu("gpu-a"), status=GpuStatus((condition,), action))
            effects = [taint["effect"] for taint in names["taints"](found, bool(stale))]
            assert effects == re.findall(r"`(\w+)`", expected), (ready, stale, action)
