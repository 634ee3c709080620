"""Clients of other makes on the h2 transport. grpcio's own is what all other tests here use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import Server, need
from wire import GPU_SERVICE, Api

from device_api_core._proto import gpu_pb2

pytestmark = pytest.mark.once("its servers are on h2 already")

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "clients"
SECONDS = 150
"""Of one program. A first build of grpc-go takes half a minute, and longer beside other tests."""
fetched_or_built = pytest.mark.timeout(2 * SECONDS)
LIST = f"/{GPU_SERVICE}/ListGpus"
GET = f"/{GPU_SERVICE}/GetGpu"
GRPC = {"content-type": "application/grpc", "te": "trailers"}
GO_PACKAGES = Path("/usr/share/gocode")

if not os.environ.get("CI"):
    pytest.importorskip(
        "device_api_transport_h2._engine",
        reason="the h2 transport was not built: Python's C headers or libnghttp2 are missing",
        exc_type=ImportError,
    )


@pytest.fixture(scope="module")
def h2() -> Iterator[Server]:
    """A server on the h2 transport, with one GPU."""
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        with Server(Path(path), "--transport=h2") as running:
            running.wait_serving()
            running.api().register("gpu-1", "alpha")
            yield running
            assert running.stop() == 0
        assert not running.tracebacks, running.text


def run(*command: str | Path, **how: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
        env={**os.environ, **how},
    )
    return done.stdout + done.stderr


def frame(message: bytes = b"") -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def headers(option: str = "-H") -> list[str]:
    return [part for name, value in GRPC.items() for part in (option, f"{name}: {value}")]


@fetched_or_built
def test_grpc_go(h2, tmp_path):
    go = need("go", "golang-go")
    if not GO_PACKAGES.joinpath("src/google.golang.org/grpc").exists() and not os.environ.get("CI"):
        pytest.skip("grpc-go is not installed: apt install golang-google-grpc-dev")
    client = tmp_path / "client"
    how = {"GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOFLAGS": "", "CGO_ENABLED": "0"}
    built = run(go, "build", "-o", client, CLIENTS / "interop.go", **how)
    assert client.exists(), built
    assert run(client, h2.socket, h2.provider_socket).split("\n") == [
        "unary OK",
        "error NotFound",
        "large NotFound",
        "too-large ResourceExhausted",
        "large-of-providers NotFound",
        "too-large-of-providers ResourceExhausted",
        "compressed Unimplemented",
        "unknown-method Unimplemented",
        "watch OK",
        "deadline DeadlineExceeded",
        "cancel Canceled",
        "concurrent OK",
        "",
    ]


@fetched_or_built
def test_grpc_js(h2, tmp_path):
    node, npm = need("node", "nodejs"), need("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "examples" / "nodejs" / name, tmp_path)
    installed = run(npm, "ci", "--ignore-scripts", "--no-audit", "--prefix", tmp_path)
    modules = tmp_path / "node_modules"
    assert modules.exists(), installed
    assert run(node, CLIENTS / "interop.js", modules, ROOT / "proto", h2.socket).split("\n") == [
        "unary OK",
        "error NOT_FOUND",
        "too-large RESOURCE_EXHAUSTED",
        "watch OK",
        "deadline DEADLINE_EXCEEDED",
        "cancel CANCELLED",
        "concurrent OK",
        "",
    ]


def test_grpcurl(h2):
    base = [need("grpcurl"), "-plaintext", "-unix", "-max-time", "10"]
    assert GPU_SERVICE in run(*base, h2.socket, "list")
    answer = json.loads(run(*base, h2.socket, LIST[1:]))
    assert [gpu["metadata"]["name"] for gpu in answer["gpu_list"]["items"]] == ["gpu-1"]
    assert "NotFound" in run(*base, "-d", '{"name": "none"}', h2.socket, GET[1:])
    assert "DeadlineExceeded" in run(
        *base[:-2], "-max-time", "0.5", h2.socket, f"{GPU_SERVICE}/WatchGpus"
    )


@pytest.mark.parametrize("schema", ["reflection", "files"])
def test_buf_curl(h2, schema):
    base = [need("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    base += ["--unix-socket", h2.socket]
    base += ["--schema", str(ROOT / "proto")] if schema == "files" else []
    answer = json.loads(run(*base, "-d", "{}", f"http://localhost{LIST}"))
    assert answer["gpuList"]["items"][0]["metadata"]["name"] == "gpu-1"
    missing = run(*base, "-d", '{"name": "none"}', f"http://localhost{GET}")
    assert json.loads(missing)["code"] == "not_found"


def test_curl(h2, tmp_path):
    body, heard = tmp_path / "body", tmp_path / "heard"
    body.write_bytes(frame())
    base = [need("curl"), "--silent", "--show-error", "--http2-prior-knowledge"]
    base += ["--unix-socket", str(h2.socket)]
    said = run(
        *base, "-D", "-", "-o", heard, *headers(), "--data-binary", f"@{body}",
        f"http://localhost{LIST}",
    )  # fmt: skip
    assert said.startswith("HTTP/2 200")
    assert "grpc-status: 0" in said
    data = heard.read_bytes()
    assert len(data) == 5 + int.from_bytes(data[1:5], "big")
    listed = gpu_pb2.ListGpusResponse.FromString(data[5:])
    assert [gpu.metadata.name for gpu in listed.gpu_list.items] == ["gpu-1"]
    assert run(*base, "-i", f"http://localhost{LIST}").startswith("HTTP/2 405")


def test_nghttp(h2, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(frame())
    said = run(
        need("nghttp", "nghttp2-client"), "-v", "-n", *headers(), "-d", body,
        f"http://{h2.addresses['tcp']}{LIST}",
    )  # fmt: skip
    assert ":status: 200" in said
    assert "grpc-status: 0" in said
    assert "error_code=NO_ERROR" in said


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_h2load(h2, tmp_path, where):
    body = tmp_path / "body"
    body.write_bytes(frame())
    target = [f"http://{h2.addresses['tcp']}{LIST}"]
    if where == "unix":
        target = [f"--base-uri=unix:{h2.socket}", f"http://localhost{LIST}"]
    said = run(
        need("h2load", "nghttp2-client"), "-n2000", "-c10", "-m50", *headers(), "-d", body, *target
    )
    assert "2000 succeeded, 0 failed" in said
    assert "2000 2xx" in said


def test_nothing_of_it_stays(h2):
    """All these clients have gone, and the server serves the next."""
    with Api(f"unix:{h2.socket}") as api:
        assert api.get("gpu-1").metadata.name == "gpu-1"
