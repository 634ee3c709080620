"""The plugin between a real daemon and a kubelet."""

from __future__ import annotations

import resource
import socket

import grpc
import pytest
from device_api_fake_nvml import FakeNode

ROW_REMAP_FAILED = 64


def is_told(kubelet, **devices):
    """Whether the kubelet was told exactly that, by the GPUs' numbers."""
    names = {name.replace("gpu_", "GPU-"): health for name, health in devices.items()}
    return lambda: kubelet.devices == names


def refused(kubelet, *containers):
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.allocate(*containers)
    return caught.value.code(), caught.value.details()


def test_healthy_gpus_are_advertised_and_handed_out(gpus, kubelet, start):
    gpus.add(0, 1)
    start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Healthy"))
    (registration,) = kubelet.registrations
    assert registration.version == "v1beta1"
    assert registration.resource_name == "nvidia.com/gpu"
    assert (kubelet.directory / registration.endpoint).stat().st_mode & 0o777 == 0o600
    assert not registration.options.pre_start_required
    assert not kubelet.options.get_preferred_allocation_available
    answer = kubelet.allocate(["GPU-1", "GPU-0"], ["GPU-0"])
    assert [dict(c.envs) for c in answer.container_responses] == [
        {"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-0"},
        {"NVIDIA_VISIBLE_DEVICES": "GPU-0"},
    ]


def test_containers_may_be_told_by_cdi(gpus, kubelet, start):
    gpus.add(0)
    start(gpus.node.socket, "--device-list=cdi", "--cdi-kind=example.com/gpu")
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    (container,) = kubelet.allocate(["GPU-0"]).container_responses
    assert [device.name for device in container.cdi_devices] == ["example.com/gpu=GPU-0"]
    assert not container.envs


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_what_is_not_proven_healthy_is_not_handed_out(status, gpus, kubelet, start):
    gpus.add(0, 1)
    plugin = start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Healthy"))
    gpus.set(0, status, "FanStuck", "The fan does not turn.")
    kubelet.wait(is_told(kubelet, gpu_0="Unhealthy", gpu_1="Healthy"))
    assert refused(kubelet, ["GPU-1"], ["GPU-0"]) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'device "GPU-0" is unhealthy: FanStuck: The fan does not turn.',
    )
    kubelet.allocate(["GPU-1"])
    assert plugin.said("device unhealthy")["device"] == "GPU-0"
    gpus.set(0, "True")
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Healthy"))


def test_gpus_come_and_go(gpus, kubelet, start):
    gpus.add(0)
    plugin = start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    gpus.add(1)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Healthy"))
    gpus.remove(0)
    kubelet.wait(is_told(kubelet, gpu_1="Healthy"))
    assert plugin.said("device gone")["device"] == "GPU-0"
    code, text = refused(kubelet, ["GPU-0"])
    assert code is grpc.StatusCode.NOT_FOUND
    assert '"GPU-0"' in text


def test_a_gpu_that_no_runtime_could_find_is_left_out(gpus, kubelet, start):
    gpus.providers.register("without-uuid", provider_id="test")
    gpus.add(0)
    start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))


def test_an_xid_makes_the_gpu_unhealthy(tmp_path, device_api_server, kubelet, start):
    with FakeNode.create(tmp_path / "node", gpus=2) as driver:
        node = device_api_server("nvml", options={"nvml": {"driver_root": str(driver.root)}})
        start(node.socket)
        sick, well = (gpu.uuid for gpu in driver.gpus())
        kubelet.wait(lambda: kubelet.devices == {sick: "Healthy", well: "Healthy"})
        driver.inject_xid(0, ROW_REMAP_FAILED)
        kubelet.wait(lambda: kubelet.devices == {sick: "Unhealthy", well: "Healthy"})
        code, text = refused(kubelet, [sick])
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "Xid64" in text
        kubelet.allocate([well])


def test_an_allocation_waits_while_a_provider_investigates(gpus, kubelet, start):
    gpus.add(0)
    start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    update = gpus.providers.update("test", ["gpu-0"])
    # It is asked while reads wait and every store still says "healthy".
    asked = kubelet.ask(["GPU-0"])
    with pytest.raises(grpc.FutureTimeoutError):
        asked.result(0.2)
    update.set_condition("gpu-0", gpus.condition("False", "LinkLost"))
    update.commit()
    assert "LinkLost" in asked.exception().details()


def test_a_kubelet_that_restarts_gets_the_devices_again(gpus, kubelet, start):
    gpus.add(0)
    plugin = start(gpus.node.socket)
    for _ in range(2):
        kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
        kubelet.restart()
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    gpus.set(0, "False")
    kubelet.wait(is_told(kubelet, gpu_0="Unhealthy"))
    assert len([e for e in plugin.log if e["msg"] == "registered"]) == 3


def test_a_kubelet_that_hangs_up_is_registered_with_again(gpus, kubelet, start):
    gpus.add(0)
    start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    kubelet.hang_up()
    assert not kubelet.devices
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    assert len(kubelet.registrations) == 2


def test_a_socket_that_somebody_deletes_is_made_again(gpus, kubelet, start):
    gpus.add(0)
    plugin = start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    (kubelet.directory / kubelet.registrations[0].endpoint).unlink()
    kubelet.wait(lambda: len(kubelet.registrations) == 2)
    assert (kubelet.directory / kubelet.registrations[1].endpoint).is_socket()
    assert plugin.stop() == 0
    assert not list(kubelet.directory.glob("device-api-*"))


def test_what_a_killed_plugin_leaves_behind_is_removed(gpus, kubelet, start):
    dead, alive = (kubelet.directory / f"device-api-nvidia.com-gpu-{n}.sock" for n in "ab")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(dead))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(alive))
        other.listen()
        start(gpus.node.socket).said("registered")
        assert alive.exists()
        assert not dead.exists()


def test_a_kubelet_that_refuses_is_asked_again(gpus, kubelet, start):
    gpus.add(0)
    kubelet.refusal = "the resource is taken"
    plugin = start(gpus.node.socket)
    assert "UNKNOWN: the resource is taken" in plugin.said("did not register")["msg"]
    assert not kubelet.registrations
    kubelet.refusal = ""
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))


def test_a_plugin_that_cannot_listen_tries_again(gpus, kubelet, start):
    kubelet.stop()
    gpus.add(0)
    plugin = start(gpus.node.socket)
    plugin.said("no kubelet at")
    _, most = resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (0, most))
    kubelet.start()
    assert "open files" in plugin.said("cannot listen")["msg"]
    resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (most, most))
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))


def test_the_plugin_may_be_first(gpus, kubelet, start):
    kubelet.stop()
    (kubelet.directory / "kubelet.sock").unlink(missing_ok=True)
    gpus.node.stop()
    plugin = start(gpus.node.socket)
    gpus.node.start()
    plugin.said("no kubelet at")
    kubelet.start()
    gpus.add(0)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))


def test_the_device_api_may_restart(gpus, kubelet, start):
    gpus.add(0)
    start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    gpus.node.stop()
    gpus.node.start()
    gpus.add(0, 1)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Healthy"))
    gpus.set(1, "False")
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Unhealthy"))
    kubelet.allocate(["GPU-0"])
    assert len(kubelet.registrations) == 1


def test_old_news_is_not_called_healthy(gpus, kubelet, start, monkeypatch):
    monkeypatch.setenv("NVIDIA_DEVICE_API_TIMEOUT_SECONDS", "0.3")
    gpus.add(0, 1)
    gpus.set(1, "False", "FanStuck")
    plugin = start(gpus.node.socket, "--max-age-seconds=1")
    kubelet.wait(is_told(kubelet, gpu_0="Healthy", gpu_1="Unhealthy"))
    gpus.node.stop()
    kubelet.wait(is_told(kubelet, gpu_0="Unhealthy", gpu_1="Unhealthy"))
    assert "nothing heard" in plugin.said("device unhealthy", device="GPU-0")["reason"]
    assert refused(kubelet, ["GPU-0"])[0] is grpc.StatusCode.UNAVAILABLE
    gpus.node.start()
    gpus.add(0)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))


def test_a_signal_ends_it_in_good_order(gpus, kubelet, start):
    gpus.add(0)
    plugin = start(gpus.node.socket)
    kubelet.wait(is_told(kubelet, gpu_0="Healthy"))
    assert plugin.stop() == 0
    kubelet.wait(is_told(kubelet))
    assert not kubelet.failure
    assert not list(kubelet.directory.glob("device-api-*"))
    assert [entry["msg"] for entry in plugin.log][-1] == "stopped"


def test_a_signal_ends_it_while_it_waits_for_the_device_api(kubelet, start):
    plugin = start(kubelet.directory / "nobody.sock")
    plugin.said("lost its watch")
    assert plugin.stop() == 0
    assert not kubelet.registrations
