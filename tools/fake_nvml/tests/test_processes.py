"""Several processes on one node, and several nodes."""

from __future__ import annotations

import signal
import subprocess
import sys

from device_api_fake_nvml import FakeNode

WAIT = """
nvmlInit()
events = nvmlEventSetCreate()
nvmlDeviceRegisterEvents(nvmlDeviceGetHandleByIndex(0), nvmlEventTypeXidCriticalError, events)
print("ready", flush=True)
print(nvmlEventSetWait(events, 20000).eventData, flush=True)
"""


def test_event_reaches_every_process(node, spawn):
    clients = [spawn(node, WAIT) for _ in range(3)]
    assert [client.stdout.readline() for client in clients] == ["ready\n"] * 3
    node.inject_xid(0, 79)
    assert [client.stdout.readline() for client in clients] == ["79\n"] * 3


def test_hanging_process_can_be_killed(node, spawn):
    client = spawn(node, "nvmlInit(); print('ready', flush=True); input(); nvmlDeviceGetCount()")
    assert client.stdout.readline() == "ready\n"
    node.calls.hang()
    client.stdin.write("\n")
    client.stdin.flush()
    client.send_signal(signal.SIGKILL)
    assert client.wait(10) == -signal.SIGKILL


def test_process_killed_inside_the_lock_leaves_the_node_usable(node, nvml):
    code = (
        "import os, signal, sys\n"
        "from device_api_fake_nvml.control import library, open_state\n"
        "library().fake_nvml_lock(open_state(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    state = node.library.with_name("fake-nvml.state")
    ended = subprocess.run([sys.executable, "-c", code, str(state)], check=False, timeout=20)
    assert ended.returncode == -signal.SIGKILL
    assert nvml.nvmlDeviceGetCount() == 8
    node.lose(0)


def test_two_nodes_are_apart(tmp_path, spawn):
    code = "nvmlInit(); print(nvmlDeviceGetCount(), nvmlSystemGetDriverVersion())"
    with (
        FakeNode.create(tmp_path / "a", gpus=2, seed="a") as first,
        FakeNode.create(tmp_path / "b", gpus=5, seed="b", driver_version="550.1") as second,
    ):
        first.remove(0)
        clients = [spawn(first, code), spawn(second, code)]
        answers = [client.communicate(timeout=20)[0] for client in clients]
        assert answers == ["1 580.95.05-SIMULATED\n", "5 550.1-SIMULATED\n"]
        assert {gpu.uuid for gpu in first.gpus()}.isdisjoint(gpu.uuid for gpu in second.gpus())


def test_uninstalled_library_is_not_found(node, spawn):
    code = (
        "try:\n    nvmlInit()\n"
        "except NVMLError as error:\n    print(error.value)\n"
        "else:\n    print(0)\n"
    )
    node.uninstall_library()
    assert spawn(node, code).communicate(timeout=20)[0] == "12\n"
    node.install_library()
    assert spawn(node, code).communicate(timeout=20)[0] == "0\n"


def test_state_can_lie_elsewhere(node, tmp_path):
    with FakeNode.create(tmp_path / "other", gpus=3) as other:
        environment = {
            **node.environment(),
            "FAKE_NVML_STATE": str(other.library.with_name("fake-nvml.state")),
        }
        code = "from pynvml import *; nvmlInit(); print(nvmlDeviceGetCount())"
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        )
        assert shown.stdout == b"3\n"


def test_library_without_state_has_no_driver(node, spawn):
    node.library.with_name("fake-nvml.state").unlink()
    code = "\ntry:\n    nvmlInit()\nexcept NVMLError as error:\n    print(error.value)\n"
    output, errors = spawn(node, code).communicate(timeout=20)
    assert output == "9\n"
    assert "fake-nvml: cannot use" in errors
