from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from device_api_fake_nvml import FakeNode
from device_api_fake_nvml.cli import main


@pytest.fixture
def cli(node):
    """Runs a command on the node; returns what it printed."""

    def cli(command, *arguments, exit_code=0):
        result = CliRunner().invoke(main, [command, str(node.root), *map(str, arguments)])
        assert result.exit_code == exit_code, result.output
        return result.output

    return cli


def test_create_prints_the_library(tmp_path):
    root = tmp_path / "node"
    result = CliRunner().invoke(main, ["create", str(root), "--model", "t4", "--gpus", "2"])
    assert result.output.strip() == str(root / "usr/lib64/libnvidia-ml.so.1")
    with FakeNode.open(root) as node:
        assert len(node.gpus()) == 2


def test_status_is_healthy_when_new(cli):
    output = cli("status")
    assert "580.95.05-SIMULATED" in output
    assert output.count("healthy") == 8


COMMANDS = [
    (["lose", "--gpu", 1, "--with", "unknown"], "lost (999)"),
    (["remove", "--gpu", 1], "removed"),
    (["ecc", "--gpu", 1, "--count", 2], "ecc-volatile-uncorrected=2"),
    (["remap", "--gpu", 1], "remap-pending=1"),
    (["remap", "--gpu", 1, "--failure"], "remap-failure=1"),
    (["thermal", "--gpu", 1, 95], "slowdown-reasons=72"),
    (["nvlink", "--gpu", 1, "--link", 3, "--state", "down"], "links-down=1"),
    (["nvlink", "--gpu", 1, "--link", 3, "--counter", "replay"], "nvlink-replay=1"),
    (["recovery", "--gpu", 1, "gpu-reset"], "recovery-action=1"),
    (["hang", "--function", "nvmlDeviceGetName"], "every GPU: nvmlDeviceGetName hangs"),
    (["fail", "--gpu", 1, "--error", "lost", "--times", 2], "GPU 1: every function returns 15, 2"),
    (["slow", "--millis", 5], "every GPU: every function takes 5 ms longer"),
    (["set", "--gpu", 1, "pcie-replays", 3], "pcie-replays=3"),
]


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=lambda value: str(value))
def test_fault_shows_in_status(cli, command, shown):
    cli(*command)
    assert shown in cli("status")


def test_faults_end(cli):
    for command, _ in COMMANDS:
        cli(*command)
    cli("add", "--gpu", 1)
    cli("restore", "--gpu", 1)
    cli("replace", "--gpu", 1)
    cli("unhang")
    cli("clear")
    assert cli("status").count("healthy") == 8


def test_status_as_json(cli, node):
    cli("lose", "--gpu", node.gpu(2).uuid)
    cli("hang", "--gpu", 1, "--seconds", 60)
    document = json.loads(cli("status", "-o", "json"))
    assert document["gpus"][2]["lost"] == 15
    assert document["faults"][0]["kind"] == "hang"
    assert document["faults"][0]["gpu"] == 1


def test_events_reach_clients(cli, nvml):
    events = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(3), 0xA, events)
    cli("xid", "--gpu", 3, 79)
    cli("event", "--gpu", 3, "0x2")
    assert nvml.nvmlEventSetWait_v2(events, 0).eventData == 79
    assert nvml.nvmlEventSetWait_v2(events, 0).eventType == 2


def test_mig_commands(cli):
    cli("mig-mode", "--gpu", 0, "on")
    assert cli("mig-create", "--gpu", 0, "1g.10gb").startswith("MIG-")
    assert "MIG 1g.10gb" in cli("status")
    cli("mig-destroy", "--gpu", 0, 0)


def test_set_takes_negative_numbers_elements_and_unsupported(cli, node):
    cli("set", "--gpu", 0, "temperature-margin", "-3")
    cli("set", "--gpu", 0, "nvlink-state:4", 0)
    cli("set", "--gpu", 0, "recovery-action", "unsupported")
    assert node.signals.get(0, "temperature-margin") == -3
    assert node.signals.get(0, "nvlink-state", 4) == 0
    assert node.signals.get(0, "recovery-action") is None
    assert "recovery-action            unsupported" in cli("signals", "--gpu", 0)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["lose", "--gpu", "9"], 2, "no GPU 9"),
        (["hang", "--function", "nvmlFoo"], 2, "no function 'nvmlFoo'"),
        (["set", "--gpu", "0", "colour", "1"], 2, "no signal 'colour'"),
        (["fail", "--error", "bad"], 2, "'bad' is neither"),
        (["nvlink", "--gpu", "0", "--link", "1"], 2, "--state, --counter"),
        (["add", "--gpu", "1"], 1, "GPU 1 is not removed"),
        (["retire", "--gpu", "1"], 1, "does not support"),
        (["unhang"], 1, "nothing hangs"),
        (["install-library"], 1, "not uninstalled"),
    ],
)
def test_errors_are_precise(cli, command, code, message):
    assert message in cli(*command, exit_code=code)


def test_missing_node_is_a_failure(tmp_path):
    result = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no fake node" in result.output


def test_run_starts_a_client(node):
    code = "from pynvml import *; nvmlInit(); print(nvmlDeviceGetCount())"
    result = subprocess.run(
        [sys.executable, "-c", "from device_api_fake_nvml.cli import main; main()",
         "run", str(node.root), "--", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert result.stdout == "8\n"
