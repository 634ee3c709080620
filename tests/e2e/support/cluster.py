"""A cluster of one node on this machine: control plane, containerd and kubelet as processes.

It is made for `tests/e2e/run`, which puts everything into namespaces of its own: the addresses and
directories below belong to nobody else.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
from kubectl import Kubectl, is_ready
from polling import eventually

NODE = "gpu-node-07"
ADDRESS = "192.0.2.1"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
TOKEN = "of-the-tests"
CONTAINERD = "/run/containerd/containerd.sock"
CGROUP = "/device-api-e2e"
IMPORT_SECONDS = 120


class Program:
    """A process that runs until it is stopped, whose output is in a file."""

    def __init__(self, log: Path, *command: str, path: Path | None = None) -> None:
        self.log = log
        self._command = command
        self._environment = dict(os.environ)
        if path is not None:
            self._environment["PATH"] = f"{path}:{os.environ['PATH']}"
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[Program]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """Ends it and returns its exit status, ``None`` if it does not run."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    @property
    def said(self) -> str:
        """All of its output."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Fails with the end of its output if it has ended by itself."""
        assert self._process is not None, f"{self.log.stem} was not started"
        assert self._process.poll() is None, f"{self.log.stem} ended: {self.said[-3000:]}"


class Cluster:
    """``programs`` is where `tests/e2e/programs` put them; all files are in ``scratch``, and the
    driver's in ``libraries``."""

    def __init__(self, programs: Path, scratch: Path, libraries: Path) -> None:
        self.bin = programs / "bin"
        self.scratch = scratch
        self.kubeconfig = scratch / "kubeconfig"
        self._libraries = libraries
        self._pause = programs / "pause.oci.tar"
        self.kubectl = Kubectl(str(self.bin / "kubectl"), self.kubeconfig, "default")
        self.containerd = self._program(
            "containerd", f"--config={scratch / 'containerd.toml'}", "--log-level=info"
        )
        self.kubelet = self._program(
            "kubelet",
            f"--config={scratch / 'kubelet.json'}",
            f"--kubeconfig={self.kubeconfig}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{CONTAINERD}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            # As GPU feature discovery does.
            "--node-labels=nvidia.com/gpu.present=true",
        )

    @contextmanager
    def running(self, *images: Path) -> Iterator[Cluster]:
        """The cluster with a node that is ready and has these images."""
        self._write_files()
        with ExitStack() as stack:
            for program in self._control_plane():
                stack.enter_context(program.running())
            eventually(self._serves, 60, "the API server")
            stack.enter_context(self.containerd.running())
            self.wait_for_containerd()
            for image in (self._pause, *images):
                self.ctr("images", "import", str(image))
            stack.callback(self.kill_containers)
            stack.enter_context(self.kubelet.running())
            self.wait_until_node_is_ready()
            self.kubectl("apply", "--filename=-", given=_RUNTIME_CLASS)
            yield self

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client prints."""
        return subprocess.run(
            [self.bin / "ctr", f"--address={CONTAINERD}", "--namespace=k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=IMPORT_SECONDS,
        ).stdout

    def wait_for_containerd(self) -> None:
        eventually(lambda: self.ctr("version"), 30, "containerd")

    def wait_until_node_is_ready(self) -> None:
        def ready() -> bool:
            self.kubelet.check()
            return is_ready(self.kubectl.get("node", NODE))

        eventually(ready, 60, "the node")

    def kill_containers(self, name: str = "") -> None:
        """End every container of every pod, as a loss of power does, or those of that name only."""
        those = (f'labels."io.kubernetes.container.name"=={name}',) if name else ()
        for container in self.ctr("containers", "list", "--quiet", *those).split():
            subprocess.run(
                [self.bin / "ctr", f"--address={CONTAINERD}", "--namespace=k8s.io"]
                + ["tasks", "kill", "--signal=SIGKILL", container],
                capture_output=True,
                check=False,
            )

    def kill_shims(self) -> None:
        """End containerd's parent processes of the containers; it starts anew without them."""
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"containerd-shim-runc-v2"):
                    os.kill(int(process.name), signal.SIGKILL)

    def _program(self, name: str, *flags: str) -> Program:
        # containerd looks for its shim and for runc, the kubelet for mount.
        command = str(self.bin / name)
        return Program(self.scratch / f"{name}.log", command, *flags, path=self.bin)

    def _serves(self) -> bool:
        return self.kubectl("get", "--raw=/readyz") == "ok"

    def _control_plane(self) -> Iterator[Program]:
        to_server = f"--kubeconfig={self.kubeconfig}"
        key = str(self.scratch / "server.key")
        yield self._program("etcd", f"--data-dir={self.scratch / 'etcd'}")
        yield self._program(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={ADDRESS}",
            # The Service's, so that pods find it without a kube-proxy.
            "--secure-port=443",
            f"--tls-cert-file={self.scratch / 'server.crt'}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={self.scratch / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--kubelet-preferred-address-types=InternalIP",
        )
        yield self._program(
            "kube-controller-manager",
            to_server,
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self.scratch / 'ca.crt'}",
            "--flex-volume-plugin-dir=/run/volume-plugins",
            "--leader-elect=false",
        )
        yield self._program("kube-scheduler", to_server, "--leader-elect=false")

    def _write_files(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert(ADDRESS, API_SERVICE, "127.0.0.1")
        certificate.private_key_pem.write_to_path(self.scratch / "server.key")
        certificate.cert_chain_pems[0].write_to_path(self.scratch / "server.crt")
        authority.cert_pem.write_to_path(self.scratch / "ca.crt")
        (self.scratch / "tokens.csv").write_text(f"{TOKEN},tests,tests,system:masters\n")
        server = {
            "server": f"https://{ADDRESS}",
            "certificate-authority": str(self.scratch / "ca.crt"),
        }
        self._write(
            "kubeconfig",
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "e2e", "cluster": server}],
                "users": [{"name": "tests", "user": {"token": TOKEN}}],
                "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "tests"}}],
                "current-context": "e2e",
            },
        )
        self._write("kubelet.json", _KUBELET)
        (self.scratch / "cni").mkdir()
        self._write("cni/10-bridge.conflist", _NETWORK)
        runtime = self.scratch / "nvidia-container-runtime"
        program = Path(__file__).with_name("nvidia_runtime.py")
        words = (sys.executable, str(program), str(self.bin / "runc"), str(self._libraries))
        runtime.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        runtime.chmod(0o755)
        (self.scratch / "containerd.toml").write_text(
            f'''version = 2
root = "{self.scratch}/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:e2e"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
BinaryName = "{runtime}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{self.bin}"
conf_dir = "{self.scratch}/cni"
'''
        )

    def _write(self, name: str, content: object) -> None:
        (self.scratch / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    # Whoever reaches the kubelet is inside the namespace.
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": CGROUP,
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "resolvConf": "",
    # This machine's disk is not the tests' concern.
    "evictionHard": {"memory.available": "1Mi"},
    "imageGCHighThresholdPercent": 100,
    "nodeStatusUpdateFrequency": "1s",
    "volumePluginDir": "/run/volume-plugins",
}

_RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}

_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local", "subnet": PODS},
        }
    ],
}
