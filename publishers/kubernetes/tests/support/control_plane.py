"""A real kube-apiserver on etcd, without a node: the programs of `tests/e2e/programs`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests
import trustme

ADMIN = "of-the-tests"
SECONDS = 60.0
PATCH = "application/strategic-merge-patch+json"
SERVICE_ACCOUNT, NAMESPACE = "publisher", "gpus"

CLUSTER_RULES = (
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
)
RULES = ({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},)
"""In namespace default."""


def programs() -> Path | None:
    """Where the programs are, if they are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("E2E_PROGRAMS") or cache / "device-api-e2e") / "bin"
    found = all(os.access(place / name, os.X_OK) for name in ("etcd", "kube-apiserver"))
    return place if found else None


class ControlPlane:
    """An API server with RBAC, and an administrator's access to it."""

    def __init__(self, scratch: Path, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.ca_file = scratch / "ca.crt"
        self._scratch = scratch
        self._admin = requests.Session()
        self._admin.verify = str(self.ca_file)
        self._admin.trust_env = False
        self._admin.headers["Authorization"] = f"Bearer {ADMIN}"

    @classmethod
    @contextmanager
    def running(cls, place: Path, scratch: Path) -> Iterator[ControlPlane]:
        peers, clients, port = _free_ports(3)
        plane = cls(scratch, port)
        plane._write_files()
        etcd = f"http://127.0.0.1:{clients}"
        peer = f"http://127.0.0.1:{peers}"
        key = str(scratch / "server.key")
        with ExitStack() as stack:
            stack.callback(plane._admin.close)
            stack.enter_context(
                _running(
                    scratch / "etcd.log",
                    str(place / "etcd"),
                    f"--data-dir={scratch / 'etcd'}",
                    f"--listen-client-urls={etcd}",
                    f"--advertise-client-urls={etcd}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                )
            )
            process = stack.enter_context(
                _running(
                    scratch / "apiserver.log",
                    str(place / "kube-apiserver"),
                    f"--etcd-servers={etcd}",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={port}",
                    f"--tls-cert-file={scratch / 'server.crt'}",
                    f"--tls-private-key-file={key}",
                    f"--token-auth-file={scratch / 'tokens.csv'}",
                    "--authorization-mode=Node,RBAC",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={key}",
                    f"--service-account-signing-key-file={key}",
                    "--service-cluster-ip-range=10.96.0.0/16",
                )
            )
            plane._wait(process)
            yield plane

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def create(self, path: str, thing: dict[str, Any]) -> Any:
        return self._call("POST", path, json=thing)

    def replace(self, path: str, thing: dict[str, Any]) -> Any:
        return self._call("PUT", path, json=thing)

    def patch(self, path: str, thing: dict[str, Any]) -> Any:
        return self._call("PATCH", path, json=thing, headers={"Content-Type": PATCH})

    def condition(self, node: str, type_: str = "GPUHealthy") -> dict[str, Any]:
        """A Node's condition, empty if there is none."""
        found = self.get(f"/api/v1/nodes/{node}")["status"].get("conditions") or []
        return next((c for c in found if c["type"] == type_), {})

    def events(self, node: str) -> list[dict[str, Any]]:
        """The Events about a Node, in the order in which they came."""
        path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name="
        items = self.get(f"{path}{node}")["items"]
        return sorted(items, key=lambda e: int(e["metadata"]["resourceVersion"]))

    def allow(self) -> Path:
        """A service account with exactly what a publisher needs; returns the file of its token."""
        self.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        self.create(accounts, {"metadata": {"name": SERVICE_ACCOUNT}})
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
        for kind, path, rules in (
            ("ClusterRole", rbac, CLUSTER_RULES),
            ("Role", f"{rbac}/namespaces/default", RULES),
        ):
            role = {"metadata": {"name": "publisher"}, "rules": list(rules)}
            self.create(f"{path}/{kind.lower()}s", role)
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "publisher"}
            binding = {"metadata": {"name": "publisher"}, "roleRef": reference}
            self.create(f"{path}/{kind.lower()}bindings", {**binding, "subjects": [subject]})
        asked = {"spec": {"expirationSeconds": 600}}
        token = self.create(f"{accounts}/{SERVICE_ACCOUNT}/token", asked)["status"]["token"]
        file = self._scratch / "token"
        file.write_text(token)
        return file

    @contextmanager
    def without(self, rule: dict[str, Any]) -> Iterator[None]:
        """Takes one rule away meanwhile."""
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        in_cluster = rule in CLUSTER_RULES
        path = f"{rbac}/clusterroles/publisher"
        if not in_cluster:
            path = f"{rbac}/namespaces/default/roles/publisher"
        all_rules = list(CLUSTER_RULES if in_cluster else RULES)
        kept = [each for each in all_rules if each != rule]
        self.replace(path, {"metadata": {"name": "publisher"}, "rules": kept})
        try:
            yield
        finally:
            self.replace(path, {"metadata": {"name": "publisher"}, "rules": all_rules})

    def _call(self, method: str, path: str, **how: Any) -> Any:
        response = self._admin.request(method, f"{self.url}{path}", timeout=20, **how)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None, (self._scratch / "apiserver.log").read_text()[-2_000:]
            try:
                if self._admin.get(f"{self.url}/readyz", timeout=5).ok:
                    # Nodes and Events need it, and it is made by the server itself.
                    self.get("/api/v1/namespaces/default")
                    return
            except (requests.ConnectionError, requests.Timeout, AssertionError):
                assert time.monotonic() < ends, "the API server is not ready"
            time.sleep(0.1)

    def _write_files(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(self._scratch / "server.key")
        certificate.cert_chain_pems[0].write_to_path(self._scratch / "server.crt")
        authority.cert_pem.write_to_path(self.ca_file)
        (self._scratch / "tokens.csv").write_text(f"{ADMIN},tests,tests,system:masters\n")


@contextmanager
def _running(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [each.getsockname()[1] for each in sockets]
