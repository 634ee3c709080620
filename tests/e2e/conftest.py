"""A cluster, the chart's release on it, and what belongs to its node. See `tests/e2e/run`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest
import yaml
from device_api_fake_nvml import FakeNode

from device_api_core.client import Clientset, GpuInformer

TESTS = Path(__file__).resolve().parents[1]
for support in (TESTS / "e2e" / "support", TESTS / "chart" / "support"):
    sys.path.insert(0, str(support))

from cluster import Cluster, Program  # noqa: E402  (the path comes first)
from gpu_node import DRIVER, GPUS, LIBRARIES, GpuNode  # noqa: E402
from kubectl import Kubectl  # noqa: E402
from release import NAMESPACE, Release  # noqa: E402

TIMES: list[str] = []
LOG_CHARACTERS = 6000


def pytest_collection_modifyitems(items) -> None:
    here = Path(__file__).parent
    if os.environ.get("E2E_KUBECONFIG") or os.environ.get("E2E_SCRATCH"):
        return
    skip = pytest.mark.skip(reason="needs a cluster: make e2e")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """What the pods of our own cluster said, beside the failure."""
    report = yield
    if report.failed and os.environ.get("E2E_SCRATCH"):
        for log in sorted(Path("/var/log/pods").glob("*/*/*.log")):
            said = log.read_text(encoding="utf-8", errors="replace")
            report.sections.append((f"{log.parts[-3]} {log.parts[-2]}", said[-LOG_CHARACTERS:]))
    return report


@pytest.fixture(scope="session")
def stopwatch():
    """Notes how long a thing took since the last note. The report ends with the notes."""
    started = time.monotonic()

    def note(what: str) -> None:
        nonlocal started
        now = time.monotonic()
        TIMES.append(f"{now - started:6.1f} s  {what}")
        started = now

    return note


def pytest_terminal_summary(terminalreporter) -> None:
    if TIMES:
        terminalreporter.section("times on the cluster")
        terminalreporter.write("".join(f"{each}\n" for each in TIMES))


@pytest.fixture(scope="session")
def node(stopwatch) -> Iterator[GpuNode | None]:
    """The node of our own cluster, ``None`` on another one."""
    if os.environ.get("E2E_KUBECONFIG"):
        yield None
        return
    driver = FakeNode.create(DRIVER, gpus=GPUS)
    # A real driver's device files are everybody's, too.
    (DRIVER / LIBRARIES / "fake-nvml.state").chmod(0o666)
    cluster = Cluster(
        Path(os.environ["E2E_PROGRAMS"]), Path(os.environ["E2E_SCRATCH"]), DRIVER / LIBRARIES
    )
    with driver, cluster.running(Path(os.environ["DEVICE_API_IMAGE"])):
        stopwatch("a cluster with a node that is ready")
        yield GpuNode(cluster, driver)


@pytest.fixture
def own_node(node, release):
    """For tests of what happens on the node."""
    if node is None:
        pytest.skip("not on another cluster: it needs the node itself")
    return node


@pytest.fixture(scope="session")
def kubectl(node) -> Kubectl:
    if node is not None:
        program, kubeconfig = str(node.cluster.bin / "kubectl"), node.cluster.kubeconfig
    else:
        program = shutil.which("kubectl") or ""
        assert program, "kubectl is not installed"
        kubeconfig = Path(os.environ["E2E_KUBECONFIG"])
    return Kubectl(program, kubeconfig, NAMESPACE)


@pytest.fixture(scope="session")
def values(node) -> dict:
    """The release's: of the simulated node, or those of the file E2E_VALUES."""
    if node is None:
        path = os.environ.get("E2E_VALUES")
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else {}
    libraries = {"name": "libraries", "hostPath": {"path": f"{DRIVER}/{LIBRARIES}"}}
    options = {"poll_seconds": 0.5, "rare_seconds": 1, "hold_seconds": 2, "retry_seconds": 1}
    return {
        "image": {"pullPolicy": "Never"},
        "server": {"shutdownDelay": 1, "shutdownTimeout": 5},
        "readinessProbe": {"periodSeconds": 1},
        "nvml": {"enabled": True, "access": "hostPath", "options": options},
        # Simulated GPUs keep their state beside the library, and calls write to it.
        "extraVolumes": [libraries],
        "extraVolumeMounts": [{"name": "libraries", "mountPath": f"/driver-root/{LIBRARIES}"}],
    }


@pytest.fixture(scope="session")
def release(kubectl, values, stopwatch) -> Iterator[Release]:
    """Installed, and every pod of it ready."""
    with helm.Config(kubeconfig_path=kubectl.kubeconfig, namespace=NAMESPACE) as config:
        release = Release(config, values)
        release.install()
        stopwatch("helm install, with every pod ready")
        yield release
        release.uninstall()
        kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


@pytest.fixture
def informer(own_node) -> Iterator[GpuInformer]:
    """A consumer on the node, on the consumers' socket."""
    with (
        Clientset.connect("unix:///var/run/device-api/device.sock") as clients,
        GpuInformer(clients.v1alpha1.gpus) as informer,
    ):
        informer.wait_for_sync()
        yield informer


@pytest.fixture
def plugin(own_node) -> Iterator[Program]:
    """The device plugin, registered with the kubelet, which offers all GPUs."""
    with own_node.plugin.running() as plugin:
        own_node.wait_for_allocatable(GPUS)
        plugin.check()
        yield plugin
