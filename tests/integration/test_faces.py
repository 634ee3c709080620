"""Who reaches what: sockets, their modes, TCP, health and reflection."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from process import Server
from wire import ADMIN_SERVICE, GPU_SERVICE, METHODS, PROVIDER_SERVICE

GRPCURL = str(Path(sys.executable).with_name("grpcurl"))
WRITING = sorted(m for m, path in METHODS.items() if GPU_SERVICE not in path)
NOT_SERVED = grpc.StatusCode.UNIMPLEMENTED


def grpcurl(server: Server, socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [GRPCURL, "-plaintext", "-max-time", "10", "-unix", *arguments[:-1]]
    return subprocess.run(
        [*command, str(socket), *arguments[-1].split()],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("face", ["consumer", "tcp"])
@pytest.mark.parametrize("method", WRITING)
def test_consumers_cannot_reach_what_writes(server: Server, face: str, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.api(face).raw(method, b"")
    assert caught.value.code() is NOT_SERVED


def test_the_transport_is_the_one_that_was_asked_for(server: Server) -> None:
    assert server.addresses["transport"] == os.environ.get("DEVICE_API_TRANSPORT", "grpcio")


def test_sockets_have_their_modes(server: Server) -> None:
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(server.provider_socket.stat().st_mode) == 0o600


def test_a_single_socket_serves_everything_and_tcp_still_only_reads(
    start: Callable[..., Server],
) -> None:
    server = start("--single-socket").wait_serving_on("gpu.sock")
    assert not server.provider_socket.exists()
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o660
    api = server.api("consumer")
    api.register("one", "alpha")
    assert api.provider("alpha").home == "remote"
    tcp = server.api("tcp")
    assert tcp.get("one").metadata.name == "one"
    with pytest.raises(grpc.RpcError) as caught:
        tcp.register("two", "alpha")
    assert caught.value.code() is NOT_SERVED
    assert server.stop() == 0


def test_a_server_without_tcp_or_without_a_consumer_socket_serves_the_rest(
    start: Callable[..., Server],
) -> None:
    server = start("--grpc-address=", "--unix-socket=").wait_serving()
    assert server.addresses["tcp"] == "none"
    assert not server.socket.exists()
    server.api().register("one", "alpha")
    assert server.stop() == 0


def test_health_answers_for_every_service_of_its_face(server: Server) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    for face, services in (
        ("provider", ["", GPU_SERVICE, PROVIDER_SERVICE, ADMIN_SERVICE]),
        ("consumer", ["", GPU_SERVICE]),
        ("tcp", ["", GPU_SERVICE]),
    ):
        stub = health_pb2_grpc.HealthStub(server.api(face).channel)
        for service in services:
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=10).status == serving
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service=PROVIDER_SERVICE), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services_of_its_face(server: Server) -> None:
    def names(face: str) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.api(face).channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(stub.ServerReflectionInfo(iter([request]), timeout=10))
        return {s.name for s in answer.list_services_response.service}

    always = {GPU_SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert names("consumer") == names("tcp") == always
    assert names("provider") == always | {PROVIDER_SERVICE, ADMIN_SERVICE}


def test_a_client_that_knows_nothing_finds_and_calls_every_method(server: Server) -> None:
    api = server.api()
    api.register("curl-1", "alpha")
    for socket in (server.socket, server.provider_socket):
        listed = grpcurl(server, socket, "list")
        assert GPU_SERVICE in listed.stdout.split(), listed.stderr
        for what in (GPU_SERVICE, f"{GPU_SERVICE}.WatchGpus"):
            described = grpcurl(server, socket, f"describe {what}")
            assert described.returncode == 0, described.stderr
            assert "rpc " in described.stdout
        called = grpcurl(server, socket, f"{GPU_SERVICE}/ListGpus")
        assert '"curl-1"' in called.stdout, called.stderr
    for path in METHODS.values():
        described = grpcurl(
            server, server.provider_socket, f"describe {path[1:].replace('/', '.')}"
        )
        assert described.returncode == 0, described.stderr
        assert path.rpartition("/")[2] in described.stdout
    written = grpcurl(
        server,
        server.provider_socket,
        "-d",
        '{"name": "curl-2", "providerId": "alpha"}',
        f"{PROVIDER_SERVICE}/RegisterGpu",
    )
    assert '"created": true' in written.stdout, written.stderr


def test_describing_an_unknown_symbol_is_an_answer_not_a_defect(server: Server) -> None:
    described = grpcurl(server, server.socket, f"describe {GPU_SERVICE}.Nothing")
    assert described.returncode != 0
    assert server.api("consumer").list().metadata.resource_version
