"""A node in a directory, on which the chart's pods run under runc.

A pod's containers are run as the chart wrote them: user, capabilities, read-only root, commands,
environment and mounts. Two things differ from a kubelet: they share this machine's network, and no
seccomp profile is loaded.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Object = dict[str, Any]

FIELDS = {
    "spec.nodeName": "gpu-node-07",
    "status.hostIP": "127.0.0.1",
    "status.podIP": "127.0.0.1",
}
_TMPFS = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}


class Node:
    """What lies on the host, below ``directory``, and the image's files in ``rootfs``."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.pid_files: dict[str, Path] = {}
        """Where the process id of each container's latest run is."""
        self._rootfs = rootfs

    def path(self, host_path: str) -> Path:
        """Where a path of the host is."""
        return self.directory / host_path.lstrip("/")

    def run(self, pod: Object, container: Object, config: str) -> str:
        """Run a container to its end; returns what it said. Raises if it fails."""
        with self.started(pod, container, config) as process:
            output, _ = process.communicate(timeout=50)
            assert process.returncode == 0, output
        return output

    @contextmanager
    def started(
        self, pod: Object, container: Object, config: str
    ) -> Iterator[subprocess.Popen[str]]:
        """A container while it runs. SIGTERM reaches it through runc."""
        name = f"device-api-{container['name']}-{secrets.token_hex(4)}"
        bundle = self.directory / "bundles" / name
        bundle.mkdir(parents=True)
        spec = self._spec(bundle, pod, container, config)
        (bundle / "config.json").write_text(json.dumps(spec), encoding="utf-8")
        root = self.directory / "runc"
        process = subprocess.Popen(
            ["runc", "--root", root, "run", "--bundle", bundle, "--pid-file", bundle / "pid", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid_files[container["name"]] = bundle / "pid"
        try:
            yield process
        finally:
            subprocess.run(
                ["runc", "--root", root, "delete", "--force", name],
                capture_output=True,
                check=False,
            )
            if process.poll() is None:
                process.wait(20)
            assert process.stdout is not None
            process.stdout.close()

    def _spec(self, bundle: Path, pod: Object, container: Object, config: str) -> Object:
        subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
        spec: Object = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
        context = container["securityContext"]
        allowed = [f"CAP_{name}" for name in context.get("capabilities", {}).get("add", [])]
        process = spec["process"]
        process["terminal"] = False
        process["args"] = container["command"] + container.get("args", [])
        process["env"] = ["PATH=/usr/local/bin:/usr/bin", *_environment(container)]
        process["user"] = {"uid": context["runAsUser"], "gid": context["runAsGroup"]}
        # A user other than root has none in effect, whatever is allowed.
        held = allowed if context["runAsUser"] == 0 else []
        process["capabilities"] = {
            "bounding": allowed,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        }
        process["noNewPrivileges"] = context.get("allowPrivilegeEscalation") is False
        process["rlimits"] = []
        spec["root"] = {"path": str(self._rootfs), "readonly": context["readOnlyRootFilesystem"]}
        spec["linux"]["namespaces"] = [
            each for each in spec["linux"]["namespaces"] if each["type"] in {"pid", "ipc", "mount"}
        ]
        spec["linux"].pop("resources", None)
        spec.pop("hostname", None)
        spec["mounts"] += self._mounts(bundle, pod, container, config)
        return spec

    def _mounts(
        self, bundle: Path, pod: Object, container: Object, config: str
    ) -> Iterator[Object]:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                yield {"destination": mount["mountPath"], **_TMPFS}
                continue
            if "configMap" in volume:
                source = bundle / "config"
                source.mkdir(exist_ok=True)
                (source / "server.toml").write_text(config, encoding="utf-8")
            else:
                source = self._host_path(volume["hostPath"])
            # A simulated driver keeps its state in its directory; a real one has device files.
            simulated = mount["name"] == "driver-root"
            access = "ro" if mount.get("readOnly") and not simulated else "rw"
            yield {
                "destination": mount["mountPath"],
                "type": "bind",
                "source": str(source),
                "options": ["rbind", access, "nosuid", "nodev"],
            }

    def _host_path(self, volume: Object) -> Path:
        source = self.path(volume["path"])
        if volume["type"] == "DirectoryOrCreate" and not source.exists():
            # As the kubelet does: root's, 0755.
            source.mkdir(parents=True)
            source.chmod(0o755)
        assert source.is_dir()
        return source


def _environment(container: Object) -> Iterator[str]:
    for each in container.get("env", []):
        value = each.get("value") or FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
        yield f"{each['name']}={value}"
