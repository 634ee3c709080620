"""The built image, run as the chart runs it, on a fresh node. `make image-test`."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from pods import Node
from rendering import containers, render

from device_api_core.client import Clientset

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("DEVICE_API_IMAGE", "")
TOOLS = ("runc", "umoci", "skopeo")
MEGABYTE = 1_000_000
pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="DEVICE_API_IMAGE names no image: make image-test"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The image's directory: `oci` as it is published, `bundle/rootfs` unpacked."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    assert not missing, f"install {missing}"
    assert os.geteuid() == 0, "runc with two users needs root"
    path = tmp_path_factory.mktemp("image")
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"oci-archive:{IMAGE}", f"oci:{path}/oci:test"], check=True
    )
    subprocess.run(
        ["umoci", "unpack", "--image", f"{path}/oci:test", path / "bundle"],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="session")
def rootfs(image):
    return image / "bundle" / "rootfs"


@pytest.fixture(scope="session")
def published(image):
    """What the image says of itself."""
    inspect = ["skopeo", "inspect", "--config", f"oci:{image}/oci:test"]
    return json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)


@pytest.fixture
def nvml(published):
    """For tests that run the NVML provider."""
    if published["config"]["Labels"]["device-api.variant"] == "core":
        pytest.skip("this variant has no providers")


@pytest.fixture
def node(rootfs):
    """A fresh node with simulated GPUs, whose driver is in /run/nvidia/driver."""
    # Not pytest's own folder: paths of sockets below it would be too long.
    with tempfile.TemporaryDirectory(prefix="dapi-node.") as path:
        directory = Path(path)
        driver = directory / "run/nvidia/driver"
        fake("create", driver, "--gpus", "2")
        # A real driver's device files are everybody's, too.
        (driver / "usr/lib64/fake-nvml.state").chmod(0o666)
        yield Node(directory, rootfs)


def fake(*arguments):
    command = [str(Path(sys.executable).with_name("fake-nvml")), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_nvml(**nvml):
    """Values for a node of this kind, on ports of their own."""
    return {
        "server": {
            "healthPort": free_port(),
            "metricsPort": free_port(),
            "grpcAddress": "",
            "shutdownDelay": 0,
            "shutdownTimeout": 5,
        },
        "nvml": {"enabled": True, "access": "hostPath", **nvml},
    }


class Pod:
    """The DaemonSet's pod on a node, from its init containers on."""

    def __init__(self, node, values):
        self.node, self.rendered = node, render(values)
        self._stack = ExitStack()
        self.running = {}

    def __enter__(self):
        spec, config = self.rendered.pod, self.rendered.server_toml
        for container in spec["initContainers"]:
            self.node.run(spec, container, config)
        for container in spec["containers"]:
            started = self.node.started(spec, container, config)
            self.running[container["name"]] = self._stack.enter_context(started)
        return self

    def __exit__(self, *_):
        self._stack.close()

    def page(self, port, path):
        """An HTTP page of the pod: status and text."""
        url = f"http://127.0.0.1:{self.rendered.config[port]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_until_ready(self):
        """As the readiness probe does. Fails with the pod's output if it ends."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended: {process.stdout.read()}"
            try:
                if self.page("health_port", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(self.page("health_port", "/readyz"))

    def stop(self):
        """SIGTERM to every container, as the kubelet does; returns their exit codes."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(20) for name, process in self.running.items()}

    def consumer(self):
        """A client on the host, as a device plugin is."""
        return Clientset.connect(f"unix://{self.node.path('/var/run/device-api/device.sock')}")


def owner_and_mode(path):
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_without_a_provider_it_serves_as_well(node):
    with Pod(node, with_nvml(enabled=False)) as pod:
        pod.wait_until_ready()
        with pod.consumer() as consumer:
            assert not consumer.v1alpha1.gpus.list().items
        assert pod.stop() == {"server": 0}


@pytest.mark.parametrize("transport", ["grpcio", "h2"])
def test_both_transports_are_there(node, transport):
    with Pod(node, with_nvml(enabled=False) | {"server": {"transport": transport}}) as pod:
        pod.wait_until_ready()
        loaded = Path(f"/proc/{node.pid_files['server'].read_text()}/maps").read_text()
        assert ("libnghttp2.so.14" in loaded) is (transport == "h2")
        with pod.consumer() as consumer:
            assert not consumer.v1alpha1.gpus.list().items


@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize("home", ["thread", "process", "sidecar"])
def test_the_quick_start_works_on_a_fresh_node_and_again(node, home):
    values = with_nvml(home=home)
    for _ in range(2):
        with Pod(node, values) as pod:
            pod.wait_until_ready()
            assert owner_and_mode(node.path("/var/run/device-api")) == (65534, 65534, 0o755)
            assert owner_and_mode(node.path("/var/run/device-api-provider"))[2] == 0o700
            assert owner_and_mode(node.path("/var/lib/device-api")) == (65534, 65534, 0o700)
            device = node.path("/var/run/device-api/device.sock")
            assert owner_and_mode(device) == (65534, 65534, 0o660)
            with pod.consumer() as consumer:
                gpus = consumer.v1alpha1.gpus.list().items
            assert len(gpus) == 2
            assert pod.page("metrics_port", "/metrics")[0] == 200
            # What `helm test` runs.
            test = pod.rendered.only("Pod")["spec"]
            said = node.run(test, test["containers"][0], "")
            assert all(gpu.name in said for gpu in gpus)
            assert set(pod.stop().values()) == {0}
            assert not device.exists()


@pytest.mark.usefixtures("nvml")
def test_a_fault_of_the_driver_reaches_a_consumer_on_the_host(node):
    with Pod(node, with_nvml()) as pod:
        pod.wait_until_ready()
        with pod.consumer() as consumer:
            gpus = consumer.v1alpha1.gpus
            first = gpus.list()
            with gpus.watch(resource_version=first.resource_version) as events:
                fake("xid", node.path("/run/nvidia/driver"), "--gpu", "1", "79")
                event = next(e for e in events if e.gpu.ready == "False")
            (hit,) = (gpu for gpu in first.items if gpu.spec.index == 1)
            assert event.gpu.name == hit.name


@pytest.mark.usefixtures("nvml")
def test_nothing_that_serves_has_rights(node):
    with Pod(node, with_nvml(home="sidecar")) as pod:
        pod.wait_until_ready()
        for name in ("server", "provider-nvml"):
            pid = node.pid_files[name].read_text()
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found = {
                key: value.split() for key, _, value in (line.partition(":") for line in lines)
            }
            assert set(found["Uid"]) == set(found["Gid"]) == {"65534"}
            assert {found[key][0] for key in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
            # Privileged containers, which the sidecar is here, cannot be without new privileges.
            assert found["NoNewPrivs"] == ["1" if name == "server" else "0"]


def test_without_prepared_directories_it_says_what_is_missing(node):
    values = with_nvml(enabled=False) | {"prepareDirectories": False}
    rendered = render(values)
    (server,) = containers(rendered.pod)
    with node.started(rendered.pod, server, rendered.server_toml) as process:
        said, _ = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "this user may not write to it" in said


def run_in(node, *command):
    pod = render().only("Pod")["spec"]
    container = {**pod["containers"][0], "command": list(command), "args": [], "volumeMounts": []}
    return node.run(pod, container, "")


def test_its_variant_holds_its_plugins_and_the_versions_of_the_lock(node, rootfs, published):
    variant = published["config"]["Labels"]["device-api.variant"]
    said = run_in(node, "device-api", "providers", "-o", "json")
    names = {each["name"] for each in json.loads(said[said.index("{") :])["providers"]}
    assert names == ({"nvml", "dcgm", "nvsentinel"} if variant == "all" else set())
    said = run_in(node, "device-api", "publishers", "-o", "json")
    publishers = {each["name"]: each for each in json.loads(said)["publishers"]}
    assert set(publishers) == ({"kubernetes"} if variant == "all" else set())
    assert all(each["state"] == "available" for each in publishers.values())
    site = rootfs / "usr/local/lib/python3.11/dist-packages"
    installed = {
        found.metadata["Name"].lower().replace("_", "-"): found.version
        for found in distributions(path=[str(site)])
    }
    lock = (ROOT / f"image/requirements-{variant}.txt").read_text()
    locked = dict(line.split(" ")[0].split("==") for line in lock.splitlines() if "==" in line)
    ours = {name for name in installed if name.startswith("device-api-")}
    assert {n: v for n, v in installed.items() if n not in ours} == locked
    assert ours - {"device-api-core", "device-api-transport-h2"} == {
        f"device-api-{n}".replace("nvsentinel", "nvsentinel-bridge")
        for n in names | set(publishers)
    }


def test_the_bill_of_materials_is_valid_and_whole(rootfs):
    text = (rootfs / "usr/share/device-api/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {each["purl"].partition("?")[0] for each in json.loads(text)["components"]}
    site = rootfs / "usr/local/lib/python3.11/dist-packages"
    python = {f"pypi/{path.name.rsplit('.', 1)[0]}" for path in site.glob("*.dist-info")}
    assert len([each for each in listed if each.startswith("pkg:pypi/")]) == len(python)
    debian = list((rootfs / "var/lib/dpkg/status.d").iterdir())
    assert len([each for each in listed if each.startswith("pkg:deb/")]) == len(debian) > 20


def test_it_is_small_labelled_and_runs_as_nobody(published, image, rootfs):
    config = published["config"]
    assert config["User"] == "65534:65534"
    assert config["Entrypoint"] == ["device-api-server"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(config["Labels"]["org.opencontainers.image.revision"]) == 40
    assert not any("NVIDIA" in each for each in config["Env"])
    size = sum(path.lstat().st_size for path in rootfs.rglob("*") if path.is_file())
    assert size < 150 * MEGABYTE
    assert Path(IMAGE).stat().st_size < 60 * MEGABYTE


def test_its_files_are_nobodys_to_change_and_of_one_moment(image):
    manifest = json.loads((image / "oci/index.json").read_text())["manifests"][0]
    blob = image / "oci/blobs" / manifest["digest"].replace(":", "/")
    (layer,) = json.loads(blob.read_text())["layers"]
    with tarfile.open(image / "oci/blobs" / layer["digest"].replace(":", "/")) as archive:
        members = archive.getmembers()
    assert {member.mtime for member in members} == {members[0].mtime}
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    for member in members:
        assert not member.mode & 0o6000, f"{member.name} runs as its owner"
        if member.name != "tmp" and not member.issym():
            assert not member.mode & 0o022, f"{member.name} is writable"
    names = {member.name for member in members}
    assert any(name.endswith("server.cpython-311.pyc") for name in names)
    assert not any(name.endswith("bin/dpkg") or name.endswith("bin/apt") for name in names)
