"""The process: how it starts, where it refuses to, how it ends, and what outlives it."""

import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from process import Server
from wire import Api, reason_of

Start = Callable[..., Server]


def http_status(server: Server, path: str) -> int:
    return server.http(path)[0]


def test_readiness_through_the_whole_life(start: Start) -> None:
    server = start("--expect-provider=remote", "--shutdown-delay=1.5")
    server.said("serving")
    assert http_status(server, "/healthz") == http_status(server, "/livez") == 200
    status, text = server.http("/readyz")
    assert status == 503
    assert "not ready" in text
    assert "remote" in text
    api = server.api()
    api.register("gpu-0", "remote")
    api.set("gpu-0", "Fan", "True", "remote")
    server.wait_serving()
    assert server.http("/readyz") == (200, "ok\n")
    server.signal()
    server.said("stopping")
    assert server.http("/readyz") == (503, "shutting down\n")
    assert http_status(server, "/healthz") == http_status(server, "/livez") == 200
    # Until the delay is over it still answers, so that clients can move away.
    assert api.get("gpu-0").metadata.name == "gpu-0"
    assert server.exit_code() == 0


def test_pages_are_alive_while_running_calls_drain(start: Start) -> None:
    server = start("--shutdown-timeout=6").wait_serving()
    api = server.api()
    api.register("gpu-0", "remote")
    call = api.hold("remote", "gpu-0")
    server.signal()
    server.said("stopping")
    # The held update keeps a call open; liveness must not fail meanwhile.
    assert http_status(server, "/livez") == 200
    assert http_status(server, "/readyz") == 503
    call.cancel()
    assert server.exit_code() == 0


def test_other_pages_and_methods_are_refused(start: Start) -> None:
    server = start().wait_serving()
    assert http_status(server, "/") == 404
    host, _, port = server.addresses["health"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as peer:
        peer.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert b" 405 " in peer.recv(1_000)
    with socket.create_connection((host, int(port)), timeout=5) as peer:
        peer.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 400 " in peer.recv(1_000)


def test_clients_that_say_nothing_do_not_delay_the_exit(start: Start) -> None:
    server = start().wait_serving()
    host, _, port = server.addresses["metrics"].rpartition(":")
    with socket.create_connection((host, int(port))), server.api().channel as channel:
        grpc.channel_ready_future(channel).result(5)
        with socket.create_connection((host, int(port))) as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            greedy.settimeout(0.5)
            # It asks for much and reads nothing, until nothing more fits.
            with pytest.raises(TimeoutError):
                greedy.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
            assert http_status(server, "/metrics") == 200
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 3


def test_an_ordinary_end_removes_the_sockets_and_exits_with_0(start: Start) -> None:
    server = start().wait_serving()
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3
    assert not server.socket.exists()
    assert not server.provider_socket.exists()
    assert server.said("stopped")


def test_sigint_ends_it_like_sigterm(start: Start) -> None:
    server = start().wait_serving()
    server.signal(signal.SIGINT)
    assert server.exit_code() == 0


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start("--shutdown-delay=60").wait_serving()
    server.signal()
    server.said("stopping")
    began = time.monotonic()
    server.signal()
    assert server.exit_code() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2


def test_the_delay_and_the_timeout_bound_the_end(start: Start) -> None:
    server = start("--shutdown-delay=0.5", "--shutdown-timeout=1").wait_serving()
    api = server.api()
    api.register("gpu-0", "remote")
    held = api.hold("remote", "gpu-0")
    reader = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, api.get, "gpu-0"))
    reader.start()
    while server.metric("readers_parked") < 1:
        pass
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3
    held.cancel()
    reader.join(5)


def test_a_client_of_the_health_service_does_not_delay_the_end(start: Start) -> None:
    server = start("--shutdown-timeout=10").wait_serving()
    watch = health_pb2_grpc.HealthStub(server.api("consumer").channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=30
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    began = time.monotonic()
    server.signal()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.exit_code() == 0
    assert time.monotonic() - began < 3


def test_watches_end_as_unavailable_before_the_server_does(start: Start) -> None:
    server = start().wait_serving()
    api = server.api("consumer")
    watches = [api.watch() for _ in range(20)]
    server.api().register("gpu-0", "alpha")
    for watch in watches:
        assert watch.next().object.metadata.name == "gpu-0"
    server.signal()
    for watch in watches:
        error = watch.ended()
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the server is shutting down"
        assert reason_of(error) == ""
    assert server.exit_code() == 0


def test_kill_and_restart_take_the_stale_sockets_over(start: Start) -> None:
    first = start().wait_serving()
    version = first.api().register("gpu-0", "alpha").resource_version
    first.signal(signal.SIGKILL)
    assert first.exit_code() == -signal.SIGKILL
    assert first.socket.exists()
    second = start().wait_serving()
    assert second.api().list().items == []
    assert second.api().register("gpu-0", "alpha").resource_version > version
    error = second.api().watch(str(version)).ended()
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert second.stop() == 0
    assert not second.socket.exists()


def test_versions_rise_over_a_kill_though_the_clock_was_set_back(
    start: Start, directory: Path
) -> None:
    state = directory / "state"
    first = start(f"--state-dir={state}").wait_serving()
    version = first.api().register("gpu-0", "alpha").resource_version
    first.signal(signal.SIGKILL)
    first.exit_code()
    # As if the clock had been a year ahead when the first one ran.
    ahead = version + 365 * 86_400 * 1_000_000
    with sqlite3.connect(state / "state.db") as connection:
        assert connection.execute("SELECT ceiling FROM version").fetchone()[0] > version
        connection.execute("UPDATE version SET ceiling = ?", (ahead,))
    connection.close()
    second = start(f"--state-dir={state}").wait_serving()
    second_version = second.api().register("gpu-0", "alpha").resource_version
    assert second_version > ahead
    assert second.stop() == 0
    third = start(f"--state-dir={state}").wait_serving()
    assert third.api().register("gpu-0", "alpha").resource_version > second_version
    assert third.stop() == 0


@pytest.mark.parametrize("shared", ["--unix-socket", "--provider-socket"])
def test_a_second_server_on_a_socket_is_refused_and_the_first_unharmed(
    start: Start, directory: Path, shared: str
) -> None:
    first = start().wait_serving()
    watch = first.api("consumer").watch()
    other = "--provider-socket" if shared == "--unix-socket" else "--unix-socket"
    second = start(f"{other}={directory / 'else.sock'}")
    assert second.exit_code() == 1
    path = first.socket if shared == "--unix-socket" else first.provider_socket
    assert second.text.strip().splitlines()[-1] == (
        f"Error: another server (process {first.process.pid}) serves {path}: stop it or choose "
        "another path"
    )
    assert not (directory / "else.sock").exists()
    assert path.exists()
    first.api().register("gpu-0", "alpha")
    assert watch.next().object.metadata.name == "gpu-0"
    watch.cancel()
    assert first.stop() == 0


def test_a_file_that_is_no_socket_is_left_alone(start: Start, directory: Path) -> None:
    (directory / "gpu.sock").write_text("precious")
    server = start()
    assert server.exit_code() == 1
    assert "is not a socket: move it away" in server.text
    assert (directory / "gpu.sock").read_text() == "precious"


def test_a_foreign_server_without_a_lock_is_not_taken_over(start: Start, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(directory / "gpu.sock"))
        foreign.listen()
        server = start()
        assert server.exit_code() == 1
        assert "a server that holds no lock answers at" in server.text
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(directory / "gpu.sock"))


def test_a_foreign_file_that_replaced_the_socket_is_not_removed(start: Start) -> None:
    server = start().wait_serving()
    server.socket.unlink()
    server.socket.write_text("precious")
    assert server.stop() == 0
    assert server.socket.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused(start: Start, directory: Path) -> None:
    server = start(f"--unix-socket={directory / ('x' * 101)}")
    assert server.exit_code() == 1
    assert "is longer than 100 bytes" in server.text


@pytest.mark.parametrize("name", ["with space.sock", "per%41cent.sock", "qu?ry#x.sock"])
def test_odd_characters_in_a_path_are_taken_literally(
    start: Start, directory: Path, name: str
) -> None:
    server = start(f"--unix-socket={directory / name}").wait_serving()
    assert (directory / name).is_socket()
    assert server.stop() == 0
    assert not (directory / name).exists()


@pytest.mark.parametrize("flag", ["--grpc-address", "--health-port", "--metrics-port"])
def test_a_port_in_use_stops_the_start(start: Start, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start(f"{flag}={'127.0.0.1:' if flag == '--grpc-address' else ''}{port}")
        assert server.exit_code() == 1
        last = server.text.strip().splitlines()[-1]
        assert last.startswith(f"Error: cannot listen on 127.0.0.1:{port}")
        assert flag in last
    assert not server.socket.exists()
    assert not server.provider_socket.exists()


@pytest.mark.once("it names its transport")
@pytest.mark.parametrize("address", [":0", "localhost:0", "[::]:0", "0.0.0.0:0"])
def test_a_tcp_address_may_be_spelt_in_several_ways(start: Start, address: str) -> None:
    # Beyond loopback only grpcio serves.
    server = start("--transport=grpcio", f"--grpc-address={address}").wait_serving()
    port = server.addresses["tcp"].rpartition(":")[2]
    with Api(f"127.0.0.1:{port}") as api:
        assert api.list().items == []
    assert server.stop() == 0


@pytest.mark.once("it names its transport")
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999"])
def test_a_malformed_tcp_address_stops_the_start(start: Start, address: str) -> None:
    server = start("--transport=grpcio", f"--grpc-address={address}")
    assert server.exit_code() == 1
    assert f"--grpc-address must be HOST:PORT or :PORT, not {address!r}" in server.text
    assert not server.socket.exists()


def test_two_servers_cannot_share_a_tcp_port(start: Start, directory: Path) -> None:
    first = start().wait_serving()
    (directory / "other").mkdir()
    with Server(directory / "other", f"--grpc-address={first.addresses['tcp']}") as second:
        assert second.exit_code() == 1
        assert "is the port in use" in second.text
    assert first.api("tcp").list().items == []


def test_a_state_directory_that_cannot_be_used_stops_the_start(
    start: Start, directory: Path
) -> None:
    (directory / "file").write_text("")
    server = start(f"--state-dir={directory / 'file' / 'state'}")
    assert server.exit_code() == 1
    assert "--state-dir: cannot use" in server.text


def test_a_running_server_leaks_nothing_per_client(start: Start) -> None:
    server = start().wait_serving()
    server.api().register("gpu-0", "alpha")

    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))

    def threads() -> int:
        return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    def visit() -> None:
        with server.api("consumer") as api:
            watch = api.watch()
            watch.next()
            api.get("gpu-0")
            server.http("/metrics")

    for _ in range(5):
        visit()
    before = descriptors(), threads()
    for _ in range(40):
        visit()
    wait_until(lambda: server.metric("watch_streams_active") == 0)
    wait_until(lambda: descriptors() <= before[0] + 3)
    assert threads() <= before[1] + 2
    assert server.stop() == 0


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.01)


def test_a_client_killed_in_a_watch_frees_its_slot(start: Start) -> None:
    server = start().wait_serving()
    api = server.api()
    api.register("gpu-0", "alpha")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from wire import Api\n"
        "watch = Api(sys.argv[2]).watch(); watch.next(); print('open', flush=True); watch.next()"
    )
    support = str(Path(__file__).parent / "support")
    client = subprocess.Popen(
        [sys.executable, "-c", code, support, f"unix:{server.socket}"], stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"open\n"
    assert server.metric("watch_streams_active") == 1
    client.kill()
    client.wait(10)
    client.stdout.close()
    wait_until(lambda: server.metric("watch_streams_active") == 0)
    for i in range(20):
        api.set("gpu-0", "Fan", "True", "alpha", message=str(i))
    assert server.stop() == 0


def test_peers_that_only_hold_connections_do_not_keep_a_probe_out(start: Start) -> None:
    server = start().wait_serving()
    host, _, port = server.addresses["health"].rpartition(":")
    idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
    assert server.http("/livez") == (200, "ok\n")
    for peer in idle:
        peer.close()
    assert server.stop() == 0


def test_a_watcher_that_does_not_read_does_not_delay_the_end(start: Start) -> None:
    server = start("--shutdown-timeout=2").wait_serving()
    api = server.api()
    api.register("gpu-0", "alpha")
    watch = server.api("consumer").watch()
    assert watch.next().type == "ADDED"
    for i in range(300):
        api.set("gpu-0", "Fan", "False", "alpha", message=f"{i}-{'x' * 20_000}")
    assert server.metric("watch_queue_depth") > 0
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3
